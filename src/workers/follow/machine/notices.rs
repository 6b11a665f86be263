//! Notices: facts that the state machine of the follower reports, so that the worker writes them to the log.

use chain::{BlockRef, Height};

/// A fact that the worker writes to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The node's newest block is old.
    OldTip {
        /// The age of the newest block, in milliseconds.
        age_ms: i64,
    },
    /// The newest block of an endpoint is on another branch than the followed one, but the preferred endpoint is on the
    /// followed branch. The field is that newest block.
    ConflictingHead(BlockRef),
    /// A second endpoint does not have the block `height` yet.
    EndpointBehind {
        /// Host and port of the second endpoint.
        endpoint: String,
        /// The height of the second endpoint's newest block.
        head: Height,
        /// The height of the block that the second endpoint was asked for.
        height: Height,
        /// True when the endpoint has had the same newest block for a long time. Then the follower does not wait for
        /// this endpoint.
        stalled: bool,
    },
    /// No second endpoint responded, so the block was accepted from a single endpoint.
    NotCrossChecked {
        /// The height of the block that was not cross-checked.
        height: Height,
        /// The reason why no second endpoint responded.
        reason: String,
    },
    /// The chain was reorganised: the node has another branch now.
    Reorganised {
        /// The number of blocks of the old branch that are reversed.
        depth: u64,
        /// The height of the common ancestor of both branches.
        to: Height,
    },
    /// Expired invoices stay open, because balances are not available. The follower continues to read blocks.
    ExpiryDelayed(String),
    /// Invoices expire although their balances could not be read.
    ExpiredUnchecked {
        /// The number of minutes since balances were last available.
        minutes: i64,
        /// The reason why balances are not available.
        reason: String,
    },
}
