//! The states of a deposit. Pure: no database, no clock, no chain.

use chain::Height;

/// The state of a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The deposit is in a block and has too few confirmations. The ledger holds its amount.
    Seen,
    /// The deposit has enough confirmations for its value. The ledger has posted its amount, and its invoice may be
    /// paid.
    Confirmed,
    /// The block of the deposit is final: a reorg cannot remove it.
    Final,
    /// A reorg removed the block of the deposit. The ledger has voided or reversed its amount. When the same
    /// transaction is mined again in another block, that is a new deposit.
    Orphaned,
}

db::text_enum!(State { Seen => "seen", Confirmed => "confirmed", Final => "final", Orphaned => "orphaned" });

/// The progress of a chain, which determines the states of its deposits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The height of the last block that the follower has read.
    pub cursor: Height,
    /// The highest final height.
    pub last: Height,
}

impl Position {
    /// A position at which no deposit is confirmed.
    pub const NONE: Position = Position { cursor: 0, last: 0 };
}

/// Returns the new state of a deposit in the block at `height`. The deposit is confirmed when the cursor reaches
/// `confirm_height`. This function never returns an earlier state; only a rewind reverses deposits.
pub fn next_deposit_state(state: State, height: Height, confirm_height: Height, position: Position) -> State {
    match state {
        State::Seen | State::Confirmed if height <= position.last => State::Final,
        State::Seen if confirm_height <= position.cursor => State::Confirmed,
        State::Seen | State::Confirmed | State::Final | State::Orphaned => state,
    }
}

/// Returns the highest final height, which is never above the cursor. `mark` is the height that the node reports as
/// final; `None` when the node reports no final height. A block needs at least `least` confirmations to be final.
/// Without a mark, or when the mark stops advancing, a block is final after `depth` confirmations.
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
    fn a_deposit_advances_by_depth_and_by_finality() {
        use State::*;
        // The deposit is in block 100 and needs 12 confirmations, so block 111 confirms it.
        let at = |cursor, last| Position { cursor, last };
        let table = [
            (Seen, at(100, 50), Seen),
            (Seen, at(110, 99), Seen),
            (Seen, at(111, 99), Confirmed),
            (Seen, at(105, 100), Final),
            (Confirmed, at(105, 99), Confirmed),
            (Confirmed, at(200, 99), Confirmed),
            (Confirmed, at(200, 100), Final),
            (Final, at(50, 0), Final),
            (Orphaned, at(900, 900), Orphaned),
        ];
        for (state, position, expected) in table {
            assert_eq!(next_deposit_state(state, 100, 111, position), expected, "{state:?} at {position:?}");
        }
    }

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
