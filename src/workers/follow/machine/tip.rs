//! Decides by the node's newest block (tip) if blocks are read, deposits advance or invoices expire.

use chain::Tip;
use chain::follower::NextStep;

use crate::workers::follow::machine::actions::Action;
use crate::workers::follow::machine::invoice_expiry::ExpiryCheck;
use crate::workers::follow::machine::notices::Notice;
use crate::workers::follow::machine::{AfterStore, Machine, Phase};
use clock::Instant;

/// The time between two notices about an old tip, in milliseconds. Followers read the tip several times per second.
const OLD_TIP_NOTICE_INTERVAL_MS: i64 = 600_000;

impl Machine {
    /// Requests the next blocks when the tip is above the cursor, or the header of the preferred endpoint when the tip
    /// is on another branch. Otherwise there is no new block: stores pending blocks, checks deposits again or expires
    /// invoices.
    pub(super) fn choose_next_step_by_tip(&mut self, now: Instant, tip: Tip) -> Action {
        match self.branch.follower.decide_next_step(&tip) {
            NextStep::Wait => {
                self.track_quiet_tip_and_report_old_tip(now, &tip);
                self.store_recheck_or_expire_at_tip(now, tip)
            }
            NextStep::ReadBlocks { from, to } => {
                (self.branch.quiet_at, self.branch.quiet_until) = (None, None);
                self.phase = Phase::Blocks(tip);
                Action::ReadBlocks { from, to }
            }
            NextStep::CompareHead if self.branch.follower.is_on_our_branch(tip.head.block_ref()) == Some(false) => {
                (self.branch.quiet_at, self.branch.quiet_until) = (None, None);
                self.phase = Phase::ConflictingHeader(tip);
                Action::ReadHeader(tip.head.height)
            }
            NextStep::CompareHead => self.store_recheck_or_expire_at_tip(now, tip),
        }
    }

    /// Records that the node's tip is the cursor. On chains with rare blocks, a second read of the same tip, from a
    /// second endpoint if there is one, proves that all payments have been read. On chains with steady blocks it proves
    /// nothing: the tip may be a minute old, like TRON's solidified block, and the next block may contain a payment. A
    /// tip that is too old proves nothing either, because the node may have lost its peers; such a tip becomes a
    /// notice.
    pub(super) fn track_quiet_tip_and_report_old_tip(&mut self, now: Instant, tip: &Tip) {
        let age_ms = now.since(Instant::from_unix_seconds(tip.head.time));
        let branch = &mut self.branch;
        if age_ms <= self.limits.tip_age_max_ms {
            branch.old_tip_noticed_at = None;
        } else if branch.old_tip_noticed_at.is_none_or(|at| now.since(at) >= OLD_TIP_NOTICE_INTERVAL_MS) {
            branch.old_tip_noticed_at = Some(now);
            self.notices.push(Notice::OldTip { age_ms });
        }
        if self.limits.quiet_tip_max_ms.is_some_and(|max_ms| (-max_ms..=max_ms).contains(&age_ms)) {
            branch.quiet_until = branch.quiet_at.or(branch.quiet_until);
            branch.quiet_at = Some(now);
        } else {
            (branch.quiet_at, branch.quiet_until) = (None, None);
        }
    }

    /// Acts on a tip that is the cursor or an older block of the followed branch. Stores the pending blocks and
    /// advances deposits when that is due. Otherwise asks second sources again about deposits when that is due, or
    /// requests the invoices whose payment window has ended.
    pub(super) fn store_recheck_or_expire_at_tip(&mut self, now: Instant, tip: Tip) -> Action {
        let branch = &self.branch;
        let cursor_moved = !branch.pending.is_empty();
        let stale = now.since(branch.stored_at) >= self.limits.cursor_flush_ms;
        let advance_limit = self.compute_advance_limit_if_marks_agree(&tip);
        let final_height = branch.follower.final_height();
        let may_finish = advance_limit.is_ok_and(|advance_to| advance_to.last > final_height);
        let check_again = branch.check_again_at.is_some_and(|at| at <= now);
        let after_store = AfterStore::AtTip { tip, worked: cursor_moved, final_height };
        if (cursor_moved && stale) || (branch.unfinished && may_finish) {
            return self.settle_dispute_and_store_blocks(now, &tip, after_store);
        }
        if check_again {
            let only_check = self.needs_second_source && !cursor_moved && self.dispute.is_open == Some(false);
            return match advance_limit {
                Ok(advance_to) if only_check => self.list_unchecked_deposits(advance_to, after_store),
                Ok(_) | Err(_) => self.settle_dispute_and_store_blocks(now, &tip, after_store),
            };
        }
        self.request_expirable_invoices(now, ExpiryCheck { tip, while_reading: false })
    }
}
