//! Cross-checks between endpoints. The follower confirms deposits, and reverses confirmed deposits, only when a second
//! endpoint has the same blocks.

use chain::source::CrossCheckResult;
use chain::{BlockRef, Height};

use crate::workers::Ran;
use crate::workers::follow::machine::actions::Action;
use crate::workers::follow::machine::notices::Notice;
use crate::workers::follow::machine::{AfterStore, Machine, Phase};
use clock::Instant;
use money::cursors::Position;

/// The minimum time, in milliseconds, between two cross-checks. It applies while no block is to be read and deposits
/// wait for a second endpoint.
pub(super) const CROSS_CHECK_INTERVAL_MS: i64 = 1_000;

/// The purpose of a cross-check. It decides what the follower does after the check.
#[derive(Debug)]
pub(super) enum CrossCheckPurpose {
    /// Blocks are to be stored, and deposits may change their state up to the position `advance_limit`; `None` when no
    /// deposit may, whatever the result is.
    Store { advance_limit: Option<Position>, after_store: AfterStore },
    /// The followed branch is to be reversed down to `to`, the common ancestor of both branches. `None` when there is
    /// no common ancestor; then the chain is halted instead.
    Rewind { to: Option<BlockRef> },
}

/// The part of the followed branch that a second endpoint also has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corroboration {
    /// The second endpoint has all blocks up to the requested block.
    Full,
    /// The second endpoint has only the blocks up to this one, which is its newest block.
    UpTo(BlockRef),
    /// The second endpoint has none of the new blocks: it is on another branch.
    None,
}

/// The follower's knowledge about endpoints that contradict each other, and about endpoints that are behind.
#[derive(Debug, Default)]
pub struct EndpointDispute {
    /// True while the review about contradicting endpoints is open. `None` after a start, because the state in the
    /// database is not known yet.
    pub is_open: Option<bool>,
    /// True when the log already contains the message that an endpoint is behind.
    pub behind_logged: bool,
    /// The newest block of an endpoint that is behind, and the time when this block was first seen as its newest.
    behind: Option<(BlockRef, Instant)>,
}

impl EndpointDispute {
    /// Records the newest block of an endpoint that is behind. Returns true when the endpoint has had this same newest
    /// block for at least `stall_ms` milliseconds.
    pub fn record_head_and_check_stall(&mut self, now: Instant, head: BlockRef, stall_ms: i64) -> bool {
        let since = self.behind.filter(|(seen, _)| *seen == head).map_or(now, |(_, since)| since);
        self.behind = Some((head, since));
        now.since(since) >= stall_ms
    }
}

impl Machine {
    /// Requests a cross-check of the newest block with a deposit that would become confirmed or final. All older blocks
    /// are ancestors of this block, so one request checks them too. When there is no such deposit, no request is sent.
    pub(super) fn cross_check_newest_paid_block(
        &mut self,
        now: Instant,
        advance_limit: Position,
        stored: Option<Height>,
        after_store: AfterStore,
    ) -> Action {
        let least_depth = u64::from(self.chain.depths.required_confirmations(Some(0)));
        let advances =
            |height: &Height| *height <= advance_limit.last || height + least_depth - 1 <= advance_limit.cursor;
        let paid = self.branch.pending.iter().filter(|block| !block.transfers.is_empty());
        let unstored = paid.map(|block| block.header.height).filter(advances).max();
        let purpose = CrossCheckPurpose::Store { advance_limit: Some(advance_limit), after_store };
        match stored.max(unstored) {
            Some(height) => self.request_cross_check(self.branch.follower.find_nearest_block(height), purpose),
            None => self.continue_after_cross_check(now, purpose, Corroboration::Full),
        }
    }

    /// Requests a cross-check of this block.
    pub(super) fn request_cross_check(&mut self, block: BlockRef, purpose: CrossCheckPurpose) -> Action {
        self.phase = Phase::CrossCheck { block, purpose };
        Action::CrossCheck(block)
    }

    /// Acts on the result of a cross-check. When the second endpoint does not respond, or its newest block stays the
    /// same for a long time, deposits advance without it, so that a broken endpoint does not stop all payments. When
    /// the endpoint is slightly behind, deposits wait for it, because a forged block is always ahead of honest
    /// endpoints.
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
                let corroboration = if stalled { Corroboration::Full } else { Corroboration::UpTo(head.block_ref()) };
                self.continue_after_cross_check(now, purpose, corroboration)
            }
            CrossCheckResult::NoAnswer(reason) => {
                self.notices.push(Notice::NotCrossChecked { height: block.height, reason });
                self.continue_after_cross_check(now, purpose, Corroboration::Full)
            }
        }
    }

    /// Returns the action that opens the review about contradicting endpoints. When the review is already open,
    /// continues directly with the next step.
    pub(super) fn open_dispute_or_continue(
        &mut self,
        now: Instant,
        reason: String,
        purpose: CrossCheckPurpose,
    ) -> Action {
        if self.dispute.is_open == Some(true) {
            return self.continue_after_cross_check(now, purpose, Corroboration::None);
        }
        self.phase = Phase::DisputeOpened(purpose);
        Action::OpenDispute(reason)
    }

    /// Returns the action that closes the review about contradicting endpoints. When the review is already closed,
    /// continues directly with the next step.
    pub(super) fn close_dispute_or_continue(&mut self, now: Instant, purpose: CrossCheckPurpose) -> Action {
        if self.dispute.is_open == Some(false) {
            self.dispute.behind_logged = false;
            return self.continue_after_cross_check(now, purpose, Corroboration::Full);
        }
        self.phase = Phase::DisputeClosed(purpose);
        Action::CloseDispute
    }

    /// Returns the step for which the cross-check was made: store blocks, rewind the branch or halt the chain. When the
    /// second endpoint does not have all blocks, nothing is rewound and the run finishes.
    pub(super) fn continue_after_cross_check(
        &mut self,
        now: Instant,
        purpose: CrossCheckPurpose,
        corroboration: Corroboration,
    ) -> Action {
        match purpose {
            CrossCheckPurpose::Store { advance_limit, after_store } => {
                let advance_to = advance_limit
                    .and_then(|advance_limit| self.limit_position_to_corroborated(advance_limit, corroboration));
                self.request_block_storage(now, advance_limit, advance_to, after_store)
            }
            CrossCheckPurpose::Rewind { to } => match (corroboration, to) {
                (Corroboration::Full, Some(to)) => self.rewind_branch(to),
                (Corroboration::Full, None) => self.request_halt(),
                (Corroboration::UpTo(_) | Corroboration::None, _) => Action::Finish(Ran::Idle),
            },
        }
    }

    /// Lowers the position to the blocks that a second endpoint also has. Returns `None` when the newest block of the
    /// second endpoint is on another branch.
    pub(super) fn limit_position_to_corroborated(
        &self,
        advance_limit: Position,
        corroboration: Corroboration,
    ) -> Option<Position> {
        match corroboration {
            Corroboration::Full => Some(advance_limit),
            Corroboration::UpTo(head) if self.branch.follower.is_on_our_branch(head) == Some(true) => Some(Position {
                cursor: advance_limit.cursor.min(head.height),
                last: advance_limit.last.min(head.height),
            }),
            Corroboration::UpTo(_) | Corroboration::None => None,
        }
    }
}
