//! The follower decides how to follow a chain: read blocks, rewind or wait. It does no I/O: the caller acts on its
//! decisions and passes the results to it.
//!
//! The cursor advances only to a block whose parent is the cursor, and goes back only to a block that the node still
//! has. It never goes below the highest final block. If a fork lies deeper, the caller halts the chain until an
//! operator decides.

use std::collections::VecDeque;

use crate::{BlockHash, BlockRef, Header, Height, Tip};

/// Stores the recent blocks of our branch, which is the branch that the daemon follows, and decides what to read next.
/// The newest stored block is called the cursor.
#[derive(Debug, Clone)]
pub struct Follower {
    /// The recent blocks of our branch, ascending without gaps and never empty. The last one is the cursor.
    recent: VecDeque<BlockRef>,
    /// The height of the highest final block. The follower never goes back below this block.
    final_height: Height,
    /// The maximum number of blocks in `recent`. A reorganisation that is deeper than these blocks halts the chain.
    keep_blocks: usize,
    /// The maximum number of blocks that the follower asks the caller to read at once.
    batch_blocks_max: u64,
}

/// The next step of the caller after it has read the node's tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Wait: the newest block of the node is the cursor, so there is no block to read.
    Wait,
    /// Read the blocks of this range from the node, and pass the header of each to [`Follower::classify_next_block`].
    ReadBlocks {
        /// The first height to read, directly above the cursor.
        from: Height,
        /// The last height to read. It is not above the node's newest block.
        to: Height,
    },
    /// Ask [`Follower::is_on_our_branch`] whether the node's head is one of our blocks. The head is at or below the
    /// height of the cursor, but is a different block.
    CompareHead,
}

/// The relation of the node's next block to the cursor, which is the last block that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextBlock {
    /// The block follows directly on the cursor, so it is the next block of our branch.
    Extends,
    /// The block has the next height, but its parent is not the cursor. The caller searches the fork with
    /// [`Follower::search_fork_below`].
    Forks,
    /// The block does not have the height directly above the cursor, so the node's answer cannot be used.
    WrongHeight,
}

/// The next step of the search for the last block that our branch and the node's branch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkSearch {
    /// Read the node's header at this height, one below the lowest header of the node's branch that the caller has read
    /// so far.
    RequestHeader(Height),
    /// Go back to this block: it is the last block that both branches have in common.
    RewindTo(BlockRef),
    /// Halt the chain: the fork lies below the highest final block, or below the oldest block that the follower keeps.
    TooDeep,
}

impl Follower {
    /// Returns a follower that continues after the last of the stored blocks `recent`, which ascend without gaps. It
    /// keeps at most `keep_blocks` blocks and requests at most `batch_blocks_max` blocks at once. A value of zero is
    /// replaced by one.
    ///
    /// # Panics
    /// Panics when `recent` is empty.
    pub fn from_recent_blocks(
        recent: impl IntoIterator<Item = BlockRef>,
        final_height: Height,
        keep_blocks: usize,
        batch_blocks_max: u64,
    ) -> Follower {
        let recent: VecDeque<BlockRef> = recent.into_iter().collect();
        assert!(!recent.is_empty(), "a follower starts from a stored block");
        Follower { recent, final_height, keep_blocks: keep_blocks.max(1), batch_blocks_max: batch_blocks_max.max(1) }
    }

    /// Returns the cursor: the newest block of our branch that was read.
    pub fn cursor(&self) -> BlockRef {
        *self.recent.back().expect("never empty")
    }

    /// Returns the height of the highest final block of our branch.
    pub fn final_height(&self) -> Height {
        self.final_height
    }

    /// Decides whether to read blocks, to wait, or to compare the node's newest block with our branch.
    pub fn decide_next_step(&self, tip: &Tip) -> NextStep {
        let cursor = self.cursor();
        if tip.head.height > cursor.height {
            let to = tip.head.height.min(cursor.height.saturating_add(self.batch_blocks_max));
            return NextStep::ReadBlocks { from: cursor.height + 1, to };
        }
        if tip.head.block_ref() == cursor {
            return NextStep::Wait;
        }
        NextStep::CompareHead
    }

    /// Returns how a block relates to the cursor: it extends the followed branch, it is on another branch, or it is
    /// unusable.
    pub fn classify_next_block(&self, header: &Header) -> NextBlock {
        let cursor = self.cursor();
        if header.height != cursor.height + 1 {
            return NextBlock::WrongHeight;
        }
        if header.parent == cursor.hash { NextBlock::Extends } else { NextBlock::Forks }
    }

    /// Returns the next step of the search for the last block that our branch and the node's branch have in common.
    /// `lowest` is the lowest known block of the node's branch: at first the block that forks, then the header that the
    /// last [`ForkSearch::RequestHeader`] asked for. The caller must check that this header is the parent of the
    /// previous one. Otherwise the node has changed its branch in the meantime, or has invented the header.
    pub fn search_fork_below(&self, lowest: &Header) -> ForkSearch {
        let Some(height) = lowest.height.checked_sub(1).filter(|height| *height >= self.final_height) else {
            return ForkSearch::TooDeep;
        };
        match self.find_hash(height) {
            Some(ours) if ours == lowest.parent => ForkSearch::RewindTo(BlockRef { height, hash: ours }),
            Some(_) if height > self.final_height => ForkSearch::RequestHeader(height),
            Some(_) | None => ForkSearch::TooDeep,
        }
    }

    /// Adds the next block of our branch. The block becomes the cursor. If there are then more than `keep_blocks`
    /// blocks, the oldest are dropped.
    pub fn push_block_dropping_oldest(&mut self, block: BlockRef) {
        debug_assert_eq!(block.height, self.cursor().height + 1);
        self.recent.push_back(block);
        while self.recent.len() > self.keep_blocks {
            self.recent.pop_front();
        }
    }

    /// Removes all blocks above `to`, which must be one of the stored blocks of our branch. The block `to` becomes the
    /// cursor.
    pub fn rewind_to(&mut self, to: BlockRef) {
        while self.recent.len() > 1 && self.cursor().height > to.height {
            self.recent.pop_back();
        }
        debug_assert_eq!(self.cursor(), to);
    }

    /// Records that the blocks of our branch up to `height` are final. The final height never decreases and is never
    /// above the cursor.
    pub fn raise_final_height(&mut self, height: Height) {
        self.final_height = self.final_height.max(height.min(self.cursor().height));
    }

    /// Returns true when the block is on our branch, false when our branch has another block at its height, and `None`
    /// when the height was not read yet, or when the follower has dropped its block.
    pub fn is_on_our_branch(&self, block: BlockRef) -> Option<bool> {
        self.find_hash(block.height).map(|ours| ours == block.hash)
    }

    /// Returns the block of our branch at a height. For a height below the oldest block that the follower keeps,
    /// returns the oldest block; for a height above the cursor, returns the cursor.
    pub fn find_block_or_nearest(&self, height: Height) -> BlockRef {
        let oldest = self.recent.front().expect("never empty");
        self.find_hash(height).map_or_else(
            || if height < oldest.height { *oldest } else { self.cursor() },
            |hash| BlockRef { height, hash },
        )
    }

    /// Returns the hash of our block at a height, or `None` when the height was not read yet, or when the follower has
    /// dropped its block.
    fn find_hash(&self, height: Height) -> Option<BlockHash> {
        let oldest = self.recent.front().expect("never empty").height;
        let index = usize::try_from(height.checked_sub(oldest)?).ok()?;
        self.recent.get(index).map(|block| block.hash)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the block `height` of the branch `branch`, with a made-up hash.
    fn block(branch: u8, height: Height) -> BlockRef {
        let mut hash = [branch; 32];
        hash[..8].copy_from_slice(&height.to_be_bytes());
        BlockRef { height, hash: BlockHash(hash) }
    }

    fn header(block: BlockRef, parent: BlockRef) -> Header {
        Header { height: block.height, hash: block.hash, parent: parent.hash, time: 0 }
    }

    fn tip(head: BlockRef) -> Tip {
        Tip { head: header(head, head), finalized: None }
    }

    fn follower(cursor: Height) -> Follower {
        Follower::from_recent_blocks((0..=cursor).map(|h| block(0, h)), 0, 100, 10)
    }

    #[test]
    fn the_tip_decides_the_next_step() {
        let f = follower(5);
        assert_eq!(f.decide_next_step(&tip(block(0, 5))), NextStep::Wait);
        assert_eq!(f.decide_next_step(&tip(block(0, 6))), NextStep::ReadBlocks { from: 6, to: 6 });
        assert_eq!(f.decide_next_step(&tip(block(0, 99))), NextStep::ReadBlocks { from: 6, to: 15 });
        assert_eq!(f.decide_next_step(&tip(block(0, 3))), NextStep::CompareHead);
        assert_eq!(f.decide_next_step(&tip(block(1, 5))), NextStep::CompareHead);
        assert_eq!(f.is_on_our_branch(block(0, 3)), Some(true));
        assert_eq!(f.is_on_our_branch(block(1, 3)), Some(false));
        assert_eq!(f.classify_next_block(&header(block(0, 6), block(0, 5))), NextBlock::Extends);
        assert_eq!(f.classify_next_block(&header(block(1, 6), block(1, 5))), NextBlock::Forks);
        assert_eq!(f.classify_next_block(&header(block(0, 7), block(0, 6))), NextBlock::WrongHeight);
    }

    #[test]
    fn final_blocks_are_never_rewound() {
        let mut f = follower(9);
        f.raise_final_height(7);
        f.raise_final_height(3);
        assert_eq!(f.final_height(), 7);
        assert_eq!(f.search_fork_below(&header(block(1, 9), block(1, 8))), ForkSearch::RequestHeader(8));
        assert_eq!(f.search_fork_below(&header(block(1, 8), block(0, 7))), ForkSearch::RewindTo(block(0, 7)));
        assert_eq!(f.search_fork_below(&header(block(1, 8), block(1, 7))), ForkSearch::TooDeep);
        assert_eq!(f.search_fork_below(&header(block(1, 7), block(0, 6))), ForkSearch::TooDeep);
        f.raise_final_height(50);
        assert_eq!(f.final_height(), 9, "the final mark does not pass the cursor");
    }

    #[test]
    fn only_kept_blocks_are_found() {
        let mut f = Follower::from_recent_blocks([block(0, 0)], 0, 3, 10);
        for height in 1..=9 {
            f.push_block_dropping_oldest(block(0, height));
        }
        assert_eq!(f.is_on_our_branch(block(0, 7)), Some(true));
        assert_eq!(f.is_on_our_branch(block(1, 8)), Some(false));
        assert_eq!((f.is_on_our_branch(block(0, 6)), f.is_on_our_branch(block(0, 10))), (None, None));
        assert_eq!(
            (f.find_block_or_nearest(3), f.find_block_or_nearest(8), f.find_block_or_nearest(12)),
            (block(0, 7), block(0, 8), block(0, 9))
        );
    }

    proptest! {
        /// At any depth of the fork, the search ends at its last common block or with `TooDeep`.
        #[test]
        fn the_search_finds_the_last_common_block(length in 2u64..60, fork in 0u64..60, keep_blocks in 1usize..80, final_height in 0u64..60) {
            let fork = fork.min(length - 1);
            let mut f = Follower::from_recent_blocks([block(0, 0)], 0, keep_blocks, 10);
            for h in 1..=length { f.push_block_dropping_oldest(block(0, h)); }
            f.raise_final_height(final_height);
            let node_block = |h: Height| if h <= fork { block(0, h) } else { block(1, h) };
            let node_header = |h: Height| header(node_block(h), node_block(h - 1));
            let oldest = length + 1 - u64::try_from(f.recent.len()).unwrap();
            let mut lowest = node_header(length + 1);
            let found = loop {
                match f.search_fork_below(&lowest) {
                    ForkSearch::RequestHeader(h) => lowest = node_header(h),
                    found @ (ForkSearch::RewindTo(_) | ForkSearch::TooDeep) => break found,
                }
            };
            if fork >= oldest && fork >= f.final_height() {
                prop_assert_eq!(found, ForkSearch::RewindTo(block(0, fork)));
                f.rewind_to(block(0, fork));
                prop_assert_eq!(f.cursor(), block(0, fork));
                prop_assert_eq!(f.classify_next_block(&node_header(fork + 1)), NextBlock::Extends);
            } else {
                prop_assert_eq!(found, ForkSearch::TooDeep);
            }
        }
    }
}
