//! What was read lately, along one branch: headers, for the difficulty of their children, and what coinbases paid, until
//! it may be spent. Pure.

use std::collections::VecDeque;

use bitcoin::{BlockHash, block::Header};

use crate::block::Hit;

/// Blocks kept: more than a coinbase needs to mature.
const KEEP: usize = 200;

/// A block that was read.
#[derive(Debug, Clone)]
pub struct Known {
    pub hash: BlockHash,
    pub header: Header,
    pub coinbase: Vec<Hit>,
}

/// Blocks of which each is the parent of the next.
#[derive(Debug, Default)]
pub struct Memory(VecDeque<Known>);

impl Memory {
    /// Takes a block. Whatever is not below it on its branch is forgotten.
    pub fn extend(&mut self, known: Known) {
        while self.0.back().is_some_and(|last| last.hash != known.header.prev_blockhash) {
            self.0.pop_back();
        }
        self.0.push_back(known);
        while self.0.len() > KEEP {
            self.0.pop_front();
        }
    }

    /// The block so far below the newest one.
    pub fn below(&self, depth: usize) -> Option<&Known> {
        self.0.len().checked_sub(depth + 1).and_then(|index| self.0.get(index))
    }

    pub fn header(&self, hash: BlockHash) -> Option<Header> {
        self.0.iter().rev().find(|known| known.hash == hash).map(|known| known.header)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Network, constants::genesis_block};

    use super::*;

    fn child(parent: &Known, nonce: u32) -> Known {
        let mut header = parent.header;
        header.prev_blockhash = parent.hash;
        header.nonce = nonce;
        Known { hash: header.block_hash(), header, coinbase: Vec::new() }
    }

    #[test]
    fn it_is_one_branch_however_blocks_are_read() {
        let header = genesis_block(Network::Regtest).header;
        let mut blocks = vec![Known { hash: header.block_hash(), header, coinbase: Vec::new() }];
        for _ in 0..300 {
            blocks.push(child(blocks.last().unwrap(), 1));
        }
        let mut memory = Memory::default();
        for block in &blocks {
            memory.extend(block.clone());
        }
        assert_eq!(memory.below(99).map(|known| known.hash), Some(blocks[201].hash));
        assert_eq!(memory.below(KEEP).map(|known| known.hash), None);
        assert_eq!(memory.header(blocks[10].hash), None);

        let fork = child(&blocks[250], 2);
        memory.extend(fork.clone());
        assert_eq!(memory.below(1).map(|known| known.hash), Some(blocks[250].hash));
        assert_eq!(memory.header(blocks[251].hash), None);
        memory.extend(fork);
        assert_eq!(memory.below(1).map(|known| known.hash), Some(blocks[250].hash), "read again, remembered once");
        memory.extend(blocks[5].clone());
        assert_eq!(memory.below(1).map(|known| known.hash), None);
    }
}
