//! Sums of the deposits of one invoice: the sums that buyers see, and the sums from which settlements are decided.

use chain::{Amount, TxId};

use crate::unconfirmed::UnconfirmedSum;

/// The sums of the deposits that an invoice counts towards its amount due, or counted until it expired. Amounts are
/// base units of the requested asset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceivedSums {
    /// The sum of all these deposits. Orphaned deposits are left out.
    pub seen: Amount,
    /// The part of `seen` that is confirmed or final.
    pub confirmed: Amount,
    /// The smallest number of confirmations among these deposits; `None` when there are no deposits.
    pub confirmations: Option<u64>,
    /// The largest number of confirmations that one of these deposits needs; `None` when there are no deposits. It is
    /// larger than the number in the invoice when the deposits of one block together have a high value.
    pub required_confirmations: Option<u64>,
    /// The id of the newest deposit transaction; `None` when no deposit has a known transaction. Money that a balance
    /// check found has no known transaction.
    pub txid: Option<TxId>,
    /// The sum of the unconfirmed transfers to the invoice, which is not part of `seen`.
    pub unconfirmed: UnconfirmedSum,
}

impl ReceivedSums {
    /// Returns the sum of deposits and unconfirmed transfers, in base units.
    pub fn total_with_unconfirmed(&self) -> Amount {
        self.seen.checked_add(self.unconfirmed.amount).unwrap_or(Amount::MAX)
    }

    /// Returns true while some of the received money is not confirmed: it is in a deposit that is still seen, or in an
    /// unconfirmed transfer.
    pub fn has_unconfirmed_amount(&self) -> bool {
        self.seen > self.confirmed || !self.unconfirmed.amount.is_zero()
    }

    /// Returns the sums of the deposits in these rows, which must be sorted from old to new. A row without a deposit,
    /// from an outer join, adds nothing.
    ///
    /// # Errors
    /// [`db::Error::Value`] when a sum is out of range or a column is invalid.
    pub fn summarize_deposit_rows(rows: &[db::Row]) -> Result<ReceivedSums, db::Error> {
        let mut received = ReceivedSums::default();
        for row in rows {
            let Some(amount) = row.get::<Option<Amount>>("deposit_amount")? else { continue };
            received.seen = received.seen.checked_add(amount).ok_or_else(sum_out_of_range_error)?;
            if row.get::<String>("deposit_state")? != "seen" {
                received.confirmed = received.confirmed.checked_add(amount).ok_or_else(sum_out_of_range_error)?;
            }
            let needed = (row.get::<u64>("confirm_height")? + 1).saturating_sub(row.get("height")?);
            received.required_confirmations = received.required_confirmations.max(Some(needed));
            let depth = (row.get::<u64>("cursor_height")? + 1).saturating_sub(row.get("height")?);
            received.confirmations = Some(received.confirmations.map_or(depth, |least| least.min(depth)));
            // A deposit that a balance check booked has no transaction; its stored transaction id is all zeros.
            received.txid = Some(TxId(row.get("txid")?)).filter(|txid| txid.0 != [0; 32]).or(received.txid);
        }
        Ok(received)
    }
}

/// The sums of the deposits that an invoice counts, or counted until it expired, in base units of the requested asset.
#[derive(Debug, Clone, Copy)]
pub struct CountedSums {
    /// The sum of all deposits that the invoice counts, confirmed or not.
    pub seen: Amount,
    /// The sum of the counted deposits that are confirmed or final.
    pub confirmed: Amount,
    /// True when all deposits that the invoice counts are final.
    pub all_final: bool,
}

impl CountedSums {
    /// The sums of an invoice without counted deposits.
    pub const NOTHING: CountedSums = CountedSums { seen: Amount::ZERO, confirmed: Amount::ZERO, all_final: true };

    /// Adds one deposit of `amount` base units, which the invoice counts, to the sums.
    pub fn add_counted_deposit(&mut self, amount: Amount, confirmed: bool, is_final: bool) -> Result<(), db::Error> {
        self.seen = self.seen.checked_add(amount).ok_or_else(sum_out_of_range_error)?;
        if confirmed {
            self.confirmed = self.confirmed.checked_add(amount).ok_or_else(sum_out_of_range_error)?;
        }
        self.all_final &= is_final;
        Ok(())
    }
}

fn sum_out_of_range_error() -> db::Error {
    db::Error::Value { column: "amount".into(), reason: "the sum leaves the range".into() }
}
