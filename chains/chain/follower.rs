//! Decides how to follow a chain: extend, rewind or wait. Pure; the caller does what it says and tells it the outcome.
//!
//! The cursor moves only over blocks whose parent is the cursor, and back only to a block that the node still has. A block
//! below the final mark is never left: that stops the chain for a person to look at.

use std::collections::VecDeque;

use crate::{BlockHash, BlockRef, Header, Height, Tip};

/// Our recent chain, oldest first; the last entry is the cursor.
#[derive(Debug, Clone)]
pub struct Follower {
    recent: VecDeque<BlockRef>,
    /// Highest height that may not be rewound.
    final_height: Height,
    /// Entries kept: the deepest reorganisation that can be followed.
    keep: usize,
    /// Most blocks asked for at once.
    batch: u64,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing new, or the node is behind us and agrees or cannot tell.
    Wait,
    /// Read these blocks and offer them to [`Follower::check_next`].
    ReadBlocks { from: Height, to: Height },
    /// The node's head is at or below the cursor and is not the cursor: look it up with [`Follower::contains`].
    CompareHead,
}

/// Whether a read block follows the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextBlock {
    Extends,
    /// Its parent is not our cursor: search the fork from [`Follower::search_fork`].
    Forks,
    /// Not the height after the cursor: the answer is of no use.
    WrongHeight,
}

/// One step of the way back to the last common block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkSearch {
    /// Ask the node for its block at this height, the parent of the lowest that is known of its branch.
    RequestHeader(Height),
    /// The last block that both have: rewind to it.
    RewindTo(BlockRef),
    /// No common block above the final mark or within what is kept.
    TooDeep,
}

impl Follower {
    /// `recent` is what is stored, ascending and gap-free, at least one block.
    pub fn new(recent: impl IntoIterator<Item = BlockRef>, final_height: Height, keep: usize, batch: u64) -> Follower {
        let recent: VecDeque<BlockRef> = recent.into_iter().collect();
        assert!(!recent.is_empty(), "a follower starts from a stored block");
        Follower { recent, final_height, keep: keep.max(1), batch: batch.max(1) }
    }

    pub fn cursor(&self) -> BlockRef {
        *self.recent.back().expect("never empty")
    }

    pub fn final_height(&self) -> Height {
        self.final_height
    }

    pub fn next_step(&self, tip: &Tip) -> NextStep {
        let cursor = self.cursor();
        if tip.head.height > cursor.height {
            let to = tip.head.height.min(cursor.height.saturating_add(self.batch));
            return NextStep::ReadBlocks { from: cursor.height + 1, to };
        }
        if tip.head.block_ref() == cursor {
            return NextStep::Wait;
        }
        NextStep::CompareHead
    }

    pub fn check_next(&self, header: &Header) -> NextBlock {
        let cursor = self.cursor();
        if header.height != cursor.height + 1 {
            return NextBlock::WrongHeight;
        }
        if header.parent == cursor.hash { NextBlock::Extends } else { NextBlock::Forks }
    }

    /// Walks back for the last common block. `lowest` is the lowest block that is known of the other branch: at first the one
    /// that forks, then the answer to [`ForkSearch::RequestHeader`]. That must be the parent of the one before: a branch that does not hang
    /// together is made up, and where blocks are proven by work each of its blocks has cost some.
    pub fn search_fork(&self, lowest: &Header) -> ForkSearch {
        let Some(height) = lowest.height.checked_sub(1).filter(|height| *height >= self.final_height) else {
            return ForkSearch::TooDeep;
        };
        match self.hash_at(height) {
            Some(ours) if ours == lowest.parent => ForkSearch::RewindTo(BlockRef { height, hash: ours }),
            Some(_) if height > self.final_height => ForkSearch::RequestHeader(height),
            Some(_) | None => ForkSearch::TooDeep,
        }
    }

    /// The block was applied and stored.
    pub fn push(&mut self, block: BlockRef) {
        debug_assert_eq!(block.height, self.cursor().height + 1);
        self.recent.push_back(block);
        while self.recent.len() > self.keep {
            self.recent.pop_front();
        }
    }

    /// Everything above `to` was reversed and the cursor stored.
    pub fn rewind(&mut self, to: BlockRef) {
        while self.recent.len() > 1 && self.cursor().height > to.height {
            self.recent.pop_back();
        }
        debug_assert_eq!(self.cursor(), to);
    }

    /// Blocks up to `height` are final. Never goes back, never passes the cursor.
    pub fn raise_final_height(&mut self, height: Height) {
        self.final_height = self.final_height.max(height.min(self.cursor().height));
    }

    /// Whether a block is on our branch; `None` where that is not read yet, or not remembered any more.
    pub fn contains(&self, block: BlockRef) -> Option<bool> {
        self.hash_at(block.height).map(|ours| ours == block.hash)
    }

    /// Our block at a height, or the nearest to it that is remembered. Who has one has all that are below it.
    pub fn nearest_block(&self, height: Height) -> BlockRef {
        let oldest = self.recent.front().expect("never empty");
        self.hash_at(height).map_or_else(
            || if height < oldest.height { *oldest } else { self.cursor() },
            |hash| BlockRef { height, hash },
        )
    }

    fn hash_at(&self, height: Height) -> Option<BlockHash> {
        let oldest = self.recent.front().expect("never empty").height;
        let index = usize::try_from(height.checked_sub(oldest)?).ok()?;
        self.recent.get(index).map(|block| block.hash)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Block `height` of branch `branch`; branches share what lies below their fork.
    fn block(branch: u8, height: Height) -> BlockRef {
        let mut hash = [branch; 32];
        hash[..8].copy_from_slice(&height.to_be_bytes());
        BlockRef { height, hash: BlockHash(hash) }
    }

    fn header(of: BlockRef, parent: BlockRef) -> Header {
        Header { height: of.height, hash: of.hash, parent: parent.hash, time: 0 }
    }

    fn tip(of: BlockRef) -> Tip {
        Tip { head: header(of, of), finalized: None }
    }

    fn follower(to: Height) -> Follower {
        Follower::new((0..=to).map(|h| block(0, h)), 0, 100, 10)
    }

    #[test]
    fn steps() {
        let f = follower(5);
        assert_eq!(f.next_step(&tip(block(0, 5))), NextStep::Wait);
        assert_eq!(f.next_step(&tip(block(0, 6))), NextStep::ReadBlocks { from: 6, to: 6 });
        assert_eq!(f.next_step(&tip(block(0, 99))), NextStep::ReadBlocks { from: 6, to: 15 });
        assert_eq!(f.next_step(&tip(block(0, 3))), NextStep::CompareHead);
        assert_eq!(f.next_step(&tip(block(1, 5))), NextStep::CompareHead);
        assert_eq!(f.contains(block(0, 3)), Some(true));
        assert_eq!(f.contains(block(1, 3)), Some(false));
        assert_eq!(f.check_next(&header(block(0, 6), block(0, 5))), NextBlock::Extends);
        assert_eq!(f.check_next(&header(block(1, 6), block(1, 5))), NextBlock::Forks);
        assert_eq!(f.check_next(&header(block(0, 7), block(0, 6))), NextBlock::WrongHeight);
    }

    #[test]
    fn final_blocks_are_never_left() {
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
    fn what_is_remembered_of_our_branch() {
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
        /// Whatever the fork's depth, the search ends at the true fork point, or says that it is too deep.
        #[test]
        fn the_search_finds_the_fork(length in 2u64..60, fork in 0u64..60, keep in 1usize..80, final_height in 0u64..60) {
            let fork = fork.min(length - 1);
            let mut f = Follower::new([block(0, 0)], 0, keep, 10);
            for h in 1..=length { f.push(block(0, h)); }
            f.raise_final_height(final_height);
            let node = |h: Height| if h <= fork { block(0, h) } else { block(1, h) };
            let shown = |h: Height| header(node(h), node(h - 1));
            let oldest = length + 1 - u64::try_from(f.recent.len()).unwrap();
            let mut lowest = shown(length + 1);
            let found = loop {
                match f.search_fork(&lowest) {
                    ForkSearch::RequestHeader(h) => lowest = shown(h),
                    found @ (ForkSearch::RewindTo(_) | ForkSearch::TooDeep) => break found,
                }
            };
            if fork >= oldest && fork >= f.final_height() {
                prop_assert_eq!(found, ForkSearch::RewindTo(block(0, fork)));
                f.rewind(block(0, fork));
                prop_assert_eq!(f.cursor(), block(0, fork));
                prop_assert_eq!(f.check_next(&shown(fork + 1)), NextBlock::Extends);
            } else {
                prop_assert_eq!(found, ForkSearch::TooDeep);
            }
        }
    }
}
