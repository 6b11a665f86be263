//! The followed branch: adds new blocks to it, decides when they are stored, and computes the position up to which
//! deposits may advance.

use chain::follower::{Follower, NextBlock};
use chain::{Block, BlockRef, Tip};

use crate::workers::Ran;
use crate::workers::follow::machine::actions::Action;
use crate::workers::follow::machine::cross_check::CrossCheckPurpose;
use crate::workers::follow::machine::invoice_expiry::{EXPIRY_INTERVAL_MS, ExpiryCheck};
use crate::workers::follow::machine::{AfterStore, FollowLimits, Machine, Phase, StepError};
use clock::Instant;
use ids::InvoiceId;
use money::cursors::{self, Cursor, Position};
use money::deposits::DepositLimits;

/// The state of the followed branch. Blocks up to the stored cursor are also in the database; later blocks are only in
/// memory.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) follower: Follower,
    /// The stored cursor.
    pub(super) stored: BlockRef,
    /// The time at which the cursor was stored last.
    pub(super) stored_at: Instant,
    /// The blocks that were read after the stored cursor.
    pub(super) pending: Vec<Block>,
    /// Timestamp of the newest block that was read, in Unix seconds. A later time than that of the read is replaced by
    /// it: a miner may set a timestamp in the future, which does not prove that all earlier payments have been read.
    pub(super) time: i64,
    /// The time of the last read that found a recent tip and no block above the cursor. `None` before the first such read,
    /// and on chains whose blocks are frequent, which have no [`FollowLimits::quiet_tip_max_ms`].
    pub(super) quiet_at: Option<Instant>,
    /// The time of the read before `quiet_at` that returned the same tip. All blocks from before this time have been
    /// read. `None` when only one read has returned the tip.
    pub(super) quiet_until: Option<Instant>,
    /// The time of the last notice that the tip is old; `None` while the tip is young.
    pub(super) old_tip_noticed_at: Option<Instant>,
    /// The time of the last search for expired invoices.
    pub(super) expiry_checked_at: Instant,
    /// True when the chain has deposits that are not final.
    pub(super) unfinished: bool,
    /// The time from which unchecked deposits are listed again even if no block was read; `None` when no deposit that
    /// is deep enough to advance waits for a second source. After a start this time has come, because waiting deposits
    /// are not known.
    pub(super) check_again_at: Option<Instant>,
    /// The block at which balances are requested until an endpoint returns them, and the invoices that are checked with
    /// it. Later checks of these invoices keep this block, because an endpoint that is slightly behind would never have
    /// the newest one. `None` when no such check is waiting.
    pub(super) balance_block: Option<(BlockRef, Vec<InvoiceId>)>,
    /// True when the chain is halted until an operator decides.
    pub(super) halted: bool,
}

impl Branch {
    /// Creates the branch that ends at a stored cursor; `None` when the cursor has no block.
    pub(super) fn from_cursor(
        limits: &FollowLimits,
        deposit_limits: &DepositLimits,
        cursor: Cursor,
        now: Instant,
    ) -> Option<Branch> {
        let stored = cursor.recent.last().copied()?;
        let keep = usize::try_from(deposit_limits.keep).unwrap_or(usize::MAX);
        Some(Branch {
            follower: Follower::from_recent_blocks(cursor.recent, cursor.final_height, keep, limits.batch),
            stored,
            stored_at: now,
            pending: Vec::new(),
            time: cursor.time.min(now.unix_seconds()),
            quiet_at: None,
            quiet_until: None,
            old_tip_noticed_at: None,
            expiry_checked_at: Instant(0),
            unfinished: true,
            check_again_at: Some(now),
            balance_block: None,
            halted: cursor.halted.is_some(),
        })
    }
}

impl Machine {
    /// Adds the blocks that were read to the branch, and stores them. Blocks without transfers to watched addresses may
    /// wait a short time while all deposits are final. When the first block is on another branch, starts the search for
    /// the common ancestor instead.
    pub(super) fn add_blocks_or_search_ancestor(
        &mut self,
        now: Instant,
        tip: Tip,
        blocks: Vec<Block>,
    ) -> Result<Action, StepError> {
        let Some(first) = blocks.first() else { return Ok(Action::Finish(Ran::Idle)) };
        match self.branch.follower.classify_next_block(&first.header) {
            NextBlock::Extends => {}
            NextBlock::Forks => return self.search_ancestor_or_rewind_or_halt(first.header),
            NextBlock::WrongHeight => {
                let requested = self.branch.follower.cursor().height + 1;
                return Err(StepError::WrongHeight { requested, returned: first.header.height });
            }
        }
        for block in blocks {
            if self.branch.follower.classify_next_block(&block.header) != NextBlock::Extends {
                return Err(StepError::BrokenSequence(block.header.height));
            }
            self.branch.follower.push_block_dropping_oldest(block.header.block_ref());
            self.branch.time = block.header.time.min(now.unix_seconds());
            self.branch.pending.push(block);
        }
        let quiet = !self.branch.unfinished && !self.branch.pending.iter().any(Block::has_watched_activity);
        let young = now.since(self.branch.stored_at) < self.limits.cursor_flush_ms;
        let few = u64::try_from(self.branch.pending.len()).is_ok_and(|count| count < self.deposit_limits.keep);
        let after_store = AfterStore::Extended { tip };
        Ok(if quiet && young && few {
            self.continue_after_store(now, after_store)
        } else {
            self.settle_dispute_and_store_blocks(now, &tip, after_store)
        })
    }

    /// Returns the position up to which deposits may advance. The final block that the node reports counts when it is
    /// on the followed branch. A final block above the cursor or below the kept blocks cannot be compared with the
    /// branch, so only the depth counts.
    ///
    /// # Errors
    /// Returns the node's final block when it is on another branch.
    pub(super) fn compute_advance_limit_if_marks_agree(&self, tip: &Tip) -> Result<Position, BlockRef> {
        let follower = &self.branch.follower;
        let known = tip.finalized.and_then(|mark| follower.is_on_our_branch(mark).map(|on_branch| (mark, on_branch)));
        match known {
            Some((mark, false)) => Err(mark),
            Some((mark, true)) => {
                Ok(cursors::compute_position(&self.chain, follower.cursor().height, Some(mark.height)))
            }
            None => Ok(cursors::compute_position(&self.chain, follower.cursor().height, None)),
        }
    }

    /// Starts to store the pending blocks and to advance deposits. Before that, opens the review of contradicting
    /// endpoints when an endpoint reports a final block of another branch, and otherwise closes the review.
    pub(super) fn settle_dispute_and_store_blocks(
        &mut self,
        now: Instant,
        tip: &Tip,
        after_store: AfterStore,
    ) -> Action {
        let advance_limit = match self.compute_advance_limit_if_marks_agree(tip) {
            Ok(advance_limit) => advance_limit,
            Err(mark) => {
                let reason = format!(
                    "an endpoint calls block {} at height {} final, but another block of that height is followed: no deposit is \
                     confirmed until the endpoints agree; compare the endpoints with independent ones",
                    mark.hash, mark.height
                );
                return self.open_dispute_or_continue(
                    now,
                    reason,
                    CrossCheckPurpose::Store { advance_limit: None, after_store },
                );
            }
        };
        self.close_dispute_or_continue(
            now,
            CrossCheckPurpose::Store { advance_limit: Some(advance_limit), after_store },
        )
    }

    /// Moves the pending blocks into the action that stores them and advances deposits up to `advance_to`. With `None`,
    /// no deposit advances.
    pub(super) fn request_block_storage(
        &mut self,
        now: Instant,
        advance_to: Option<Position>,
        after_store: AfterStore,
    ) -> Action {
        let from = self.branch.stored;
        let blocks = std::mem::take(&mut self.branch.pending);
        let last = blocks.last().map_or(from, |block| block.header.block_ref());
        self.phase = Phase::Stored { last, stored_at: now, advance_to, after_store };
        Action::StoreBlocks { from, blocks, advance_to }
    }

    /// Returns the next action after blocks were stored, or while they may wait: requests the expired invoices when a
    /// search for them is due, or the balance check that waited for the blocks; otherwise finishes the run.
    pub(super) fn continue_after_store(&mut self, now: Instant, after_store: AfterStore) -> Action {
        match after_store {
            AfterStore::Extended { tip } => {
                // On a chain with very fast blocks, the cursor may never reach the tip, so invoices must also expire
                // near the tip. Far behind the tip, invoices stay open, because nodes may have deleted the balances at
                // old blocks.
                let behind = tip.head.height.saturating_sub(self.branch.follower.cursor().height);
                if behind < self.limits.batch && now.since(self.branch.expiry_checked_at) >= EXPIRY_INTERVAL_MS {
                    return self.request_expirable_invoices(now, ExpiryCheck { tip, while_reading: true });
                }
                Action::Finish(Ran::Worked)
            }
            AfterStore::AtTip { worked, final_height, .. }
                if worked || self.branch.follower.final_height() > final_height =>
            {
                Action::Finish(Ran::Worked)
            }
            AfterStore::AtTip { tip, .. } => {
                self.request_expirable_invoices(now, ExpiryCheck { tip, while_reading: false })
            }
            AfterStore::InvoicesExpired { invoices, check } => self.request_balance_check_or_expiry(invoices, check),
            AfterStore::CreditBooked => Action::Finish(Ran::Worked),
        }
    }
}
