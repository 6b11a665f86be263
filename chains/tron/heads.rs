//! Blocks above the solidified one, remembered from one look to the next so that each is read once. Pure.

use std::collections::VecDeque;

use chain::{Block, Header, Height, UnconfirmedTransfer};

/// Head blocks kept at most: with fewer than 19 producers the head runs away from the solidified block.
pub const KEEP_MAX: usize = 600;

/// The newest blocks, each the parent of the next, oldest first.
#[derive(Debug, Default)]
pub struct HeadBlocks {
    blocks: VecDeque<Block>,
}

impl HeadBlocks {
    /// What to read so that the memory reaches from above `solid` to `head`; nothing if it does already, or if `head` is
    /// lower than what is remembered: producers build on the longest branch, so it is that of a node which is behind, or of
    /// a branch that loses. What a fork replaced is forgotten.
    pub fn missing(&mut self, solid: Height, head: &Header) -> Option<(Height, Height)> {
        if self.blocks.back().is_some_and(|last| last.header.height < solid) {
            self.blocks.clear();
        }
        if let Some(last) = self.blocks.back().map(|block| block.header) {
            if head.height < last.height || head.block_ref() == last.block_ref() {
                return None;
            }
            if head.height == last.height {
                self.blocks.pop_back();
            }
        }
        let from = self.blocks.back().map_or(solid + 1, |last| last.header.height + 1);
        (from <= head.height).then_some((from, head.height))
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Adds blocks that were read. `false` if they do not follow what is remembered, which is then forgotten.
    pub fn extend(&mut self, blocks: Vec<Block>) -> bool {
        for block in blocks {
            if self.blocks.back().is_some_and(|last| last.header.hash != block.header.parent) {
                self.blocks.clear();
                return false;
            }
            self.blocks.push_back(block);
            if self.blocks.len() > KEEP_MAX {
                self.blocks.pop_front();
            }
        }
        true
    }

    /// Forgets blocks up to a height.
    pub fn forget(&mut self, up_to: Height) {
        while self.blocks.front().is_some_and(|block| block.header.height <= up_to) {
            self.blocks.pop_front();
        }
    }

    pub fn unconfirmed(&self) -> Vec<UnconfirmedTransfer> {
        let transfers = self.blocks.iter().flat_map(|block| &block.transfers);
        let unconfirmed = |transfer: &chain::Transfer| UnconfirmedTransfer {
            txid: transfer.txid,
            part: transfer.index.part,
            asset: transfer.asset.clone(),
            to: transfer.to,
            amount: transfer.amount,
            replaceable: false,
        };
        transfers.map(unconfirmed).collect()
    }
}

#[cfg(test)]
mod tests {
    use chain::BlockHash;

    use super::*;

    fn header(branch: u8, height: Height, parent: u8) -> Header {
        let hash = |branch: u8, height: Height| {
            let mut hash = [branch; 32];
            hash[..8].copy_from_slice(&height.to_be_bytes());
            BlockHash(hash)
        };
        Header { height, hash: hash(branch, height), parent: hash(parent, height - 1), time: 0 }
    }

    fn block(branch: u8, height: Height, parent: u8) -> Block {
        Block { header: header(branch, height, parent), transfers: Vec::new(), spends: Vec::new() }
    }

    #[test]
    fn each_block_is_read_once() {
        let mut heads = HeadBlocks::default();
        assert_eq!(heads.missing(10, &header(0, 12, 0)), Some((11, 12)));
        assert!(heads.extend(vec![block(0, 11, 0), block(0, 12, 0)]));
        assert_eq!(heads.missing(10, &header(0, 12, 0)), None);
        assert_eq!(heads.missing(11, &header(0, 14, 0)), Some((13, 14)));
        heads.forget(11);
        assert!(heads.extend(vec![block(0, 13, 0)]));
        assert_eq!(heads.missing(11, &header(0, 14, 0)), Some((14, 14)));
    }

    #[test]
    fn a_fork_is_noticed_at_its_tip_or_at_its_root() {
        let mut heads = HeadBlocks::default();
        assert!(heads.extend((11..=14).map(|height| block(0, height, 0)).collect()));
        // As long, with another tip only.
        assert_eq!(heads.missing(10, &header(1, 14, 0)), Some((14, 14)));
        assert!(heads.extend(vec![block(1, 14, 0)]));
        // Longer, from further down.
        assert_eq!(heads.missing(10, &header(2, 15, 2)), Some((15, 15)));
        assert!(!heads.extend(vec![block(2, 15, 2)]));
        assert_eq!(heads.missing(10, &header(2, 15, 2)), Some((11, 15)));
    }

    #[test]
    fn a_node_that_is_behind_changes_nothing() {
        let mut heads = HeadBlocks::default();
        assert!(heads.extend((11..=15).map(|height| block(0, height, 0)).collect()));
        for head in [header(0, 13, 0), header(1, 14, 1), header(0, 9, 0)] {
            assert_eq!(heads.missing(10, &head), None);
        }
        assert_eq!(heads.missing(10, &header(0, 16, 0)), Some((16, 16)), "nothing was forgotten");
    }
}
