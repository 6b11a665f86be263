//! Blocks, their headers and a node's tip.

use std::fmt;

use crate::{Spend, Transfer};

/// The height of a block: the genesis block has height 0.
pub type Height = u64;

/// The hash of a block: 32 bytes, in the order in which the tools of the chain print them.
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

/// A reference to one block. Two blocks of the same height on different branches differ in their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// The block's height.
    pub height: Height,
    /// The block's hash.
    pub hash: BlockHash,
}

/// The parts of a block's header that the daemon uses to follow a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The block's height.
    pub height: Height,
    /// The block's hash.
    pub hash: BlockHash,
    /// The hash of the parent, the block before this one.
    pub parent: BlockHash,
    /// The timestamp that the producer of the block wrote into it, in Unix seconds.
    pub time: i64,
}

impl Header {
    /// Returns the reference to the block of this header.
    pub fn block_ref(&self) -> BlockRef {
        BlockRef { height: self.height, hash: self.hash }
    }
}

/// The newest block of a node, and the highest block that the node reports as final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The header of the node's newest block.
    pub head: Header,
    /// The highest block that the chain itself declares final: `finalized` on EVM, solidified on TRON. `None` when the
    /// chain or the node declares none; then a block is final after enough confirmations. The field contains a hash,
    /// because a block of the same height on another branch is not final.
    pub finalized: Option<BlockRef>,
}

/// A block as a driver returns it: the header, the transfers to watched addresses, and the inputs that spend watched
/// outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The header of the block.
    pub header: Header,
    /// The transfers of the block to watched addresses, ascending by [`Transfer::index`].
    pub transfers: Vec<Transfer>,
    /// The inputs in the block that spend watched outputs. Empty on chains without transaction outputs.
    pub spends: Vec<Spend>,
}

impl Block {
    /// Returns true when the block has a transfer to a watched address or spends a watched output. Otherwise the daemon
    /// stores only that it has read the block.
    pub fn has_watched_activity(&self) -> bool {
        !(self.transfers.is_empty() && self.spends.is_empty())
    }
}
