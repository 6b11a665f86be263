//! The states of an invoice and how it uses deposits. Pure: no database, no clock, no chain.

use crate::ledger::Suspense;
use chain::Amount;

/// The state of an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for money.
    Open,
    /// The sum of the confirmed deposits reached the amount due, less the tolerance.
    Paid,
    /// It was paid, and then a block with its money vanished. It waits for new money for as long as its window was.
    Reversed,
    /// The window ended without enough money. This state is final.
    Expired,
    /// The seller cancelled it before it was paid. This state is final.
    Cancelled,
}

db::text_enum!(State {
    Open => "open",
    Paid => "paid",
    Reversed => "reversed",
    Expired => "expired",
    Cancelled => "cancelled",
});

/// A fact that may change the state of an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The counted deposits that are confirmed have this sum, in base units.
    Confirmed(Amount),
    /// A counted deposit that was confirmed lost its block; the confirmed ones that are left have this sum, in base units.
    Lost(Amount),
    /// The clock and the chain have passed the window, and no deposit that came in time is unconfirmed.
    WindowEnded,
    /// The seller cancels the invoice.
    Withdrawn,
}

/// Returns the next state, or `None` when the state stays. `due` and `tolerance` are base units: a sum of at least
/// `due - tolerance` pays the invoice, but never a sum of zero.
pub fn next(state: State, input: Input, due: Amount, tolerance: Amount) -> Option<State> {
    let enough = |sum: Amount| sum >= due.saturating_sub(tolerance) && !sum.is_zero();
    match (state, input) {
        (State::Open | State::Reversed, Input::Confirmed(sum)) if enough(sum) => Some(State::Paid),
        (State::Paid, Input::Lost(sum)) if !enough(sum) => Some(State::Reversed),
        (State::Open | State::Reversed, Input::WindowEnded) => Some(State::Expired),
        (State::Open, Input::Withdrawn) => Some(State::Cancelled),
        (State::Open | State::Paid | State::Reversed | State::Expired | State::Cancelled, _) => None,
    }
}

/// How an invoice uses a deposit at its address. Decided when the deposit is first seen, and corrected only when the invoice is
/// paid by earlier money or expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Counts towards the amount due.
    Counted,
    /// Was counted, but the invoice expired unpaid.
    Short,
    /// The invoice was paid already.
    Surplus,
    /// It was mined after the window.
    Late,
    /// It is in another asset than the invoice asks for.
    Foreign,
    /// It is too small to be a payment.
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

/// Returns how an invoice in `state` uses a new deposit. `own_asset`: the deposit is in the asset that the invoice asks for.
/// `in_time`: it was mined, or seen in a mempool, before the window ended.
pub fn disposition_of(state: State, own_asset: bool, in_time: bool) -> Disposition {
    if !own_asset {
        return Disposition::Foreign;
    }
    match state {
        State::Open if in_time => Disposition::Counted,
        // A deposit that lost its block may come back in a block after the window.
        State::Reversed => Disposition::Counted,
        State::Paid => Disposition::Surplus,
        State::Open | State::Expired | State::Cancelled => Disposition::Late,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_input_leads_to_the_expected_state() {
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
        for (state, input, expected) in table {
            assert_eq!(next(state, input, due, tolerance), expected, "{state:?} {input:?}");
        }
        for state in [Expired, Cancelled] {
            for input in [Confirmed(sum(100)), Lost(sum(0)), WindowEnded, Withdrawn] {
                assert_eq!(next(state, input, due, tolerance), None, "nothing leaves {state:?}");
            }
        }
        assert_eq!(next(Open, Confirmed(Amount::ZERO), due, Amount::MAX), None, "a sum of zero never pays");
    }

    #[test]
    fn only_small_deposits_that_complete_nothing_are_dust() {
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
    fn the_disposition_follows_state_asset_and_time() {
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
            assert_eq!(disposition_of(state, true, in_time), expected, "{state:?} in time: {in_time}");
            assert_eq!(disposition_of(state, false, in_time), Foreign);
        }
    }
}
