//! The actions that the machine requests from the worker, and the observations that the worker returns.

use std::collections::BTreeMap;

use chain::source::{Corroboration, CrossCheckResult};
use chain::{Block, BlockRef, Header, Height, SourceError, Tip, Transfer};

use crate::workers::Ran;
use clock::Instant;
use ids::{DepositId, InvoiceId};
use money::cursors::Position;
use money::deposits::BlockToCorroborate;

/// The next step of the worker. After every action except [`Action::Finish`], the worker passes the result to
/// [`Machine::decide_next_action`](super::Machine::decide_next_action).
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
    /// Check whether a confirmed deposit exists above this height.
    FindConfirmedAbove(Height),
    /// Ask a second endpoint if it has this block.
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
        /// The position up to which deposits become confirmed or final; `None` when no deposit may advance.
        advance_to: Option<Position>,
    },
    /// List at most this many stored deposits that would become confirmed or final at this position and that no second
    /// source has shown yet, by block.
    ListUnchecked(Position, i64),
    /// Ask an endpoint of another provider for these transfers of a block.
    ConfirmTransfers {
        /// The block.
        block: BlockRef,
        /// The transfers.
        transfers: Vec<Transfer>,
    },
    /// Store these answers of second sources, and advance deposits as far as `advance_to`.
    StoreAnswers {
        /// The answers by deposit.
        answers: BTreeMap<DepositId, Corroboration>,
        /// The position up to which deposits are confirmed and final.
        advance_to: Position,
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
        /// The text of a review that is opened for each invoice, because its balance could not be checked; `None` when
        /// the balances were checked.
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

/// The result that the worker returns after it has executed an [`Action`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The node's tip: the result of [`Action::ReadTip`].
    Tip(Tip),
    /// The blocks: the result of [`Action::ReadBlocks`].
    Blocks(Vec<Block>),
    /// The header: the result of [`Action::ReadHeader`]; `None` above the node's head.
    Header(Option<Header>),
    /// The result of [`Action::FindConfirmedAbove`]: true when a confirmed deposit is above the height.
    ConfirmedAbove(bool),
    /// The reply of the second endpoint: the result of [`Action::CrossCheck`].
    CrossChecked(CrossCheckResult),
    /// The blocks with unchecked deposits: the result of [`Action::ListUnchecked`].
    Unchecked(Vec<BlockToCorroborate>),
    /// One answer for each transfer, in their order: the result of [`Action::ConfirmTransfers`].
    Answers(Vec<Corroboration>),
    /// The result of [`Action::StoreBlocks`] and of [`Action::StoreAnswers`].
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
