//! The disposition of a deposit: the invoice counts the deposit, or the reason why the invoice does not. Pure.

use crate::invoices::State;
use crate::ledger::Suspense;

/// The use of a deposit by the invoice whose address received it. It is decided when the deposit is first seen. It changes
/// only when other deposits pay the invoice before this one is confirmed, or when the invoice expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The deposit counts towards the amount due.
    Counted,
    /// The invoice counted the deposit as a partial payment, but then expired unpaid.
    Short,
    /// The deposit is more than was due: the invoice was already paid.
    Surplus,
    /// The deposit was mined after the end of the payment window.
    Late,
    /// The deposit is in another asset than the invoice requests.
    Foreign,
    /// The amount of the deposit is too small to be a payment.
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
    /// Returns the reason why the money of a deposit goes to a suspense account; `None` when the invoice counts the
    /// deposit.
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

/// Returns how an invoice in `state` uses a new deposit. `own_asset` is true when the deposit is in the asset that the
/// invoice requests. `in_time` is true when the deposit was mined, or first seen in a mempool, before the window ended.
pub fn decide_disposition(state: State, own_asset: bool, in_time: bool) -> Disposition {
    if !own_asset {
        return Disposition::Foreign;
    }
    match state {
        State::Open if in_time => Disposition::Counted,
        // A reorg removed an earlier deposit of the invoice. The deposit may be mined again in a block after the end of
        // the window, so a late deposit also counts.
        State::Reversed => Disposition::Counted,
        State::Paid => Disposition::Surplus,
        State::Open | State::Expired | State::Cancelled => Disposition::Late,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
