//! The states of an invoice. Pure: no database, no clock, no chain.

use chain::Amount;

/// The state of an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The invoice waits for money from the buyer.
    Open,
    /// The sum of the confirmed deposits reached the amount due, or was short of it by at most the tolerance.
    Paid,
    /// The invoice was paid, and then a reorg removed so much money that it is no longer paid. The invoice waits until
    /// the money is mined again, at most for the length of one more payment window.
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
    /// More deposits are confirmed. The field is the sum of all confirmed deposits that the invoice counts, in base
    /// units.
    Confirmed(Amount),
    /// A reorg removed a confirmed deposit that the invoice counted. The field is the sum of the remaining deposits, in
    /// base units.
    Lost(Amount),
    /// The payment window has ended: both the clock and the block time of the chain are past its end, and every deposit
    /// that came in time is confirmed.
    WindowEnded,
    /// The shop asks to cancel the invoice.
    Withdrawn,
}

/// Returns the next state, or `None` when the state stays the same. `due` is the amount due and `tolerance` the amount
/// that may be missing, both in base units. A sum of at least `due - tolerance` pays the invoice, but a sum of zero
/// never does.
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
}
