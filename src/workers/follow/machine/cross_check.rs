//! Cross-checks between endpoints. Before the follower reverses confirmed deposits or halts the chain, it asks a second
//! endpoint if it has the other branch, too. When no second endpoint can answer, the first one decides.
//! [`second_source`](super::second_source) checks deposits before they are confirmed.

use chain::BlockRef;
use chain::source::CrossCheckResult;

use crate::workers::Ran;
use crate::workers::follow::machine::actions::Action;
use crate::workers::follow::machine::notices::Notice;
use crate::workers::follow::machine::{AfterStore, Machine, Phase};
use clock::Instant;
use money::cursors::Position;

/// The step that follows the comparison of endpoints.
#[derive(Debug)]
pub(super) enum CrossCheckPurpose {
    /// Blocks are stored, and deposits advance up to `advance_limit`; `None` when no deposit may advance, because an
    /// endpoint reports a final block of another branch.
    Store { advance_limit: Option<Position>, after_store: AfterStore },
    /// The followed branch is reversed down to the common ancestor `to`; `None` when there is no common ancestor, so
    /// that the chain is halted instead.
    Rewind { to: Option<BlockRef> },
}

/// The follower's knowledge about endpoints that contradict each other, and about endpoints that are behind.
#[derive(Debug, Default)]
pub struct EndpointDispute {
    /// True while the review of contradicting endpoints is open; `None` after a start, when the state in the database
    /// is not known.
    pub is_open: Option<bool>,
    /// True when the log already reports that an endpoint is behind.
    pub behind_logged: bool,
    /// The head of an endpoint that is behind, and the time when this head was first seen.
    behind: Option<(BlockRef, Instant)>,
}

impl EndpointDispute {
    /// Records the head of an endpoint that is behind. Returns true when the head has been the same block for at least
    /// `stall_ms` milliseconds.
    pub fn record_head_and_check_stall(&mut self, now: Instant, head: BlockRef, stall_ms: i64) -> bool {
        let since = self.behind.filter(|(seen, _)| *seen == head).map_or(now, |(_, since)| since);
        self.behind = Some((head, since));
        now.since(since) >= stall_ms
    }
}

impl Machine {
    /// Requests a cross-check of this block of another branch.
    pub(super) fn request_cross_check(&mut self, block: BlockRef, purpose: CrossCheckPurpose) -> Action {
        self.phase = Phase::CrossCheck { block, purpose };
        Action::CrossCheck(block)
    }

    /// Acts on the result of a cross-check of `block`, a block of another branch. When the second endpoint does not
    /// respond, or its head has not moved for a long time, the first endpoint decides, so that a broken endpoint does
    /// not stop the follower.
    pub(super) fn act_on_cross_check_result(
        &mut self,
        now: Instant,
        block: BlockRef,
        result: CrossCheckResult,
        purpose: CrossCheckPurpose,
    ) -> Action {
        match result {
            CrossCheckResult::Confirmed => self.close_dispute_or_continue(now, purpose),
            CrossCheckResult::Conflicting { endpoint, hash } => {
                let reason = format!(
                    "{endpoint} has block {hash} at height {}, another endpoint has {}: nothing is confirmed or reversed until \
                     they agree; compare them with independent endpoints and remove the wrong one",
                    block.height, block.hash
                );
                self.open_dispute_or_continue(now, reason, purpose)
            }
            CrossCheckResult::Behind { endpoint, head } => {
                let stalled =
                    self.dispute.record_head_and_check_stall(now, head.block_ref(), self.limits.tip_age_max_ms);
                if stalled || !std::mem::replace(&mut self.dispute.behind_logged, true) {
                    let (head, height) = (head.height, block.height);
                    self.notices.push(Notice::EndpointBehind { endpoint, head, height, stalled });
                }
                self.store_rewind_or_halt_after_cross_check(now, purpose, stalled)
            }
            CrossCheckResult::NoAnswer(reason) => {
                self.notices.push(Notice::NotCrossChecked { height: block.height, reason });
                self.store_rewind_or_halt_after_cross_check(now, purpose, true)
            }
        }
    }

    /// Returns the action that opens the review of contradicting endpoints. When the review is open already, returns
    /// the step after it.
    pub(super) fn open_dispute_or_continue(
        &mut self,
        now: Instant,
        reason: String,
        purpose: CrossCheckPurpose,
    ) -> Action {
        if self.dispute.is_open == Some(true) {
            return self.store_rewind_or_halt_after_cross_check(now, purpose, false);
        }
        self.phase = Phase::DisputeOpened(purpose);
        Action::OpenDispute(reason)
    }

    /// Returns the action that closes the review of contradicting endpoints. When the review is closed already, returns
    /// the step after it.
    pub(super) fn close_dispute_or_continue(&mut self, now: Instant, purpose: CrossCheckPurpose) -> Action {
        if self.dispute.is_open == Some(false) {
            self.dispute.behind_logged = false;
            return self.store_rewind_or_halt_after_cross_check(now, purpose, true);
        }
        self.phase = Phase::DisputeClosed(purpose);
        Action::CloseDispute
    }

    /// Returns the action of the step for which endpoints were compared: stores blocks, rewinds the branch or halts the
    /// chain. `agreed` is true when the endpoints agree or no second one can answer. Otherwise no deposit advances, and
    /// a rewind or a halt does not take place.
    pub(super) fn store_rewind_or_halt_after_cross_check(
        &mut self,
        now: Instant,
        purpose: CrossCheckPurpose,
        agreed: bool,
    ) -> Action {
        match purpose {
            CrossCheckPurpose::Store { advance_limit, after_store } => {
                self.request_block_storage(now, advance_limit.filter(|_| agreed), after_store)
            }
            CrossCheckPurpose::Rewind { .. } if !agreed => Action::Finish(Ran::Idle),
            CrossCheckPurpose::Rewind { to: Some(to) } => self.rewind_branch(to),
            CrossCheckPurpose::Rewind { to: None } => self.request_halt(),
        }
    }
}
