//! The states of a deposit. Pure: no database, no clock, no chain.

use chain::Height;

use crate::cursors::Position;

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
    /// A reorg removed the block of the deposit, or the operator rejected it as invented. The ledger has voided or reversed its amount. When the same
    /// transaction is mined again in another block, that is a new deposit.
    Orphaned,
}

db::text_enum!(State { Seen => "seen", Confirmed => "confirmed", Final => "final", Orphaned => "orphaned" });

/// The evidence that endpoints of other providers give for a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Corroboration {
    /// No endpoint of another provider has shown or contradicted the transfer yet.
    Unchecked,
    /// An endpoint of another provider shows the transfer, or the chain needs no second source.
    Shown,
    /// An endpoint of another provider has already processed the block of the transfer, but does not show the transfer.
    Contradicted,
}

db::text_enum!(Corroboration { Unchecked => "unchecked", Shown => "shown", Contradicted => "contradicted" });

/// Returns the state of a deposit in the block at `height`, after the chain has reached `position`. The deposit is
/// confirmed when the cursor is at `confirm_height` or above, and final when its block is final. The result is never an
/// earlier state than `state`: only a rewind after a reorg undoes deposits.
pub fn next_deposit_state(state: State, height: Height, confirm_height: Height, position: Position) -> State {
    match state {
        State::Seen | State::Confirmed if height <= position.last => State::Final,
        State::Seen if confirm_height <= position.cursor => State::Confirmed,
        State::Seen | State::Confirmed | State::Final | State::Orphaned => state,
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
}
