//! The decisions of a chain's follower, as a state machine without database, clock and I/O, so that tests can list its
//! rules in tables. The worker executes the action that the machine returns, and passes the result to the machine as an
//! observation.
//!
//! One run starts with [`Machine::start_run`] and ends with [`Action::Finish`]. After a failed run, the next run starts
//! from the state in memory. Only when blocks were read and not stored (see [`Machine::has_unstored_blocks`]), the
//! worker first loads the stored cursor.

use chain::follower::{Follower, ForkSearch, NextBlock, NextStep};
use chain::source::CrossCheckResult;
use chain::{Block, BlockRef, Family, Header, Height, SourceError, Tip};

use crate::workers::Ran;
use crate::workers::follow::cross_check::{Corroboration, EndpointDispute};
use clock::Instant;
use ids::InvoiceId;
use money::assets::FollowedChain;
use money::cursors::{self, Cursor, Position};
use money::deposits::DepositLimits;

/// Minimum time, in milliseconds, between two searches for expired invoices while the follower catches up with the tip.
const EXPIRY_INTERVAL_MS: i64 = 5_000;
/// Minimum time, in milliseconds, between two cross-checks at the tip while deposits wait for a second endpoint.
const CROSS_CHECK_INTERVAL_MS: i64 = 1_000;
/// Depth, in blocks, from which a block is too old for a balance check, because nodes delete old states.
const BALANCE_BLOCK_DEPTH_MAX: u64 = 64;

/// The limits of one follower.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of blocks of one request.
    pub batch: u64,
    /// Age, in milliseconds, above which a tip is logged as too old: the node may have lost its peers.
    pub tip_age_max_ms: i64,
    /// Maximum age, in milliseconds, of a tip that counts as the present state of a chain with rare blocks, once two
    /// reads in a row have returned this tip. `None` on chains with steady blocks, where an invoice expires only after
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

/// The next step of the worker. Every action except [`Action::Finish`] is followed by one call of [`Machine::handle_observation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read the node's tip.
    ReadTip,
    /// Read the blocks `from..=to`. The source may return only the first blocks of this range.
    ReadBlocks {
        /// The first height.
        from: Height,
        /// The last height.
        to: Height,
    },
    /// Read the node's header at this height.
    ReadHeader(Height),
    /// Find the height of the newest stored deposit that would become confirmed or final at this position.
    FindNewestDue(Position),
    /// Check whether a confirmed deposit exists above this height.
    FindConfirmedAbove(Height),
    /// Request this block from a second endpoint.
    CrossCheck(BlockRef),
    /// Open the review of endpoints that contradict each other, with this reason.
    OpenDispute(String),
    /// Close the review of endpoints that contradict each other.
    CloseDispute,
    /// Store these blocks after the stored cursor `from`, and advance deposits as far as `advance_to`.
    StoreBlocks {
        /// The stored cursor.
        from: BlockRef,
        /// The blocks that follow it; may be empty.
        blocks: Vec<Block>,
        /// The position up to which deposits are confirmed and final; `None` when none may advance.
        advance_to: Option<Position>,
    },
    /// List the invoices whose payment window has ended by the clock and by the chain.
    ListExpirable {
        /// The time up to which all payments have been read, minus the grace period.
        passed: Instant,
    },
    /// Compare the balances of the invoices' addresses with their deposits.
    CheckBalances {
        /// The block at which balances are read.
        at: BlockRef,
        /// The invoices that are about to expire.
        invoices: Vec<InvoiceId>,
    },
    /// Expire these invoices.
    ExpireInvoices {
        /// The invoices to expire.
        invoices: Vec<InvoiceId>,
        /// The text of a review for each of them, when their balances could not be checked.
        unchecked: Option<String>,
    },
    /// Reverse all stored blocks above `to`.
    Rewind {
        /// The stored cursor.
        from: BlockRef,
        /// The block that becomes the cursor.
        to: BlockRef,
    },
    /// Stop following the chain until an operator decides. The text is the reason.
    Halt(String),
    /// End the run, with this result.
    Finish(Ran),
}

/// The result of an [`Action`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The node's tip: the result of [`Action::ReadTip`].
    Tip(Tip),
    /// The blocks: the result of [`Action::ReadBlocks`].
    Blocks(Vec<Block>),
    /// The header: the result of [`Action::ReadHeader`]; `None` above the node's head.
    Header(Option<Header>),
    /// The height: the result of [`Action::FindNewestDue`]; `None` when no stored deposit would advance.
    NewestDue(Option<Height>),
    /// The result of [`Action::FindConfirmedAbove`]: true when a confirmed deposit is above the height.
    ConfirmedAbove(bool),
    /// The result of [`Action::CrossCheck`].
    CrossChecked(CrossCheckResult),
    /// The result of [`Action::StoreBlocks`].
    Stored {
        /// The height of the highest final block.
        final_height: Height,
        /// True when the chain has deposits that are not final yet.
        unfinished: bool,
    },
    /// The invoices that have expired: the result of [`Action::ListExpirable`].
    Expirable(Vec<InvoiceId>),
    /// The result of [`Action::CheckBalances`]: true when deposits explain all balances, false when a credit was
    /// booked.
    Balances(Result<bool, SourceError>),
    /// The result of every action without a result of its own.
    Done,
}

/// A fact that the worker logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The node's newest block is old.
    OldTip {
        /// The age of the newest block, in milliseconds.
        age_ms: i64,
    },
    /// An endpoint has this block as its head. The block is not on the followed branch, but the preferred endpoint is
    /// on the followed branch.
    ConflictingHead(BlockRef),
    /// A second endpoint does not have the block `height` yet.
    EndpointBehind {
        /// The second endpoint.
        endpoint: String,
        /// The height of the second endpoint's newest block.
        head: Height,
        /// The height of the requested block.
        height: Height,
        /// True when the endpoint's head has been the same block for a long time, so that the follower does not wait
        /// for the endpoint.
        stalled: bool,
    },
    /// No second endpoint responded, so the block was accepted from a single endpoint.
    NotCrossChecked {
        /// The height of the block.
        height: Height,
        /// The reason why no second endpoint responded.
        reason: String,
    },
    /// The chain was reorganised.
    Reorganised {
        /// The number of blocks that are reversed.
        depth: u64,
        /// The height of the common ancestor of both branches.
        to: Height,
    },
    /// Expired invoices stay open, because balances are not available. The follower continues to read blocks.
    ExpiryDelayed(String),
    /// Invoices expire although their balances could not be read.
    ExpiredUnchecked {
        /// The time since which no balances are available, in minutes.
        minutes: i64,
        /// The reason why balances are not available.
        reason: String,
    },
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
    /// The worker reported the result of an action that the machine had not requested.
    #[error("the follower was given an observation that it had not requested: {0}")]
    UnexpectedObservation(String),
}

/// The follower of one chain, as a state machine.
#[derive(Debug)]
pub struct Machine {
    chain: FollowedChain,
    limits: Limits,
    deposit_limits: DepositLimits,
    branch: Branch,
    /// True when the source has a second endpoint for cross-checks.
    cross_checkable: bool,
    dispute: EndpointDispute,
    /// The conflicting head that was logged last.
    conflicting_head: Option<BlockRef>,
    /// The time of the first balance check without a response from any endpoint; `None` while balances are available.
    balances_unavailable_since: Option<Instant>,
    phase: Phase,
    notices: Vec<Notice>,
}

/// The blocks of the followed branch that were read. Blocks up to the stored cursor are also in the database; later
/// blocks are only in memory.
#[derive(Debug)]
struct Branch {
    follower: Follower,
    /// The stored cursor.
    stored: BlockRef,
    stored_at: Instant,
    /// The blocks that were read after the stored cursor.
    pending: Vec<Block>,
    /// Timestamp of the cursor's block in Unix seconds, at most the time at which the block was read: a miner may set a
    /// timestamp in the future, which does not prove that all earlier payments have been read.
    time: i64,
    /// On chains with rare blocks, the time of the last read that returned a young tip at the cursor; otherwise `None`.
    quiet_at: Option<Instant>,
    /// The time of the read before `quiet_at` that returned the same tip. All blocks from before this time have been
    /// read.
    quiet_until: Option<Instant>,
    /// The time of the last search for expired invoices.
    expiry_checked_at: Instant,
    /// True when the chain has deposits that are not final.
    unfinished: bool,
    /// The time of the last cross-check for deposits that are deep enough to advance; `None` when no deposit waits for
    /// a second endpoint.
    cross_check_pending_at: Option<Instant>,
    /// The block at which balances are requested until an endpoint returns them. Later checks keep this block instead
    /// of the newest one, which an endpoint that is slightly behind would never have.
    balance_block: Option<BlockRef>,
    halted: bool,
}

/// The observation for which the machine waits.
#[derive(Debug, Default)]
enum Phase {
    /// No run is in progress, so no observation is expected.
    #[default]
    Stopped,
    Tip,
    Blocks(Tip),
    /// The preferred endpoint's header at the height of a conflicting head.
    ConflictingHeader(Tip),
    /// The parent of the lowest known block of another branch.
    ForkParent {
        lowest: Header,
        height: Height,
    },
    ConfirmedAbove {
        to: BlockRef,
        theirs: BlockRef,
    },
    NewestDue {
        advance_limit: Position,
        after_store: AfterStore,
    },
    CrossCheck {
        block: BlockRef,
        purpose: Purpose,
    },
    DisputeOpened(Purpose),
    DisputeClosed(Purpose),
    Stored {
        last: BlockRef,
        stored_at: Instant,
        pending_cross_check: bool,
        after_store: AfterStore,
    },
    Expirable(ExpiryCheck),
    Balances {
        invoices: Vec<InvoiceId>,
        check: ExpiryCheck,
    },
    Expired(ExpiryCheck),
    Rewound(BlockRef),
    Halted,
}

/// The purpose of a cross-check, which decides the step after it.
#[derive(Debug)]
enum Purpose {
    /// To store blocks and advance deposits up to `advance_limit`; `None` when no deposit may advance, whatever the
    /// result.
    Store { advance_limit: Option<Position>, after_store: AfterStore },
    /// To reverse the followed branch down to the common ancestor `to`; `None` when there is no common ancestor, so
    /// that the chain is halted instead.
    Rewind { to: Option<BlockRef> },
}

/// The step after blocks were stored.
#[derive(Debug)]
enum AfterStore {
    /// Continue after the read blocks extended the followed branch.
    Extended { tip: Tip },
    /// Continue at the tip. `final_height` is the final height before the blocks were stored; `cursor_moved` is true
    /// when blocks were pending.
    AtTip { tip: Tip, cursor_moved: bool, final_height: Height },
    /// Compare the balances of these expired invoices.
    InvoicesExpired { invoices: Vec<InvoiceId>, check: ExpiryCheck },
    /// Finish the run, in which an unexplained credit was booked.
    CreditBooked,
}

/// One search for expired invoices.
#[derive(Debug, Clone, Copy)]
struct ExpiryCheck {
    tip: Tip,
    /// True when blocks were read in the same run. In this case, a failed balance check leaves the invoices open but
    /// does not end the run with an error.
    while_reading: bool,
}

impl ExpiryCheck {
    fn finish_run(self, ran: Ran) -> Action {
        Action::Finish(if self.while_reading { Ran::Worked } else { ran })
    }
}

impl Machine {
    /// Creates a machine that continues after a stored cursor; `None` when the cursor has no block.
    pub fn new(
        chain: FollowedChain,
        limits: Limits,
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

    /// Replaces the branch by the one of a stored cursor, which drops all pending blocks. Returns false, and changes
    /// nothing, when the cursor has no block.
    pub fn reload_cursor(&mut self, cursor: Cursor, now: Instant) -> bool {
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
    /// cross-checks.
    pub fn start_run(&mut self, cross_checkable: bool) -> Action {
        self.cross_checkable = cross_checkable;
        self.phase = Phase::Tip;
        Action::ReadTip
    }

    /// Handles the result of the last action and returns the next action.
    ///
    /// # Errors
    /// The run ends early: the responses of an endpoint contradict each other, or balances are not available.
    pub fn handle_observation(&mut self, now: Instant, observation: Observation) -> Result<Action, StepError> {
        match (std::mem::take(&mut self.phase), observation) {
            (Phase::Tip, Observation::Tip(tip)) => Ok(self.handle_tip(now, tip)),
            (Phase::Blocks(tip), Observation::Blocks(blocks)) => self.handle_blocks(now, tip, blocks),
            (Phase::ConflictingHeader(tip), Observation::Header(header)) => {
                self.handle_conflicting_head(now, tip, header)
            }
            (Phase::ForkParent { lowest, height }, Observation::Header(header)) => {
                self.handle_fork_parent(lowest, height, header)
            }
            (Phase::ConfirmedAbove { to, .. }, Observation::ConfirmedAbove(false)) => Ok(self.rewind_to(to)),
            (Phase::ConfirmedAbove { to, theirs }, Observation::ConfirmedAbove(true)) => {
                Ok(self.request_cross_check(theirs, Purpose::Rewind { to: Some(to) }))
            }
            (Phase::NewestDue { advance_limit, after_store }, Observation::NewestDue(stored)) => {
                Ok(self.cross_check_newest_paid_block(now, advance_limit, stored, after_store))
            }
            (Phase::CrossCheck { block, purpose }, Observation::CrossChecked(result)) => {
                Ok(self.handle_cross_check_result(now, block, result, purpose))
            }
            (Phase::DisputeOpened(purpose), Observation::Done) => {
                self.dispute.is_open = Some(true);
                Ok(self.act_on_cross_check(now, purpose, Corroboration::None))
            }
            (Phase::DisputeClosed(purpose), Observation::Done) => {
                self.dispute.is_open = Some(false);
                self.dispute.behind_logged = false;
                Ok(self.act_on_cross_check(now, purpose, Corroboration::Full))
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
                Ok(self.handle_expirable_invoices(now, invoices, check))
            }
            (Phase::Balances { invoices, check }, Observation::Balances(result)) => {
                self.handle_balance_check(now, invoices, result, check)
            }
            (Phase::Expired(check), Observation::Done) => Ok(check.finish_run(Ran::Worked)),
            (Phase::Rewound(to), Observation::Done) => {
                self.branch.stored = to;
                self.branch.unfinished = true;
                self.branch.follower.rewind(to);
                Ok(Action::Finish(Ran::Worked))
            }
            (Phase::Halted, Observation::Done) => {
                self.branch.halted = true;
                Ok(Action::Finish(Ran::Worked))
            }
            (phase, observation) => Err(StepError::UnexpectedObservation(format!("{observation:?} in {phase:?}"))),
        }
    }

    fn handle_tip(&mut self, now: Instant, tip: Tip) -> Action {
        match self.branch.follower.next_step(&tip) {
            NextStep::Wait => {
                self.track_quiet_tip(now, &tip);
                self.handle_tip_without_new_blocks(now, tip)
            }
            NextStep::ReadBlocks { from, to } => {
                (self.branch.quiet_at, self.branch.quiet_until) = (None, None);
                self.phase = Phase::Blocks(tip);
                Action::ReadBlocks { from, to }
            }
            NextStep::CompareHead if self.branch.follower.contains(tip.head.block_ref()) == Some(false) => {
                (self.branch.quiet_at, self.branch.quiet_until) = (None, None);
                self.phase = Phase::ConflictingHeader(tip);
                Action::ReadHeader(tip.head.height)
            }
            NextStep::CompareHead => self.handle_tip_without_new_blocks(now, tip),
        }
    }

    /// Handles a head that is not above the cursor and not on the followed branch. `preferred` is the header that the
    /// preferred endpoint has at this height; the follower switches to another branch only when this header is on that
    /// branch. Otherwise the conflict is only logged: heads differ for a moment when two blocks compete, and
    /// permanently when an endpoint returns forged blocks.
    fn handle_conflicting_head(
        &mut self,
        now: Instant,
        tip: Tip,
        preferred: Option<Header>,
    ) -> Result<Action, StepError> {
        let Some(preferred) = preferred else { return Ok(Action::Finish(Ran::Idle)) };
        if self.branch.follower.contains(preferred.block_ref()) == Some(false) {
            return self.search_common_ancestor(preferred);
        }
        let head = tip.head.block_ref();
        if self.conflicting_head.replace(head) != Some(head) {
            self.notices.push(Notice::ConflictingHead(head));
        }
        Ok(self.handle_tip_without_new_blocks(now, tip))
    }

    /// Records that the node's tip is the cursor. On chains with rare blocks, a second read of the same tip proves that
    /// all payments have been read; a second endpoint, if there is one, serves this read. On chains with steady blocks
    /// it proves nothing: the tip may be a minute old, like TRON's solidified block, and the next block may contain a
    /// payment. An old tip does not count, because the node may have lost its peers.
    fn track_quiet_tip(&mut self, now: Instant, tip: &Tip) {
        let age_ms = now.since(Instant::from_unix_seconds(tip.head.time));
        if age_ms > self.limits.tip_age_max_ms {
            self.notices.push(Notice::OldTip { age_ms });
        }
        let branch = &mut self.branch;
        if self.limits.quiet_tip_max_ms.is_some_and(|max_ms| (-max_ms..=max_ms).contains(&age_ms)) {
            branch.quiet_until = branch.quiet_at.or(branch.quiet_until);
            branch.quiet_at = Some(now);
        } else {
            (branch.quiet_at, branch.quiet_until) = (None, None);
        }
    }

    fn handle_blocks(&mut self, now: Instant, tip: Tip, blocks: Vec<Block>) -> Result<Action, StepError> {
        let Some(first) = blocks.first() else { return Ok(Action::Finish(Ran::Idle)) };
        match self.branch.follower.classify_next_block(&first.header) {
            NextBlock::Extends => {}
            NextBlock::Forks => return self.search_common_ancestor(first.header),
            NextBlock::WrongHeight => {
                let requested = self.branch.follower.cursor().height + 1;
                return Err(StepError::WrongHeight { requested, returned: first.header.height });
            }
        }
        for block in blocks {
            if self.branch.follower.classify_next_block(&block.header) != NextBlock::Extends {
                return Err(StepError::BrokenSequence(block.header.height));
            }
            self.branch.follower.push(block.header.block_ref());
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
            self.prepare_to_store_blocks(now, &tip, after_store)
        })
    }

    /// Handles a tip that is the cursor or an older block of the followed branch. Deposits may have become final
    /// meanwhile, and invoices may have expired.
    fn handle_tip_without_new_blocks(&mut self, now: Instant, tip: Tip) -> Action {
        let branch = &self.branch;
        let cursor_moved = !branch.pending.is_empty();
        let stale = now.since(branch.stored_at) >= self.limits.cursor_flush_ms;
        let may_finish = match branch.cross_check_pending_at {
            // A cross-check is repeated after an interval, not after every new tip of a chain with fast blocks.
            Some(checked_at) => now.since(checked_at) >= CROSS_CHECK_INTERVAL_MS,
            None => {
                self.find_advance_limit(&tip).is_ok_and(|advance_to| advance_to.last > branch.follower.final_height())
            }
        };
        if (cursor_moved && stale) || (branch.unfinished && may_finish) {
            let after_store = AfterStore::AtTip { tip, cursor_moved, final_height: branch.follower.final_height() };
            return self.prepare_to_store_blocks(now, &tip, after_store);
        }
        self.request_expirable_invoices(now, ExpiryCheck { tip, while_reading: false })
    }

    /// Returns the position up to which deposits may advance. The final block that the node reports counts when it is
    /// on the followed branch. A final block above the cursor or below the kept blocks cannot be compared with the
    /// branch, so only the depth counts.
    ///
    /// # Errors
    /// Returns the node's final block when it is on another branch.
    fn find_advance_limit(&self, tip: &Tip) -> Result<Position, BlockRef> {
        let follower = &self.branch.follower;
        let known = tip.finalized.and_then(|mark| follower.contains(mark).map(|on_branch| (mark, on_branch)));
        match known {
            Some((mark, false)) => Err(mark),
            Some((mark, true)) => {
                Ok(cursors::compute_position(&self.chain, follower.cursor().height, Some(mark.height)))
            }
            None => Ok(cursors::compute_position(&self.chain, follower.cursor().height, None)),
        }
    }

    /// Starts to store the pending blocks. Returns the action that finds out how far deposits may advance, if this is
    /// not known yet.
    fn prepare_to_store_blocks(&mut self, now: Instant, tip: &Tip, after_store: AfterStore) -> Action {
        let advance_limit = match self.find_advance_limit(tip) {
            Ok(advance_limit) => advance_limit,
            Err(mark) => {
                let reason = format!(
                    "an endpoint calls block {} at height {} final, but another block of that height is followed: no deposit is \
                     confirmed until the endpoints agree; compare the endpoints with independent ones",
                    mark.hash, mark.height
                );
                return self.act_on_dispute(now, reason, Purpose::Store { advance_limit: None, after_store });
            }
        };
        let purpose = |after_store| Purpose::Store { advance_limit: Some(advance_limit), after_store };
        if !self.cross_checkable {
            return self.act_on_agreement(now, purpose(after_store));
        }
        if !self.branch.unfinished && self.branch.pending.iter().all(|block| block.transfers.is_empty()) {
            return self.act_on_cross_check(now, purpose(after_store), Corroboration::Full);
        }
        self.phase = Phase::NewestDue { advance_limit, after_store };
        Action::FindNewestDue(advance_limit)
    }

    /// Requests a cross-check of the newest block with a deposit that would advance. All older blocks are its
    /// ancestors, so one request checks them too. Without such a deposit, no request is sent.
    fn cross_check_newest_paid_block(
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
        let purpose = Purpose::Store { advance_limit: Some(advance_limit), after_store };
        match stored.max(unstored) {
            Some(height) => self.request_cross_check(self.branch.follower.nearest_block(height), purpose),
            None => self.act_on_cross_check(now, purpose, Corroboration::Full),
        }
    }

    fn request_cross_check(&mut self, block: BlockRef, purpose: Purpose) -> Action {
        self.phase = Phase::CrossCheck { block, purpose };
        Action::CrossCheck(block)
    }

    /// Handles the result of a cross-check. When the second endpoint does not respond, or its head does not move,
    /// deposits advance without it, so that a broken endpoint does not stop all payments. When the endpoint is slightly
    /// behind, deposits wait for it, because a forged block is always ahead of honest endpoints.
    fn handle_cross_check_result(
        &mut self,
        now: Instant,
        block: BlockRef,
        result: CrossCheckResult,
        purpose: Purpose,
    ) -> Action {
        match result {
            CrossCheckResult::Confirmed => self.act_on_agreement(now, purpose),
            CrossCheckResult::Conflicting { endpoint, hash } => {
                let reason = format!(
                    "{endpoint} has block {hash} at height {}, another endpoint has {}: nothing is confirmed or reversed until \
                     they agree; compare them with independent endpoints and remove the wrong one",
                    block.height, block.hash
                );
                self.act_on_dispute(now, reason, purpose)
            }
            CrossCheckResult::Behind { endpoint, head } => {
                let stalled =
                    self.dispute.record_head_and_check_stall(now, head.block_ref(), self.limits.tip_age_max_ms);
                if stalled || !std::mem::replace(&mut self.dispute.behind_logged, true) {
                    let (head, height) = (head.height, block.height);
                    self.notices.push(Notice::EndpointBehind { endpoint, head, height, stalled });
                }
                let corroboration = if stalled { Corroboration::Full } else { Corroboration::UpTo(head.block_ref()) };
                self.act_on_cross_check(now, purpose, corroboration)
            }
            CrossCheckResult::NoAnswer(reason) => {
                self.notices.push(Notice::NotCrossChecked { height: block.height, reason });
                self.act_on_cross_check(now, purpose, Corroboration::Full)
            }
        }
    }

    /// Returns the action that opens the review of contradicting endpoints; continues directly when the review is open.
    fn act_on_dispute(&mut self, now: Instant, reason: String, purpose: Purpose) -> Action {
        if self.dispute.is_open == Some(true) {
            return self.act_on_cross_check(now, purpose, Corroboration::None);
        }
        self.phase = Phase::DisputeOpened(purpose);
        Action::OpenDispute(reason)
    }

    /// Returns the action that closes the review of contradicting endpoints; continues directly when the review is
    /// closed.
    fn act_on_agreement(&mut self, now: Instant, purpose: Purpose) -> Action {
        if self.dispute.is_open == Some(false) {
            self.dispute.behind_logged = false;
            return self.act_on_cross_check(now, purpose, Corroboration::Full);
        }
        self.phase = Phase::DisputeClosed(purpose);
        Action::CloseDispute
    }

    fn act_on_cross_check(&mut self, now: Instant, purpose: Purpose, corroboration: Corroboration) -> Action {
        match purpose {
            Purpose::Store { advance_limit, after_store } => {
                let advance_to =
                    advance_limit.and_then(|advance_limit| self.limit_to_corroborated(advance_limit, corroboration));
                self.store_pending_blocks(now, advance_limit, advance_to, after_store)
            }
            Purpose::Rewind { to } => match (corroboration, to) {
                (Corroboration::Full, Some(to)) => self.rewind_to(to),
                (Corroboration::Full, None) => self.halt_chain(),
                (Corroboration::UpTo(_) | Corroboration::None, _) => Action::Finish(Ran::Idle),
            },
        }
    }

    /// Limits the position to the blocks that a second endpoint has, too. Returns `None` when its head is on another
    /// branch.
    fn limit_to_corroborated(&self, advance_limit: Position, corroboration: Corroboration) -> Option<Position> {
        match corroboration {
            Corroboration::Full => Some(advance_limit),
            Corroboration::UpTo(head) if self.branch.follower.contains(head) == Some(true) => Some(Position {
                cursor: advance_limit.cursor.min(head.height),
                last: advance_limit.last.min(head.height),
            }),
            Corroboration::UpTo(_) | Corroboration::None => None,
        }
    }

    fn store_pending_blocks(
        &mut self,
        now: Instant,
        advance_limit: Option<Position>,
        advance_to: Option<Position>,
        after_store: AfterStore,
    ) -> Action {
        let from = self.branch.stored;
        let blocks = std::mem::take(&mut self.branch.pending);
        let last = blocks.last().map_or(from, |block| block.header.block_ref());
        let pending_cross_check = advance_to.is_none() || advance_limit != advance_to;
        self.phase = Phase::Stored { last, stored_at: now, pending_cross_check, after_store };
        Action::StoreBlocks { from, blocks, advance_to }
    }

    fn continue_after_store(&mut self, now: Instant, after_store: AfterStore) -> Action {
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
            AfterStore::AtTip { cursor_moved, final_height, .. }
                if cursor_moved || self.branch.follower.final_height() > final_height =>
            {
                Action::Finish(Ran::Worked)
            }
            AfterStore::AtTip { tip, .. } => {
                self.request_expirable_invoices(now, ExpiryCheck { tip, while_reading: false })
            }
            AfterStore::InvoicesExpired { invoices, check } => self.request_balance_check(invoices, check),
            AfterStore::CreditBooked => Action::Finish(Ran::Worked),
        }
    }

    /// Requests the invoices that have expired by the clock *and* by the chain: every block that could contain a
    /// payment in time has been read.
    fn request_expirable_invoices(&mut self, now: Instant, check: ExpiryCheck) -> Action {
        self.branch.expiry_checked_at = now;
        let read_until = Instant::from_unix_seconds(self.branch.time);
        let seen_until = self.branch.quiet_until.map_or(read_until, |quiet| quiet.max(read_until)).min(now);
        self.phase = Phase::Expirable(check);
        Action::ListExpirable { passed: seen_until.plus_ms(-self.deposit_limits.grace.ms) }
    }

    fn handle_expirable_invoices(&mut self, now: Instant, invoices: Vec<InvoiceId>, check: ExpiryCheck) -> Action {
        if invoices.is_empty() {
            // No invoice waits for balances, so an earlier failure must not shorten the wait of the next invoice.
            self.balances_unavailable_since = None;
            return check.finish_run(Ran::Idle);
        }
        if self.branch.pending.is_empty() {
            return self.request_balance_check(invoices, check);
        }
        self.prepare_to_store_blocks(now, &check.tip, AfterStore::InvoicesExpired { invoices, check })
    }

    /// Requests the balances of the invoices' addresses, to find a transfer that the scan of the blocks missed. On
    /// Bitcoin the invoices expire without this check, because a block contains every output and its Merkle root proves
    /// that it is complete.
    fn request_balance_check(&mut self, invoices: Vec<InvoiceId>, check: ExpiryCheck) -> Action {
        if self.chain.family == Family::Bitcoin {
            return self.request_expiry(invoices, None, check);
        }
        let branch = &mut self.branch;
        let cursor = branch.follower.cursor();
        let is_near = |block: &BlockRef| cursor.height.saturating_sub(block.height) < BALANCE_BLOCK_DEPTH_MAX;
        let is_usable = |block: &BlockRef| is_near(block) && branch.follower.contains(*block) == Some(true);
        let at = branch.balance_block.filter(is_usable).unwrap_or(cursor);
        branch.balance_block = Some(at);
        self.phase = Phase::Balances { invoices: invoices.clone(), check };
        Action::CheckBalances { at, invoices }
    }

    fn handle_balance_check(
        &mut self,
        now: Instant,
        invoices: Vec<InvoiceId>,
        result: Result<bool, SourceError>,
        check: ExpiryCheck,
    ) -> Result<Action, StepError> {
        let error = match result {
            Ok(explained) => {
                (self.branch.balance_block, self.balances_unavailable_since) = (None, None);
                return Ok(match explained {
                    true => self.request_expiry(invoices, None, check),
                    // The booked credit may be in a block that is already deep enough for a confirmation.
                    false => self.prepare_to_store_blocks(now, &check.tip, AfterStore::CreditBooked),
                });
            }
            Err(error) => error,
        };
        // The blocks themselves were read and verified, so an endpoint without balances delays the expiry only for a
        // limited time.
        let unavailable_ms = now.since(*self.balances_unavailable_since.get_or_insert(now));
        if unavailable_ms < self.limits.balance_patience_ms {
            if check.while_reading {
                self.notices.push(Notice::ExpiryDelayed(error.to_string()));
                return Ok(check.finish_run(Ran::Idle));
            }
            return Err(StepError::BalancesUnavailable(error));
        }
        let (minutes, reason) = (unavailable_ms / 60_000, error.to_string());
        let unchecked = format!(
            "the invoice expired without a check of its address's balance, because no endpoint returned balances for {minutes} \
             minutes: {reason}"
        );
        self.notices.push(Notice::ExpiredUnchecked { minutes, reason });
        Ok(self.request_expiry(invoices, Some(unchecked), check))
    }

    fn request_expiry(&mut self, invoices: Vec<InvoiceId>, unchecked: Option<String>, check: ExpiryCheck) -> Action {
        self.phase = Phase::Expired(check);
        Action::ExpireInvoices { invoices, unchecked }
    }

    /// Takes one step in the search for the common ancestor of the followed branch and the branch of `lowest`. The
    /// follower switches to the other branch without a cross-check when there is no second endpoint, or when the switch
    /// reverses no confirmed deposit. Otherwise a second endpoint must be on the other branch, too.
    fn search_common_ancestor(&mut self, lowest: Header) -> Result<Action, StepError> {
        let theirs = lowest.block_ref();
        Ok(match self.branch.follower.search_fork(&lowest) {
            ForkSearch::RequestHeader(height) => {
                self.phase = Phase::ForkParent { lowest, height };
                Action::ReadHeader(height)
            }
            ForkSearch::RewindTo(to) if !self.cross_checkable => self.rewind_to(to),
            ForkSearch::RewindTo(to) => {
                self.phase = Phase::ConfirmedAbove { to, theirs };
                Action::FindConfirmedAbove(to.height)
            }
            ForkSearch::TooDeep if !self.cross_checkable => self.halt_chain(),
            ForkSearch::TooDeep => self.request_cross_check(theirs, Purpose::Rewind { to: None }),
        })
    }

    fn handle_fork_parent(
        &mut self,
        lowest: Header,
        height: Height,
        parent: Option<Header>,
    ) -> Result<Action, StepError> {
        match parent {
            Some(parent) if parent.hash == lowest.parent => self.search_common_ancestor(parent),
            Some(_) => {
                let reason = format!(
                    "block {} was returned, and then a block {height} that is not its parent: the branch changed or is invented",
                    lowest.height
                );
                Err(SourceError::InvalidResponse(reason).into())
            }
            None => Err(SourceError::BlockNotFound(height).into()),
        }
    }

    fn rewind_to(&mut self, to: BlockRef) -> Action {
        let depth = self.branch.follower.cursor().height - to.height;
        self.notices.push(Notice::Reorganised { depth, to: to.height });
        if to.height >= self.branch.stored.height {
            self.branch.pending.retain(|block| block.header.height <= to.height);
            self.branch.follower.rewind(to);
            return Action::Finish(Ran::Worked);
        }
        self.branch.pending.clear();
        self.phase = Phase::Rewound(to);
        Action::Rewind { from: self.branch.stored, to }
    }

    fn halt_chain(&mut self) -> Action {
        self.phase = Phase::Halted;
        Action::Halt(format!(
            "the node's branch departs from the followed one below the final block {} or deeper than {} blocks; compare the nodes before anything \
             is paid out",
            self.branch.follower.final_height(),
            self.deposit_limits.keep
        ))
    }
}

impl Branch {
    fn from_cursor(limits: &Limits, deposit_limits: &DepositLimits, cursor: Cursor, now: Instant) -> Option<Branch> {
        let stored = cursor.recent.last().copied()?;
        let keep = usize::try_from(deposit_limits.keep).unwrap_or(usize::MAX);
        Some(Branch {
            follower: Follower::new(cursor.recent, cursor.final_height, keep, limits.batch),
            stored,
            stored_at: now,
            pending: Vec::new(),
            time: cursor.time.min(now.unix_seconds()),
            quiet_at: None,
            quiet_until: None,
            expiry_checked_at: Instant(0),
            unfinished: true,
            cross_check_pending_at: None,
            balance_block: None,
            halted: cursor.halted.is_some(),
        })
    }
}
