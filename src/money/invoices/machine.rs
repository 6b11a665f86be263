//! The states of an invoice, and the ways in which it uses deposits. Pure: no database, no clock, no chain.

use crate::ledger::Suspense;
use chain::Amount;

/// The state of an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The invoice waits for money.
    Open,
    /// The sum of the confirmed deposits reached the amount due, less the tolerance.
    Paid,
    /// The invoice was paid, and then a reorg removed money. It waits for the money to be mined again, for as long as
    /// its payment window was.
    Reversed,
    /// The payment window ended without enough money. This state is final.
    Expired,
    /// The shop cancelled the invoice before it was paid. This state is final.
    Cancelled,
}

db::text_enum!(State {
    Open => "open",
    Paid => "paid",
    Reversed => "reversed",
    Expired => "expired",
    Cancelled => "cancelled",
});

/// An event that may change the state of an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// More deposits are confirmed. The field is the sum of all confirmed and counted deposits, in base units.
    Confirmed(Amount),
    /// A reorg removed a confirmed and counted deposit. The field is the sum of the remaining deposits, in base units.
    Lost(Amount),
    /// The clock and the chain have passed the end of the window, and every deposit that came in time is confirmed.
    WindowEnded,
    /// The shop cancels the invoice.
    Withdrawn,
}

/// Returns the next state, or `None` when the state stays the same. `due` and `tolerance` are base units. A sum of at
/// least `due - tolerance` pays the invoice, but a sum of zero never does.
pub fn next_invoice_state(state: State, input: Input, due: Amount, tolerance: Amount) -> Option<State> {
    let enough = |sum: Amount| sum >= due.saturating_sub(tolerance) && !sum.is_zero();
    match (state, input) {
        (State::Open | State::Reversed, Input::Confirmed(sum)) if enough(sum) => Some(State::Paid),
        (State::Paid, Input::Lost(sum)) if !enough(sum) => Some(State::Reversed),
        (State::Open | State::Reversed, Input::WindowEnded) => Some(State::Expired),
        (State::Open, Input::Withdrawn) => Some(State::Cancelled),
        (State::Open | State::Paid | State::Reversed | State::Expired | State::Cancelled, _) => None,
    }
}

/// The use of a deposit at the address of an invoice. It is decided when the deposit is first seen. It changes only
/// when other deposits pay the invoice before this one is confirmed, or when the invoice expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The deposit counts towards the amount due.
    Counted,
    /// The deposit was counted, but the invoice expired before it was paid.
    Short,
    /// The invoice was already paid.
    Surplus,
    /// The deposit was mined after the end of the payment window.
    Late,
    /// The invoice requests another asset.
    Foreign,
    /// The amount is too small to be a payment.
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
    /// Returns the reason why the money is in a suspense account; `None` for a deposit that counts.
    pub(crate) fn suspense_reason(self) -> Option<Suspense> {
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

/// Returns true when a deposit of `amount` is dust. All amounts are base units.
///
/// A deposit is dust when it is below `bound`, the dust limit of its asset, with two exceptions. First, an invoice for
/// an amount `due` at or below the limit accepts such small payments; `due` is `None` for a deposit in another asset.
/// Second, a deposit of at least `missing`, the rest that the invoice still needs, completes the payment.
pub fn is_dust_amount(amount: Amount, bound: Amount, due: Option<Amount>, missing: Amount) -> bool {
    amount < bound && due.is_none_or(|due| due > bound) && (missing.is_zero() || amount < missing)
}

/// Returns the use of a new deposit for an invoice in `state`. `own_asset` is true when the deposit is in the asset
/// that the invoice requests. `in_time` is true when the deposit was mined, or first seen in a mempool, before the
/// window ended.
pub fn decide_disposition(state: State, own_asset: bool, in_time: bool) -> Disposition {
    if !own_asset {
        return Disposition::Foreign;
    }
    match state {
        State::Open if in_time => Disposition::Counted,
        // The removed deposit may be mined again in a block after the end of the window.
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
            assert_eq!(next_invoice_state(state, input, due, tolerance), expected, "{state:?} {input:?}");
        }
        for state in [Expired, Cancelled] {
            for input in [Confirmed(sum(100)), Lost(sum(0)), WindowEnded, Withdrawn] {
                assert_eq!(next_invoice_state(state, input, due, tolerance), None, "nothing leaves {state:?}");
            }
        }
        assert_eq!(
            next_invoice_state(Open, Confirmed(Amount::ZERO), due, Amount::MAX),
            None,
            "a sum of zero never pays"
        );
    }

    #[test]
    fn only_small_deposits_that_complete_nothing_are_dust() {
        let sum = Amount::from_units;
        // Each row is: amount, bound, due, missing, expected result.
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
            let found = is_dust_amount(sum(amount), sum(bound), due.map(sum), sum(missing));
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
            assert_eq!(decide_disposition(state, true, in_time), expected, "{state:?} in time: {in_time}");
            assert_eq!(decide_disposition(state, false, in_time), Foreign);
        }
    }
}
