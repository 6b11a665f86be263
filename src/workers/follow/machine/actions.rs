//! The actions that the state machine requests from the follower worker, and the results (observations) that the worker
//! returns.

use chain::source::CrossCheckResult;
use chain::{Block, BlockRef, Header, Height, SourceError, Tip};

use crate::workers::Ran;
use clock::Instant;
use ids::InvoiceId;
use money::cursors::Position;

/// The next step of the worker. After every action except [`Action::Finish`], the worker passes the result to
/// [`Machine::decide_next_action`](super::Machine::decide_next_action).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read the node's tip.
    ReadTip,
    /// Read the blocks `from..=to`. The source may return only the first blocks of this range.
    ReadBlocks {
        /// The first height to read.
        from: Height,
        /// The last height to read.
        to: Height,
    },
    /// Read the node's header at this height.
    ReadHeader(Height),
    /// Find the height of the newest stored deposit that would become confirmed or final at this position of the chain.
    FindNewestDue(Position),
    /// Check whether a confirmed deposit exists above this height.
    FindConfirmedAbove(Height),
    /// Ask a second endpoint whether it has this block.
    CrossCheck(BlockRef),
    /// Open the review about endpoints that contradict each other. The text is the reason.
    OpenDispute(String),
    /// Close the review about endpoints that contradict each other.
    CloseDispute,
    /// Store these blocks, which follow the stored cursor `from`. Deposits become confirmed or final as far as the
    /// position `advance_to` allows.
    StoreBlocks {
        /// The cursor that the database has now.
        from: BlockRef,
        /// The blocks that follow the cursor; may be empty.
        blocks: Vec<Block>,
        /// The position that decides which deposits become confirmed or final; `None` when no deposit may change its
        /// state.
        advance_to: Option<Position>,
    },
    /// List the invoices whose payment window has ended, both by the clock and by the time of the chain's blocks.
    ListExpirable {
        /// The end of the payment window must be before this time: the time up to which all payments have been read,
        /// minus the grace period.
        passed: Instant,
    },
    /// Compare the balances of the invoices' addresses with their deposits.
    CheckBalances {
        /// The block after which balances are read.
        at: BlockRef,
        /// The invoices that are about to expire.
        invoices: Vec<InvoiceId>,
    },
    /// Mark these invoices as expired.
    ExpireInvoices {
        /// The invoices that are marked as expired.
        invoices: Vec<InvoiceId>,
        /// The text of the review that each of these invoices gets when its balance could not be checked; `None` when
        /// the balances were checked.
        unchecked: Option<String>,
    },
    /// Reverse all stored blocks above `to`, because they are not on the node's branch.
    Rewind {
        /// The cursor that the database has now.
        from: BlockRef,
        /// The block that becomes the new cursor.
        to: BlockRef,
    },
    /// Stop following the chain until an operator decides. The text is the reason.
    Halt(String),
    /// End the run of the worker, with this result.
    Finish(Ran),
}

/// The result that the worker returns after it has executed an [`Action`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The tip of the node, as the result of [`Action::ReadTip`].
    Tip(Tip),
    /// The blocks that were read, as the result of [`Action::ReadBlocks`].
    Blocks(Vec<Block>),
    /// The header that was read, as the result of [`Action::ReadHeader`]. `None` when the height is above the node's
    /// newest block.
    Header(Option<Header>),
    /// The height that was found, as the result of [`Action::FindNewestDue`]. `None` when no stored deposit would
    /// become confirmed or final.
    NewestDue(Option<Height>),
    /// The result of [`Action::FindConfirmedAbove`]: true when a confirmed deposit is above the requested height.
    ConfirmedAbove(bool),
    /// The reply of the second endpoint: the result of [`Action::CrossCheck`].
    CrossChecked(CrossCheckResult),
    /// The blocks were stored: the result of [`Action::StoreBlocks`].
    Stored {
        /// The height of the highest final block.
        final_height: Height,
        /// True when the chain has deposits that are not final yet.
        unfinished: bool,
    },
    /// The invoices that have expired: the result of [`Action::ListExpirable`].
    Expirable(Vec<InvoiceId>),
    /// The result of [`Action::CheckBalances`]: true when the deposits explain all balances, false when a credit was
    /// booked.
    Balances(Result<bool, SourceError>),
    /// The action was done: the result of every action that returns nothing else.
    Done,
}
