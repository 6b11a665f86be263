//! Decides how to follow a chain: read blocks, rewind or wait. It does no I/O: the caller does what it decides and reports
//! the result.
//!
//! The cursor advances only to blocks whose parent is the cursor, and goes back only to a block that the node still has. It
//! never goes below the highest final block: where that would be needed, the chain is halted and an operator must decide.

use std::collections::VecDeque;

use crate::{BlockHash, BlockRef, Header, Height, Tip};

/// The recent blocks of our branch. The last one is the cursor: the newest block that was read.
#[derive(Debug, Clone)]
pub struct Follower {
    /// Ascending without gaps, never empty.
    recent: VecDeque<BlockRef>,
    /// The height of the highest final block, which may not be rewound.
    final_height: Height,
    /// Maximum length of `recent`: the deepest reorganisation that can be followed, in blocks.
    keep_blocks: usize,
    /// Maximum number of blocks of one request.
    batch_blocks_max: u64,
}

/// The next thing to do after the node's tip was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// The node's tip is the cursor: there is nothing to read.
    Wait,
    /// Read these blocks and offer them to [`Follower::classify_next_block`].
    ReadBlocks {
        /// The height after the cursor.
        from: Height,
        /// The highest height to read, not above the node's head.
        to: Height,
    },
    /// The node's head is not above the cursor and is another block: look it up with [`Follower::contains`].
    CompareHead,
}

/// The relation of a block to the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextBlock {
    /// It is the next block of our branch.
    Extends,
    /// It has the next height, but its parent is not the cursor: search the fork with [`Follower::search_fork`].
    Forks,
    /// It does not have the height after the cursor, so the answer cannot be used.
    WrongHeight,
}

/// One step of the search for the last block that our branch and another branch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkSearch {
    /// Read the node's header at this height: the parent of the lowest known block of the other branch.
    RequestHeader(Height),
    /// Rewind to this block: it is the last common one.
    RewindTo(BlockRef),
    /// There is no common block at or above the highest final block, or none within the kept ones.
    TooDeep,
}

impl Follower {
    /// A follower that continues after the last of the stored blocks `recent`, which ascend without gaps. It keeps at most
    /// `keep_blocks` blocks and requests at most `batch_blocks_max` blocks at once; both are at least 1.
    ///
    /// # Panics
    /// When `recent` is empty.
    pub fn new(
        recent: impl IntoIterator<Item = BlockRef>,
        final_height: Height,
        keep_blocks: usize,
        batch_blocks_max: u64,
    ) -> Follower {
        let recent: VecDeque<BlockRef> = recent.into_iter().collect();
        assert!(!recent.is_empty(), "a follower starts from a stored block");
        Follower { recent, final_height, keep_blocks: keep_blocks.max(1), batch_blocks_max: batch_blocks_max.max(1) }
    }

    /// The newest block of our branch that was read.
    pub fn cursor(&self) -> BlockRef {
        *self.recent.back().expect("never empty")
    }

    /// The height of the highest final block of our branch.
    pub fn final_height(&self) -> Height {
        self.final_height
    }

    /// Decides what to do about the node's tip.
    pub fn next_step(&self, tip: &Tip) -> NextStep {
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

    /// Returns how a block relates to the cursor: it extends the followed branch, it is on another branch, or it is unusable.
    pub fn classify_next_block(&self, header: &Header) -> NextBlock {
        let cursor = self.cursor();
        if header.height != cursor.height + 1 {
            return NextBlock::WrongHeight;
        }
        if header.parent == cursor.hash { NextBlock::Extends } else { NextBlock::Forks }
    }

    /// One step of the search for the last common block. `lowest` is the lowest known block of the other branch: at first the
    /// block that forks, then the header that the last [`ForkSearch::RequestHeader`] asked for. The caller must check that
    /// this header is the parent of the previous one: otherwise the node changed its branch meanwhile or invented it.
    pub fn search_fork(&self, lowest: &Header) -> ForkSearch {
        let Some(height) = lowest.height.checked_sub(1).filter(|height| *height >= self.final_height) else {
            return ForkSearch::TooDeep;
        };
        match self.find_hash(height) {
            Some(ours) if ours == lowest.parent => ForkSearch::RewindTo(BlockRef { height, hash: ours }),
            Some(_) if height > self.final_height => ForkSearch::RequestHeader(height),
            Some(_) | None => ForkSearch::TooDeep,
        }
    }

    /// Makes `block`, which extends our branch, the cursor.
    pub fn push(&mut self, block: BlockRef) {
        debug_assert_eq!(block.height, self.cursor().height + 1);
        self.recent.push_back(block);
        while self.recent.len() > self.keep_blocks {
            self.recent.pop_front();
        }
    }

    /// Removes all blocks above `to`, which becomes the cursor.
    pub fn rewind(&mut self, to: BlockRef) {
        while self.recent.len() > 1 && self.cursor().height > to.height {
            self.recent.pop_back();
        }
        debug_assert_eq!(self.cursor(), to);
    }

    /// Records that our blocks up to `height` are final. The mark never falls and never passes the cursor.
    pub fn raise_final_height(&mut self, height: Height) {
        self.final_height = self.final_height.max(height.min(self.cursor().height));
    }

    /// Returns true when the block is on our branch, false when our branch has another block at its height, and `None` when
    /// that height was not read yet or is not kept any more.
    pub fn contains(&self, block: BlockRef) -> Option<bool> {
        self.find_hash(block.height).map(|ours| ours == block.hash)
    }

    /// Our block at a height, or the kept block that is nearest to it: the oldest one for a height below all of them, the
    /// cursor for a height above it.
    pub fn nearest_block(&self, height: Height) -> BlockRef {
        let oldest = self.recent.front().expect("never empty");
        self.find_hash(height).map_or_else(
            || if height < oldest.height { *oldest } else { self.cursor() },
            |hash| BlockRef { height, hash },
        )
    }

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

    /// Block `height` of branch `branch`.
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
        Follower::new((0..=cursor).map(|h| block(0, h)), 0, 100, 10)
    }

    #[test]
    fn the_tip_decides_the_next_step() {
        let f = follower(5);
        assert_eq!(f.next_step(&tip(block(0, 5))), NextStep::Wait);
        assert_eq!(f.next_step(&tip(block(0, 6))), NextStep::ReadBlocks { from: 6, to: 6 });
        assert_eq!(f.next_step(&tip(block(0, 99))), NextStep::ReadBlocks { from: 6, to: 15 });
        assert_eq!(f.next_step(&tip(block(0, 3))), NextStep::CompareHead);
        assert_eq!(f.next_step(&tip(block(1, 5))), NextStep::CompareHead);
        assert_eq!(f.contains(block(0, 3)), Some(true));
        assert_eq!(f.contains(block(1, 3)), Some(false));
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
        assert_eq!(f.search_fork(&header(block(1, 9), block(1, 8))), ForkSearch::RequestHeader(8));
        assert_eq!(f.search_fork(&header(block(1, 8), block(0, 7))), ForkSearch::RewindTo(block(0, 7)));
        assert_eq!(f.search_fork(&header(block(1, 8), block(1, 7))), ForkSearch::TooDeep);
        assert_eq!(f.search_fork(&header(block(1, 7), block(0, 6))), ForkSearch::TooDeep);
        f.raise_final_height(50);
        assert_eq!(f.final_height(), 9, "the final mark does not pass the cursor");
    }

    #[test]
    fn only_kept_blocks_are_found() {
        let mut f = Follower::new([block(0, 0)], 0, 3, 10);
        for height in 1..=9 {
            f.push(block(0, height));
        }
        assert_eq!(f.contains(block(0, 7)), Some(true));
        assert_eq!(f.contains(block(1, 8)), Some(false));
        assert_eq!((f.contains(block(0, 6)), f.contains(block(0, 10))), (None, None));
        assert_eq!(
            (f.nearest_block(3), f.nearest_block(8), f.nearest_block(12)),
            (block(0, 7), block(0, 8), block(0, 9))
        );
    }

    proptest! {
        /// At any depth of the fork, the search ends at its last common block or with `TooDeep`.
        #[test]
        fn the_search_finds_the_last_common_block(length in 2u64..60, fork in 0u64..60, keep_blocks in 1usize..80, final_height in 0u64..60) {
            let fork = fork.min(length - 1);
            let mut f = Follower::new([block(0, 0)], 0, keep_blocks, 10);
            for h in 1..=length { f.push(block(0, h)); }
            f.raise_final_height(final_height);
            let node_block = |h: Height| if h <= fork { block(0, h) } else { block(1, h) };
            let node_header = |h: Height| header(node_block(h), node_block(h - 1));
            let oldest = length + 1 - u64::try_from(f.recent.len()).unwrap();
            let mut lowest = node_header(length + 1);
            let found = loop {
                match f.search_fork(&lowest) {
                    ForkSearch::RequestHeader(h) => lowest = node_header(h),
                    found @ (ForkSearch::RewindTo(_) | ForkSearch::TooDeep) => break found,
                }
            };
            if fork >= oldest && fork >= f.final_height() {
                prop_assert_eq!(found, ForkSearch::RewindTo(block(0, fork)));
                f.rewind(block(0, fork));
                prop_assert_eq!(f.cursor(), block(0, fork));
                prop_assert_eq!(f.classify_next_block(&node_header(fork + 1)), NextBlock::Extends);
            } else {
                prop_assert_eq!(found, ForkSearch::TooDeep);
            }
        }
    }
}
