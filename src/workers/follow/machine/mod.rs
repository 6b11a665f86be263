//! The decisions of a chain's follower, as a state machine without database, clock and I/O, so that tests can list its
//! rules in tables. The worker executes the action that the machine returns, and passes the result to the machine as an
//! observation.
//!
//! One run starts with [`Machine::start_run`] and ends with [`Action::Finish`]. After a failed run, the next run starts
//! from the state in memory. Only when blocks were read and not stored (see [`Machine::has_unstored_blocks`]), the
//! worker first loads the stored cursor.

pub mod actions;
pub mod notices;
mod tip;
mod branch;
mod cross_check;
mod invoice_expiry;
mod reorg;

#[cfg(test)]
mod tests;

use chain::{BlockRef, Header, Height, SourceError, Tip};

use crate::workers::Ran;
use crate::workers::follow::machine::actions::{Action, Observation};
use crate::workers::follow::machine::branch::Branch;
use crate::workers::follow::machine::cross_check::{Corroboration, CrossCheckPurpose, EndpointDispute};
use crate::workers::follow::machine::invoice_expiry::ExpiryCheck;
use crate::workers::follow::machine::notices::Notice;
use clock::Instant;
use ids::InvoiceId;
use money::assets::FollowedChain;
use money::cursors::{Cursor, Position};
use money::deposits::DepositLimits;

/// The time limits and sizes that control one follower.
#[derive(Debug, Clone, Copy)]
pub struct FollowLimits {
    /// The maximum number of blocks that one request reads.
    pub batch: u64,
    /// The age, in milliseconds, above which the log warns that the newest block is too old: the node may have lost its
    /// peers.
    pub tip_age_max_ms: i64,
    /// On chains with rare blocks: the maximum age, in milliseconds, of a newest block that shows the present state of
    /// the chain, once two reads in a row have returned it. `None` on chains with steady blocks, where an invoice
    /// expires only after a block that is younger than the end of its payment window.
    pub quiet_tip_max_ms: Option<i64>,
    /// The height of the first block to read. `None` selects the newest block that cannot be reorganised.
    pub start_height: Option<u64>,
    /// The maximum time, in milliseconds, for which the cursor is not stored when the new blocks contain no transfers.
    /// After a crash, these blocks are read again.
    pub cursor_flush_ms: i64,
    /// Maximum time, in milliseconds, for which an expired invoice stays open because no endpoint returns balances.
    pub balance_patience_ms: i64,
}

/// The reason why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// An endpoint failed, or its responses contradict each other.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Invoices stay open because the balances of their addresses are not available.
    #[error("an invoice stays open until the balance of its address is known")]
    BalancesUnavailable(#[source] SourceError),
    /// The source returned a block of a different height than the requested one.
    #[error("block {requested} was requested and block {returned} was returned")]
    WrongHeight {
        /// The height of the requested block.
        requested: Height,
        /// The height of the returned block.
        returned: Height,
    },
    /// The source returned blocks that do not follow each other: a block is not the parent of the block after it. The
    /// field is the height.
    #[error("block {0} does not follow the block before it in the same response")]
    BrokenSequence(Height),
    /// The worker reported the result of an action that the machine had not requested.
    #[error("the follower was given an observation that it had not requested: {0}")]
    UnexpectedObservation(String),
}

/// The follower of one chain, as a state machine.
#[derive(Debug)]
pub struct Machine {
    chain: FollowedChain,
    limits: FollowLimits,
    deposit_limits: DepositLimits,
    branch: Branch,
    /// True when the source has a second endpoint that can be asked whether it has the same blocks.
    cross_checkable: bool,
    dispute: EndpointDispute,
    /// The last block about which the log contains the message that an endpoint's newest block is on another branch.
    conflicting_head: Option<BlockRef>,
    /// The time of the first balance check that no endpoint answered; `None` while balances are available.
    balances_unavailable_since: Option<Instant>,
    phase: Phase,
    notices: Vec<Notice>,
}

/// The observation that the machine expects next, with the data for the step after it.
#[derive(Debug, Default)]
enum Phase {
    /// No run is in progress, so no observation is expected.
    #[default]
    Stopped,
    /// The machine expects the node's tip.
    Tip,
    /// The machine expects the blocks above the cursor, up to this tip.
    Blocks(Tip),
    /// The machine expects the header that the preferred endpoint has at the height of this tip. The tip is not on the
    /// followed branch.
    ConflictingHeader(Tip),
    /// The machine expects the header at `height`: the parent of `lowest`, which is the lowest known block of another
    /// branch.
    ForkParent { lowest: Header, height: Height },
    /// The machine expects the answer whether a confirmed deposit is above `to`, the common ancestor of both branches.
    /// `theirs` is the lowest known block of the other branch.
    ConfirmedAbove { to: BlockRef, theirs: BlockRef },
    /// The machine expects the height of the newest stored deposit that would become confirmed or final at the position
    /// `advance_limit`.
    NewestDue { advance_limit: Position, after_store: AfterStore },
    /// The machine expects the result of the cross-check of this block.
    CrossCheck { block: BlockRef, purpose: CrossCheckPurpose },
    /// The machine expects that [`Action::OpenDispute`] is done.
    DisputeOpened(CrossCheckPurpose),
    /// The machine expects that [`Action::CloseDispute`] is done.
    DisputeClosed(CrossCheckPurpose),
    /// The machine expects that [`Action::StoreBlocks`] is done. Then `last` becomes the stored cursor.
    /// `pending_cross_check` is true when deposits wait for a second endpoint.
    Stored { last: BlockRef, stored_at: Instant, pending_cross_check: bool, after_store: AfterStore },
    /// The machine expects the list of invoices that have expired.
    Expirable(ExpiryCheck),
    /// The machine expects the result of the balance check of these invoices.
    Balances { invoices: Vec<InvoiceId>, check: ExpiryCheck },
    /// The machine expects that [`Action::ExpireInvoices`] is done.
    Expired(ExpiryCheck),
    /// The machine expects that [`Action::Rewind`] to this block is done.
    Rewound(BlockRef),
    /// The machine expects that [`Action::Halt`] is done.
    Halted,
}

/// The machine's next step after blocks were stored.
#[derive(Debug)]
enum AfterStore {
    /// Read the next blocks. The stored blocks extended the followed branch, but do not reach the tip yet.
    Extended { tip: Tip },
    /// Continue at the tip. `final_height` is the final height before the blocks were stored; `cursor_moved` is true
    /// when blocks were pending.
    AtTip { tip: Tip, cursor_moved: bool, final_height: Height },
    /// Compare the balances of these invoices, whose payment window has ended.
    InvoicesExpired { invoices: Vec<InvoiceId>, check: ExpiryCheck },
    /// Finish the run, because a credit that no deposit explains was booked in it.
    CreditBooked,
}

impl Machine {
    /// Creates a machine that continues after a stored cursor; `None` when the cursor contains no block.
    pub fn new(
        chain: FollowedChain,
        limits: FollowLimits,
        deposit_limits: DepositLimits,
        cursor: Cursor,
        now: Instant,
    ) -> Option<Machine> {
        let branch = Branch::from_cursor(&limits, &deposit_limits, cursor, now)?;
        Some(Machine {
            chain,
            limits,
            deposit_limits,
            branch,
            cross_checkable: false,
            dispute: EndpointDispute::default(),
            conflicting_head: None,
            balances_unavailable_since: None,
            phase: Phase::Stopped,
            notices: Vec::new(),
        })
    }

    /// Replaces the followed branch with one that ends at the stored cursor. Blocks that were read but not stored are
    /// dropped. Returns false, and changes nothing, when the cursor contains no block.
    pub fn restart_from_cursor(&mut self, cursor: Cursor, now: Instant) -> bool {
        let Some(branch) = Branch::from_cursor(&self.limits, &self.deposit_limits, cursor, now) else { return false };
        self.branch = branch;
        true
    }

    /// Returns true when the chain is halted until an operator decides.
    pub fn is_halted(&self) -> bool {
        self.branch.halted
    }

    /// Returns true when blocks were read and are not stored yet. After a failure these blocks must be read again.
    pub fn has_unstored_blocks(&self) -> bool {
        !self.branch.pending.is_empty()
    }

    /// Returns the notices for the log that were added since the last call, and removes them.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Starts a run and returns its first action. `cross_checkable` is true when the source has a second endpoint that
    /// can be asked whether it has the same blocks.
    pub fn start_run(&mut self, cross_checkable: bool) -> Action {
        self.cross_checkable = cross_checkable;
        self.phase = Phase::Tip;
        Action::ReadTip
    }

    /// Updates the state by the result of the last action and returns the next action.
    ///
    /// # Errors
    /// The run ends early: the responses of an endpoint contradict each other, or balances are not available.
    pub fn decide_next_action(&mut self, now: Instant, observation: Observation) -> Result<Action, StepError> {
        match (std::mem::take(&mut self.phase), observation) {
            (Phase::Tip, Observation::Tip(tip)) => Ok(self.request_blocks_or_act_on_tip(now, tip)),
            (Phase::Blocks(tip), Observation::Blocks(blocks)) => self.add_blocks_to_branch(now, tip, blocks),
            (Phase::ConflictingHeader(tip), Observation::Header(header)) => {
                self.switch_branch_or_log_conflict(now, tip, header)
            }
            (Phase::ForkParent { lowest, height }, Observation::Header(header)) => {
                self.continue_ancestor_search(lowest, height, header)
            }
            (Phase::ConfirmedAbove { to, .. }, Observation::ConfirmedAbove(false)) => Ok(self.rewind_branch(to)),
            (Phase::ConfirmedAbove { to, theirs }, Observation::ConfirmedAbove(true)) => {
                Ok(self.request_cross_check(theirs, CrossCheckPurpose::Rewind { to: Some(to) }))
            }
            (Phase::NewestDue { advance_limit, after_store }, Observation::NewestDue(stored)) => {
                Ok(self.cross_check_newest_paid_block(now, advance_limit, stored, after_store))
            }
            (Phase::CrossCheck { block, purpose }, Observation::CrossChecked(result)) => {
                Ok(self.act_on_cross_check_result(now, block, result, purpose))
            }
            (Phase::DisputeOpened(purpose), Observation::Done) => {
                self.dispute.is_open = Some(true);
                Ok(self.continue_after_cross_check(now, purpose, Corroboration::None))
            }
            (Phase::DisputeClosed(purpose), Observation::Done) => {
                self.dispute.is_open = Some(false);
                self.dispute.behind_logged = false;
                Ok(self.continue_after_cross_check(now, purpose, Corroboration::Full))
            }
            (
                Phase::Stored { last, stored_at, pending_cross_check, after_store },
                Observation::Stored { final_height, unfinished },
            ) => {
                self.branch.stored = last;
                self.branch.stored_at = stored_at;
                self.branch.cross_check_pending_at = pending_cross_check.then_some(stored_at);
                self.branch.unfinished = unfinished;
                self.branch.follower.raise_final_height(final_height);
                Ok(self.continue_after_store(now, after_store))
            }
            (Phase::Expirable(check), Observation::Expirable(invoices)) => {
                Ok(self.store_blocks_before_balance_check(now, invoices, check))
            }
            (Phase::Balances { invoices, check }, Observation::Balances(result)) => {
                self.expire_or_delay_invoices(now, invoices, result, check)
            }
            (Phase::Expired(check), Observation::Done) => Ok(check.finish_run(Ran::Worked)),
            (Phase::Rewound(to), Observation::Done) => {
                self.branch.stored = to;
                self.branch.unfinished = true;
                self.branch.follower.rewind_to(to);
                Ok(Action::Finish(Ran::Worked))
            }
            (Phase::Halted, Observation::Done) => {
                self.branch.halted = true;
                Ok(Action::Finish(Ran::Worked))
            }
            (phase, observation) => Err(StepError::UnexpectedObservation(format!("{observation:?} in {phase:?}"))),
        }
    }
}
