//! Stores the blocks of one branch that were read last: their headers, to check the difficulty of their children, and
//! their coinbase outputs, until they may be spent. This module does no I/O.

use std::collections::VecDeque;

use bitcoin::{BlockHash, block::Header};

use crate::paid_output::PaidOutput;

/// The maximum number of blocks that are kept. It is larger than 100, the number of blocks after which a coinbase may
/// be spent.
const BLOCKS_MAX: usize = 200;

/// The parts of a block that are needed to check the blocks after it.
#[derive(Debug, Clone)]
pub struct RecentBlock {
    /// Hash of the header, which the driver computed itself.
    pub hash: BlockHash,
    /// Header, against which the difficulty of the next block is checked.
    pub header: Header,
    /// Coinbase outputs to addresses of the configured type.
    pub coinbase: Vec<PaidOutput>,
}

/// The most recent blocks of one branch, oldest first. Each is the parent of the next one.
#[derive(Debug, Default)]
pub struct RecentBlocks(VecDeque<RecentBlock>);

impl RecentBlocks {
    /// Adds a block and removes all blocks that are not its ancestors. Keeps the newest [`BLOCKS_MAX`] blocks.
    pub fn push_block_dropping_non_ancestors(&mut self, block: RecentBlock) {
        while self.0.back().is_some_and(|last| last.hash != block.header.prev_blockhash) {
            self.0.pop_back();
        }
        self.0.push_back(block);
        while self.0.len() > BLOCKS_MAX {
            self.0.pop_front();
        }
    }

    /// Returns the block that is `depth` blocks below the newest block, or `None` if fewer blocks are stored here.
    pub fn find_block_below_tip(&self, depth: usize) -> Option<&RecentBlock> {
        self.0.len().checked_sub(depth + 1).and_then(|index| self.0.get(index))
    }

    /// Returns the header of the recent block with this hash, or `None` if no such block is stored here.
    pub fn find_header_by_hash(&self, hash: BlockHash) -> Option<Header> {
        self.0.iter().rev().find(|block| block.hash == hash).map(|block| block.header)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Network, constants::genesis_block};

    use super::*;

    fn child_block(parent: &RecentBlock, nonce: u32) -> RecentBlock {
        let mut header = parent.header;
        header.prev_blockhash = parent.hash;
        header.nonce = nonce;
        RecentBlock { hash: header.block_hash(), header, coinbase: Vec::new() }
    }

    #[test]
    fn only_one_branch_is_kept_in_whatever_order_blocks_are_read() {
        let header = genesis_block(Network::Regtest).header;
        let mut blocks = vec![RecentBlock { hash: header.block_hash(), header, coinbase: Vec::new() }];
        for _ in 0..300 {
            blocks.push(child_block(blocks.last().unwrap(), 1));
        }
        let mut recent = RecentBlocks::default();
        for block in &blocks {
            recent.push_block_dropping_non_ancestors(block.clone());
        }
        assert_eq!(recent.find_block_below_tip(99).map(|block| block.hash), Some(blocks[201].hash));
        assert_eq!(recent.find_block_below_tip(BLOCKS_MAX).map(|block| block.hash), None);
        assert_eq!(recent.find_header_by_hash(blocks[10].hash), None);

        let fork = child_block(&blocks[250], 2);
        recent.push_block_dropping_non_ancestors(fork.clone());
        assert_eq!(recent.find_block_below_tip(1).map(|block| block.hash), Some(blocks[250].hash));
        assert_eq!(recent.find_header_by_hash(blocks[251].hash), None);
        recent.push_block_dropping_non_ancestors(fork);
        assert_eq!(
            recent.find_block_below_tip(1).map(|block| block.hash),
            Some(blocks[250].hash),
            "a block that is read twice is kept once"
        );
        recent.push_block_dropping_non_ancestors(blocks[5].clone());
        assert_eq!(recent.find_block_below_tip(1).map(|block| block.hash), None);
    }
}
