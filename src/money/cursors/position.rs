//! The position of a chain: the height of the last block that the follower has read, and the height of the highest
//! final block. Pure: no database, no clock, no node.

use chain::Height;

use crate::assets::FollowedChain;

/// The heights that determine which deposits of a chain are confirmed and which are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The height of the last block that the follower has read.
    pub cursor: Height,
    /// The height of the highest final block. A reorg cannot remove this block.
    pub last: Height,
}

impl Position {
    /// A position below the blocks of all deposits. At this position no deposit is confirmed or becomes final.
    pub const NONE: Position = Position { cursor: 0, last: 0 };
}

/// Returns the position of a chain whose cursor is at the height `cursor`. `mark` is the height that the node reports
/// as final; `None` when the node reports no final block, or when that block is on another branch.
pub fn compute_position(chain: &FollowedChain, cursor: Height, mark: Option<Height>) -> Position {
    Position { cursor, last: compute_final_height(cursor, mark, chain.depths.last, chain.depths.least) }
}

/// Returns the height of the highest final block, which is never above the cursor. `mark` is the height that the node
/// reports as final; `None` when the node reports none. Without a mark, a block is final after `depth` confirmations.
/// With a mark, the blocks up to the mark are final if they have at least `least` confirmations. When the mark stops
/// advancing, a block is final after `depth` + 1 confirmations.
pub fn compute_final_height(cursor: Height, mark: Option<Height>, depth: u32, least: u32) -> Height {
    let at_depth = |depth: u32| (cursor + 1).saturating_sub(u64::from(depth)).min(cursor);
    match mark {
        Some(mark) => mark.min(at_depth(least)).max(cursor.saturating_sub(u64::from(depth))),
        None => at_depth(depth),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_height_follows_the_mark_and_the_depth() {
        assert_eq!(compute_final_height(100, Some(90), 12, 0), 90);
        assert_eq!(compute_final_height(100, Some(98), 20, 15), 86, "a block needs at least 15 confirmations");
        assert_eq!(compute_final_height(100, Some(88), 12, 0), 88);
        assert_eq!(compute_final_height(100, Some(87), 12, 0), 88, "depth decides when the mark stands still");
        assert_eq!(
            compute_final_height(100, Some(190), 12, 0),
            100,
            "a mark above the cursor does not make unread blocks final"
        );
        assert_eq!(compute_final_height(100, None, 12, 0), 89);
        assert_eq!(compute_final_height(100, None, 1, 0), 100);
        assert_eq!(compute_final_height(3, None, 12, 0), 0);
    }
}
