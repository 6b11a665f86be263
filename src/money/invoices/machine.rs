//! What an invoice becomes. Pure: no database, no clock, no chain.

use crate::ledger::Suspense;
use chain::Amount;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for money.
    Open,
    /// The confirmed sum reached what was asked.
    Paid,
    /// It was paid, and then a block with its money vanished. Money that comes again settles it again, for as long as its
    /// window was.
    Reversed,
    /// The window ended without enough money. Nothing leads from here.
    Expired,
    /// Taken back before payment. Nothing leads from here.
    Cancelled,
}

db::text_enum!(State {
    Open => "open",
    Paid => "paid",
    Reversed => "reversed",
    Expired => "expired",
    Cancelled => "cancelled",
});

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Counted deposits are confirmed with this sum.
    Confirmed(Amount),
    /// A confirmed deposit that was counted lost its block; this sum is left.
    Lost(Amount),
    /// Clock and chain time have passed the window and nothing in time is unconfirmed.
    WindowEnded,
    /// The seller takes it back.
    Withdrawn,
}

/// The next state, or `None` when nothing changes.
pub fn next(state: State, happened: Input, due: Amount, tolerance: Amount) -> Option<State> {
    let enough = |sum: Amount| sum >= due.saturating_sub(tolerance) && !sum.is_zero();
    match (state, happened) {
        (State::Open | State::Reversed, Input::Confirmed(sum)) if enough(sum) => Some(State::Paid),
        (State::Paid, Input::Lost(sum)) if !enough(sum) => Some(State::Reversed),
        (State::Open | State::Reversed, Input::WindowEnded) => Some(State::Expired),
        (State::Open, Input::Withdrawn) => Some(State::Cancelled),
        (State::Open | State::Paid | State::Reversed | State::Expired | State::Cancelled, _) => None,
    }
}

/// How a deposit of the invoice's own asset is used, effects when it is first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    Counted,
    /// It was counted, but the invoice expired unpaid.
    Short,
    /// The invoice was paid already.
    Surplus,
    /// It was mined after the window.
    Late,
    /// Another asset than was asked.
    Foreign,
    /// Too little to be anybody's payment.
    Dust,
}

db::text_enum!(Disposition {
    Counted => "counted",
    Short => "short",
    Surplus => "surplus",
    Late => "late",
    Foreign => "foreign",
    Dust => "dust",
});

impl Disposition {
    /// Returns the suspense account of a deposit with this disposition; `None` for one that counts.
    pub(crate) fn suspense(self) -> Option<Suspense> {
        match self {
            Disposition::Counted => None,
            Disposition::Short => Some(Suspense::Short),
            Disposition::Surplus => Some(Suspense::Surplus),
            Disposition::Late => Some(Suspense::Late),
            Disposition::Foreign => Some(Suspense::Foreign),
            Disposition::Dust => Some(Suspense::Dust),
        }
    }
}

/// Whether what would be used in another way is dust: below the bound of its asset. In the invoice's own asset only where
/// that asks for more than dust (`due`; `None` for another asset), and not when it is what was `missing`.
pub fn is_dust(amount: Amount, bound: Amount, due: Option<Amount>, missing: Amount) -> bool {
    amount < bound && due.is_none_or(|due| due > bound) && (missing.is_zero() || amount < missing)
}

/// Where a deposit belongs that reaches an invoice in `state`, in its asset or not, in time or not.
pub fn use_of(state: State, own_asset: bool, in_time: bool) -> Disposition {
    if !own_asset {
        return Disposition::Foreign;
    }
    match state {
        State::Open if in_time => Disposition::Counted,
        // What vanished may come back in a later block than it was in.
        State::Reversed => Disposition::Counted,
        State::Paid => Disposition::Surplus,
        State::Open | State::Expired | State::Cancelled => Disposition::Late,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition() {
        let due = Amount::from_units(100);
        let tolerance = Amount::from_units(5);
        let sum = Amount::from_units;
        use {Input::*, State::*};
        let table = [
            (Open, Confirmed(sum(94)), None),
            (Open, Confirmed(sum(95)), Some(Paid)),
            (Open, Confirmed(sum(100)), Some(Paid)),
            (Open, Confirmed(sum(1_000)), Some(Paid)),
            (Open, Lost(sum(0)), None),
            (Open, WindowEnded, Some(Expired)),
            (Open, Withdrawn, Some(Cancelled)),
            (Paid, Confirmed(sum(200)), None),
            (Paid, Lost(sum(0)), Some(Reversed)),
            (Paid, Lost(sum(99)), None),
            (Paid, WindowEnded, None),
            (Paid, Withdrawn, None),
            (Reversed, Confirmed(sum(50)), None),
            (Reversed, Confirmed(sum(100)), Some(Paid)),
            (Reversed, Lost(sum(0)), None),
            (Reversed, WindowEnded, Some(Expired)),
            (Reversed, Withdrawn, None),
        ];
        for (state, happened, expected) in table {
            assert_eq!(next(state, happened, due, tolerance), expected, "{state:?} {happened:?}");
        }
        for state in [Expired, Cancelled] {
            for happened in [Confirmed(sum(100)), Lost(sum(0)), WindowEnded, Withdrawn] {
                assert_eq!(next(state, happened, due, tolerance), None, "nothing leaves {state:?}");
            }
        }
        assert_eq!(next(Open, Confirmed(Amount::ZERO), due, Amount::MAX), None, "nothing is never enough");
    }

    #[test]
    fn what_is_dust() {
        let sum = Amount::from_units;
        // Amount, bound, due, missing.
        let table = [
            (9, 10, Some(100), 100, true),
            (10, 10, Some(100), 100, false),
            (9, 10, Some(100), 9, false),
            (8, 10, Some(100), 9, true),
            (9, 10, Some(100), 0, true),
            (9, 10, Some(10), 10, false),
            (1, 10, Some(11), 11, true),
            (9, 10, None, 0, true),
            (10, 10, None, 0, false),
            (1, 0, None, 0, false),
        ];
        for (amount, bound, due, missing, expected) in table {
            let found = is_dust(sum(amount), sum(bound), due.map(sum), sum(missing));
            assert_eq!(found, expected, "{amount} below {bound}, due {due:?}, missing {missing}");
        }
    }

    #[test]
    fn every_use() {
        use {Disposition::*, State::*};
        let table = [
            (Open, true, Counted),
            (Open, false, Late),
            (Paid, true, Surplus),
            (Paid, false, Surplus),
            (Reversed, true, Counted),
            (Reversed, false, Counted),
            (Expired, true, Late),
            (Expired, false, Late),
            (Cancelled, true, Late),
            (Cancelled, false, Late),
        ];
        for (state, in_time, expected) in table {
            assert_eq!(use_of(state, true, in_time), expected, "{state:?} in time: {in_time}");
            assert_eq!(use_of(state, false, in_time), Foreign);
        }
    }
}
