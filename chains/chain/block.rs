//! Blocks, their headers and a node's tip.

use std::fmt;

use crate::{Spend, Transfer};

/// A block's number: the genesis block has 0.
pub type Height = u64;

/// A block's hash: 32 bytes in the order in which the chain's own tools print them.
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

/// A reference to one block of one branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// The block's height.
    pub height: Height,
    /// The block's hash.
    pub hash: BlockHash,
}

/// The parts of a block's header that the follower uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The block's height.
    pub height: Height,
    /// The block's hash.
    pub hash: BlockHash,
    /// The hash of the block before it.
    pub parent: BlockHash,
    /// The timestamp that its producer wrote into it, in unix seconds.
    pub time: i64,
}

impl Header {
    /// The reference to this block.
    pub fn block_ref(&self) -> BlockRef {
        BlockRef { height: self.height, hash: self.hash }
    }
}

/// The newest block of a node and its mark of final blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The newest block.
    pub head: Header,
    /// The highest block that the chain itself declares final (`finalized` on EVM, solidified on TRON). `None` where the chain
    /// or the node has no such mark and only depth decides. It has a hash, because a block of the same height on another
    /// branch is not final.
    pub finalized: Option<BlockRef>,
}

/// A block, with its transfers to watched addresses only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its header.
    pub header: Header,
    /// Its transfers to watched addresses, ascending by [`Transfer::index`].
    pub transfers: Vec<Transfer>,
    /// The watched outputs that its transactions spend; empty on chains without outputs.
    pub spends: Vec<Spend>,
}

impl Block {
    /// Returns true when the block has a transfer to a watched address or spends a watched output. All other blocks move the
    /// cursor only.
    pub fn has_watched_activity(&self) -> bool {
        !(self.transfers.is_empty() && self.spends.is_empty())
    }
}
