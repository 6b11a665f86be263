//! Notices: events that the machine reports to the worker, which writes them to the log.

use chain::{BlockRef, Height};

/// A fact that the worker logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The node's newest block is old.
    OldTip {
        /// The age of the newest block, in milliseconds.
        age_ms: i64,
    },
    /// The newest block of an endpoint is this block, which is not on the followed branch. The preferred endpoint still
    /// has the followed branch, so the follower stays on it.
    ConflictingHead(BlockRef),
    /// A second endpoint does not have the block `height` yet.
    EndpointBehind {
        /// The second endpoint.
        endpoint: String,
        /// The height of the second endpoint's newest block.
        head: Height,
        /// The height of the requested block.
        height: Height,
        /// True when the endpoint's head has been the same block for a long time, so that the follower leaves its branch
        /// without the endpoint.
        stalled: bool,
    },
    /// No endpoint of another provider can say whether a block has the transfers of deposits, so they wait.
    NotCorroborated {
        /// The height of the block.
        height: Height,
        /// The reason why no endpoint can answer.
        reason: String,
    },
    /// No second endpoint responded, so the follower leaves its branch for the branch of a single endpoint.
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
