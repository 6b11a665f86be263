//! How far a deposit is on its way. Pure: no database, no clock, no chain.

use chain::Height;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// In a block that may still vanish; held in the ledger.
    Seen,
    /// Deep enough for its value: posted in the ledger, its invoice counts it.
    Confirmed,
    /// Its block cannot vanish any more.
    Final,
    /// Its block vanished; voided or reversed in the ledger. The same transaction in another block is another deposit.
    Orphaned,
}

db::text_enum!(State { Seen => "seen", Confirmed => "confirmed", Final => "final", Orphaned => "orphaned" });

/// Where a chain stands for its deposits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub cursor: Height,
    /// Highest height that cannot vanish.
    pub last: Height,
}

impl Position {
    /// A position at which no deposit is confirmed.
    pub const NONE: Position = Position { cursor: 0, last: 0 };
}

/// The state that a deposit at `height`, confirmed by depth from `confirm_height` on, has now. Never goes back: only a
/// rewind does that, and not below the final height.
pub fn advance(state: State, height: Height, confirm_height: Height, position: Position) -> State {
    match state {
        State::Seen | State::Confirmed if height <= position.last => State::Final,
        State::Seen if confirm_height <= position.cursor => State::Confirmed,
        State::Seen | State::Confirmed | State::Final | State::Orphaned => state,
    }
}

/// The height that is final: the chain's own mark but never shallower than `least`, or `depth` below the cursor where there
/// is no mark, or one that stands still further below. Never above the cursor.
pub fn final_height(cursor: Height, mark: Option<Height>, depth: u32, least: u32) -> Height {
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
    fn every_advance() {
        use State::*;
        // A deposit in block 100 that needs 12 confirmations is confirmed by block 111.
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
            assert_eq!(advance(state, 100, 111, position), expected, "{state:?} at {position:?}");
        }
    }

    #[test]
    fn finality_by_mark_or_depth() {
        assert_eq!(final_height(100, Some(90), 12, 0), 90);
        assert_eq!(final_height(100, Some(98), 20, 15), 86, "the floor is kept");
        assert_eq!(final_height(100, Some(88), 12, 0), 88);
        assert_eq!(final_height(100, Some(87), 12, 0), 88, "a mark that stands still does not hold back for ever");
        assert_eq!(
            final_height(100, Some(190), 12, 0),
            100,
            "a mark above the cursor says nothing about unread blocks"
        );
        assert_eq!(final_height(100, None, 12, 0), 89);
        assert_eq!(final_height(100, None, 1, 0), 100);
        assert_eq!(final_height(3, None, 12, 0), 0);
    }
}
