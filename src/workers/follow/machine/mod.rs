//! The decisions of a chain's follower, as a state machine without database, clock and I/O, so that tests can list its
//! rules in tables. The worker executes the action that the machine returns, and passes the result of the action back
//! to the machine as an observation.
//!
//! One run starts with [`Machine::start_run`] and ends with [`Action::Finish`]. After a failed run, the next run starts
//! from the state in memory. Only when blocks were read and not stored (see [`Machine::has_unstored_blocks`]), the
//! worker first loads the stored cursor.

pub mod actions;
pub mod notices;
mod tip;
mod branch;
mod cross_check;
mod second_source;
mod invoice_expiry;
mod reorg;

#[cfg(test)]
mod tests;

use chain::{BlockRef, Header, Height, SourceError, Tip};

use crate::workers::Ran;
use crate::workers::follow::machine::actions::{Action, Observation};
use crate::workers::follow::machine::branch::Branch;
use crate::workers::follow::machine::cross_check::{CrossCheckPurpose, EndpointDispute};
use crate::workers::follow::machine::invoice_expiry::ExpiryCheck;
use crate::workers::follow::machine::notices::Notice;
use crate::workers::follow::machine::second_source::SecondSourceCheck;
use clock::Instant;
use ids::InvoiceId;
use money::assets::FollowedChain;
use money::cursors::{Cursor, Position};
use money::deposits::DepositLimits;

/// The limits of one follower.
#[derive(Debug, Clone, Copy)]
pub struct FollowLimits {
    /// Maximum number of blocks of one request.
    pub batch: u64,
    /// Age, in milliseconds, above which the newest block of the node is logged as too old: the node may have lost its
    /// peers.
    pub tip_age_max_ms: i64,
    /// For chains with rare blocks: the maximum age, in milliseconds, of a tip that proves, when two reads in a row
    /// return it, that no newer block exists. `None` on chains with steady blocks, where an invoice expires only after
    /// a block that is younger than the end of its payment window.
    pub quiet_tip_max_ms: Option<i64>,
    /// The height of the first block to read. `None` selects the newest block that cannot be reorganised.
    pub start_height: Option<u64>,
    /// Maximum delay, in milliseconds, before the cursor is stored after blocks without transfers. After a crash, these
    /// blocks are simply read again.
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
    /// The source returned a block of another height than the requested one.
    #[error("block {requested} was requested and block {returned} was returned")]
    WrongHeight {
        /// The requested height.
        requested: Height,
        /// The returned height.
        returned: Height,
    },
    /// The source returned blocks of which one is not the parent of the next one.
    #[error("block {0} does not follow the block before it in the same response")]
    BrokenSequence(Height),
    /// The source returned more or fewer answers than the number of transfers about which it was asked.
    #[error("{asked} transfers of block {height} were asked for and {answered} answers were returned")]
    WrongNumberOfAnswers {
        /// The height of the block.
        height: Height,
        /// The number of transfers.
        asked: usize,
        /// The number of answers.
        answered: usize,
    },
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
    /// True when the source has a second endpoint for cross-checks.
    cross_checkable: bool,
    /// True when an endpoint of another provider must show deposits before they are confirmed.
    needs_second_source: bool,
    dispute: EndpointDispute,
    /// The conflicting head that was logged last.
    conflicting_head: Option<BlockRef>,
    /// The height of the block that was last logged because no second source could answer about it; `None` when no such
    /// block was logged.
    unanswered_height: Option<Height>,
    /// The time of the first balance check without a response from any endpoint; `None` while balances are available.
    balances_unavailable_since: Option<Instant>,
    phase: Phase,
    notices: Vec<Notice>,
}

/// The observation for which the machine waits, with the state that the step after it needs.
#[derive(Debug, Default)]
enum Phase {
    /// No run is in progress, so no observation is expected.
    #[default]
    Stopped,
    /// The node's tip.
    Tip,
    /// The blocks above the cursor, up to this tip.
    Blocks(Tip),
    /// The preferred endpoint's header at the height of a conflicting head.
    ConflictingHeader(Tip),
    /// The header at this height, which must be the parent of `lowest`, the lowest known block of another branch.
    ForkParent { lowest: Header, height: Height },
    /// The answer whether a confirmed deposit is above `to`, the common ancestor. `theirs` is the lowest known block of
    /// the other branch.
    ConfirmedAbove { to: BlockRef, theirs: BlockRef },
    /// The result of the cross-check of this block.
    CrossCheck { block: BlockRef, purpose: CrossCheckPurpose },
    /// The end of [`Action::OpenDispute`].
    DisputeOpened(CrossCheckPurpose),
    /// The end of [`Action::CloseDispute`].
    DisputeClosed(CrossCheckPurpose),
    /// The end of [`Action::StoreBlocks`]. After it, `last` is the stored cursor, and deposits are advanced up to
    /// `advance_to`.
    Stored { last: BlockRef, stored_at: Instant, advance_to: Option<Position>, after_store: AfterStore },
    /// The blocks with deposits that no second source has shown.
    Unchecked { advance_to: Position, after_store: AfterStore },
    /// The answers about the transfers of the first block of the check.
    Answers(SecondSourceCheck),
    /// The end of [`Action::StoreAnswers`].
    AnswersStored(AfterStore),
    /// The invoices whose payment window has ended.
    Expirable(ExpiryCheck),
    /// The result of the balance check of these invoices.
    Balances { invoices: Vec<InvoiceId>, check: ExpiryCheck },
    /// The end of [`Action::ExpireInvoices`].
    Expired(ExpiryCheck),
    /// The end of [`Action::Rewind`] to this block.
    Rewound(BlockRef),
    /// The end of [`Action::Halt`].
    Halted,
}

/// The machine's next step after blocks were stored.
#[derive(Debug)]
enum AfterStore {
    /// Continue after the read blocks extended the followed branch.
    Extended { tip: Tip },
    /// Continue when no newer block can be read. `final_height` is the final height before the blocks were stored;
    /// `worked` is true when blocks waited to be stored or a second source showed deposits.
    AtTip { tip: Tip, worked: bool, final_height: Height },
    /// Compare the balances of these expired invoices.
    InvoicesExpired { invoices: Vec<InvoiceId>, check: ExpiryCheck },
    /// Finish the run: a credit that no deposit explained was booked.
    CreditBooked,
}

impl Machine {
    /// Creates a machine that continues after a stored cursor; `None` when the cursor has no block.
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
            needs_second_source: false,
            dispute: EndpointDispute::default(),
            conflicting_head: None,
            unanswered_height: None,
            balances_unavailable_since: None,
            phase: Phase::Stopped,
            notices: Vec::new(),
        })
    }

    /// Replaces the branch by one that ends at the stored cursor, which drops all pending blocks. Returns false, and
    /// changes nothing, when the cursor has no block.
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

    /// Removes and returns the notices since the last call, for the log.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Starts a run and returns its first action. `cross_checkable` is true when the source has a second endpoint for
    /// cross-checks. `needs_second_source` is true when an endpoint of another provider must show deposits before they
    /// are confirmed.
    pub fn start_run(&mut self, cross_checkable: bool, needs_second_source: bool) -> Action {
        self.cross_checkable = cross_checkable;
        self.needs_second_source = needs_second_source;
        self.phase = Phase::Tip;
        Action::ReadTip
    }

    /// Updates the state by the result of the last action and returns the next action.
    ///
    /// Fails when the responses of an endpoint contradict each other or do not fit the request, and when balances are
    /// not available. The run ends then.
    pub fn decide_next_action(&mut self, now: Instant, observation: Observation) -> Result<Action, StepError> {
        match (std::mem::take(&mut self.phase), observation) {
            (Phase::Tip, Observation::Tip(tip)) => Ok(self.choose_next_step_by_tip(now, tip)),
            (Phase::Blocks(tip), Observation::Blocks(blocks)) => self.add_blocks_or_search_ancestor(now, tip, blocks),
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
            (Phase::CrossCheck { block, purpose }, Observation::CrossChecked(result)) => {
                Ok(self.act_on_cross_check_result(now, block, result, purpose))
            }
            (Phase::DisputeOpened(purpose), Observation::Done) => {
                self.dispute.is_open = Some(true);
                Ok(self.store_rewind_or_halt_after_cross_check(now, purpose, false))
            }
            (Phase::DisputeClosed(purpose), Observation::Done) => {
                self.dispute.is_open = Some(false);
                self.dispute.behind_logged = false;
                Ok(self.store_rewind_or_halt_after_cross_check(now, purpose, true))
            }
            (
                Phase::Stored { last, stored_at, advance_to, after_store },
                Observation::Stored { final_height, unfinished },
            ) => {
                self.branch.stored = last;
                self.branch.stored_at = stored_at;
                self.branch.unfinished = unfinished;
                self.branch.follower.raise_final_height(final_height);
                Ok(self.request_unchecked_or_continue(now, advance_to, after_store))
            }
            (Phase::Unchecked { advance_to, after_store }, Observation::Unchecked(blocks)) => {
                Ok(self.ask_about_first_block_or_continue(now, advance_to, blocks, after_store))
            }
            (Phase::Answers(check), Observation::Answers(answers)) => {
                self.ask_next_block_or_store_answers(now, check, answers)
            }
            (Phase::AnswersStored(after_store), Observation::Stored { final_height, unfinished }) => {
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
