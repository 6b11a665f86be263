//! Positions on a chain.

use std::fmt;

use crate::{Spend, Transfer};

/// Blocks above genesis.
pub type Height = u64;

/// 32 bytes in the order in which the chain's own text shows them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub [u8; 32]);

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&const_hex::encode(self.0))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    pub height: Height,
    pub hash: BlockHash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub height: Height,
    pub hash: BlockHash,
    pub parent: BlockHash,
    /// The block's own time, unix seconds.
    pub time: i64,
}

impl Header {
    pub fn block_ref(&self) -> BlockRef {
        BlockRef { height: self.height, hash: self.hash }
    }
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    pub head: Header,
    /// Highest block that the chain itself calls final (`finalized` on EVM, solidified on TRON); `None` where the chain or
    /// the node has no such mark and depth alone decides. With its hash: on another branch the same height is not final.
    pub finalized: Option<BlockRef>,
}

/// A block with those of its transfers that reach watched addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub header: Header,
    pub transfers: Vec<Transfer>,
    /// Which of our outputs its transactions spend; empty where a chain has no outputs.
    pub spends: Vec<Spend>,
}

impl Block {
    /// Returns true when it has a transfer or a spend that must be stored.
    pub fn has_watched_activity(&self) -> bool {
        !(self.transfers.is_empty() && self.spends.is_empty())
    }
}
