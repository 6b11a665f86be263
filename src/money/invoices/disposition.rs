//! Dispositions: an invoice counts a deposit to its address, or there is a reason why it does not. Pure: no database,
//! no clock, no chain.

use crate::invoices::State;
use crate::ledger::Suspense;

/// The disposition of a deposit: the invoice whose address received the deposit counts it, or the reason why not. It is
/// decided when the deposit is first seen. It changes only in three cases: other deposits pay the invoice before this
/// deposit is confirmed, the invoice expires, or dust helps to complete a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The deposit counts towards the amount due.
    Counted,
    /// The invoice counted the deposit as a partial payment, but then expired unpaid.
    Short,
    /// The deposit is more than was due: the invoice was already paid.
    Surplus,
    /// The deposit was mined after the end of the payment window, and its transaction was not seen in time. Or the
    /// invoice was already expired or cancelled.
    Late,
    /// The deposit is in another asset than the invoice requests.
    Foreign,
    /// The amount of the deposit is too small to be a payment.
    Dust,
    /// The deposit was mined before the index of the address was leased, so it is older than the invoice: the address
    /// was issued before, by a database that was lost or by another installation.
    BeforeLease,
}

/// The time of a transfer's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The block was known when the index of the address was leased, so the transfer is older than the invoice.
    BeforeLease,
    /// The transfer was mined, or first seen in a mempool, before the payment window ended.
    InTime,
    /// The transfer was mined after the payment window.
    Late,
}

db::text_enum!(Disposition {
    Counted => "counted",
    Short => "short",
    Surplus => "surplus",
    Late => "late",
    Foreign => "foreign",
    Dust => "dust",
    BeforeLease => "before_lease",
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
            // Money of an earlier owner of the address is as foreign to the invoice as money in another asset.
            Disposition::Foreign | Disposition::BeforeLease => Some(Suspense::Foreign),
            Disposition::Dust => Some(Suspense::Dust),
        }
    }
}

/// Returns the use of a new deposit for an invoice in `state`. `own_asset` is true when the deposit is in the asset
/// that the invoice requests.
pub fn decide_disposition_ignoring_dust(state: State, own_asset: bool, arrival: Arrival) -> Disposition {
    if !own_asset {
        return Disposition::Foreign;
    }
    if arrival == Arrival::BeforeLease {
        return Disposition::BeforeLease;
    }
    match state {
        State::Open if arrival == Arrival::InTime => Disposition::Counted,
        // A reorg removed an earlier deposit of the invoice. The transaction of that deposit may be mined again after
        // the end of the window, so a late deposit also counts.
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
            (Open, Counted, Late),
            (Paid, Surplus, Surplus),
            (Reversed, Counted, Counted),
            (Expired, Late, Late),
            (Cancelled, Late, Late),
        ];
        for (state, in_time, late) in table {
            assert_eq!(decide_disposition_ignoring_dust(state, true, Arrival::InTime), in_time, "{state:?} in time");
            assert_eq!(decide_disposition_ignoring_dust(state, true, Arrival::Late), late, "{state:?} late");
            assert_eq!(
                decide_disposition_ignoring_dust(state, true, Arrival::BeforeLease),
                BeforeLease,
                "{state:?} before the lease"
            );
            for arrival in [Arrival::BeforeLease, Arrival::InTime, Arrival::Late] {
                assert_eq!(decide_disposition_ignoring_dust(state, false, arrival), Foreign, "{state:?} {arrival:?}");
            }
        }
    }
}
