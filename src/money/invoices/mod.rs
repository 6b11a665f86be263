//! Invoices: requests for on-chain payments. An invoice asks the buyer to transfer an amount of one asset to the
//! address of this invoice before the end of a payment window.
//!
//! The ledger books the money of a deposit before the invoice counts the deposit as payment.

pub mod machine;
mod disposition;
mod invoice_update;
mod settlement;
mod expiry;
mod deposit_sums;
mod reviews;
mod store;

use std::collections::{BTreeMap, BTreeSet};

use chain::{Address, Amount, Asset, AssetId, ChainId};

use crate::addresses::ReservedAddress;
use crate::ledger::{self, PostError};
use crate::payments;
use crate::pricing::{Fiat, Quote};
use crate::unconfirmed;
use clock::Instant;
use db::{self, ResultRef, Tx};
use ids::{AddressId, InvoiceId, PaymentId, Shop};

pub use deposit_sums::ReceivedSums;
pub use disposition::{Arrival, Disposition};
pub use expiry::{count_waiting_on_unfollowed_chains, list_expirable_invoices};
pub use machine::{Input, State};
pub use store::parse_stored_chain;

pub(crate) use deposit_sums::CountedSums;
pub(crate) use disposition::decide_disposition_ignoring_dust;
pub(crate) use expiry::expire_ended_invoices;
pub(crate) use invoice_update::{
    InvoiceUpdate, lock_invoices, lock_invoices_by_address, store_changed_invoices_and_payments,
};
pub(crate) use store::list_open_native_invoices_by_expiry;

/// The data of an invoice that is not stored yet.
#[derive(Debug, Clone)]
pub struct NewInvoice {
    /// The payment that the invoice is for. The same database transaction inserts it.
    pub payment: ResultRef<PaymentId>,
    /// The shop that receives the money.
    pub shop: Shop,
    /// The requested asset.
    pub asset: Asset,
    /// The price in a fiat currency, from which the quote computes the amount due.
    pub price: Fiat,
    /// The price in US cents, rounded up; `None` when no rate is known.
    pub price_usd_cents: Option<i64>,
    /// The amount due, with the exchange rate from which it was computed.
    pub quote: Quote,
    /// The amount, in base units, that may be missing when the invoice is accepted as paid.
    pub tolerance: Amount,
    /// The number of confirmations after which a deposit is confirmed. A deposit in the newest block has 1
    /// confirmation.
    pub confirmations: u32,
    /// The end of the payment window of the invoice.
    pub expires_at: Instant,
}

/// A stored invoice.
#[derive(Debug, Clone)]
pub struct Invoice {
    /// The id of the invoice in the database.
    pub id: InvoiceId,
    /// The payment that the invoice is for.
    pub payment: PaymentId,
    /// The shop that receives the money.
    pub shop: Shop,
    /// The chain of the requested asset.
    pub chain: ChainId,
    /// The requested asset.
    pub asset: AssetId,
    /// The id of the address that the buyer pays to.
    pub address_id: AddressId,
    /// The address that the buyer pays to, in the canonical form of its chain.
    pub address: String,
    /// The current state; see [`machine::next_invoice_state`].
    pub state: State,
    /// The amount due, in base units.
    pub due: Amount,
    /// The amount, in base units, that may be missing when the invoice is accepted as paid.
    pub tolerance: Amount,
    /// The price in US cents when the invoice was created, rounded up; `None` when no rate was known.
    pub price_usd_cents: Option<i64>,
    /// The number of confirmations after which a deposit is confirmed. A deposit in the newest block has 1
    /// confirmation.
    pub confirmations: u32,
    /// The time when the invoice was stored.
    pub created_at: Instant,
    /// The end of the payment window of the invoice.
    pub expires_at: Instant,
    /// The number of times that the invoice was paid. It is more than 1 when a reorg undid a payment and the invoice
    /// was paid again.
    pub settlements: i64,
    /// The amount that the last settlement credited to the merchant, in base units; `None` unless the invoice is paid.
    /// Zero when another payment had already paid for the same order.
    pub settled: Option<Amount>,
    /// The time when the invoice was paid, expired or cancelled; `None` while it waits for money.
    pub closed_at: Option<Instant>,
    /// The time when the credited amount moved from the merchant's pending account to the available account; `None`
    /// before that.
    pub released_at: Option<Instant>,
}

impl Invoice {
    /// Returns the value of a deposit of `amount` base units of the requested asset in US cents, at the rate of the
    /// quote and rounded up; `None` when no rate was known or the value is out of range.
    pub(crate) fn value_in_usd_cents(&self, amount: Amount) -> Option<i64> {
        share_of_price_in_cents_rounded_up(self.price_usd_cents, amount, self.due)
    }
}

/// Returns the value of `amount` in US cents, rounded up: the same share of `price_usd_cents` as `amount` is of `due`,
/// the amount due. `None` when the price is unknown or the result is out of range.
pub(crate) fn share_of_price_in_cents_rounded_up(
    price_usd_cents: Option<i64>,
    amount: Amount,
    due: Amount,
) -> Option<i64> {
    let cents = u64::try_from(price_usd_cents?).ok()?;
    let (product, due) = (amount.checked_mul(cents)?.units(), due.units());
    let quotient = product.checked_div(due)?;
    let is_exact = quotient.checked_mul(due)? == product;
    i64::try_from(quotient).ok()?.checked_add(i64::from(!is_exact))
}

/// The part of an invoice that the status of an order shows to the buyer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceTerms {
    /// The id of the invoice in the database.
    pub id: InvoiceId,
    /// The chain of the requested asset.
    pub chain: ChainId,
    /// The requested asset.
    pub asset: AssetId,
    /// The address that the buyer pays to, in the canonical form of its chain.
    pub address: String,
    /// The current state; see [`machine::next_invoice_state`].
    pub state: State,
    /// The amount due, in base units.
    pub due: Amount,
    /// The amount, in base units, that may be missing when the invoice is accepted as paid.
    pub tolerance: Amount,
    /// The number of confirmations after which a deposit is confirmed. A deposit in the newest block has 1
    /// confirmation.
    pub confirmations: u32,
    /// The end of the payment window of the invoice.
    pub expires_at: Instant,
}

/// Queues the statements that insert the invoice and its address. The result refers to the id of the new invoice.
pub fn queue_invoice_and_address_insert(
    tx: &mut Tx,
    now: Instant,
    address: &ReservedAddress,
    new: &NewInvoice,
) -> ResultRef<InvoiceId> {
    let address = address.queue_address_insert(tx, now);
    store::queue_invoice_insert(tx, now, new, address)
}

/// Returns the invoice of a payment; `None` when the payment is not on-chain.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_invoice_by_payment(tx: &mut Tx, payment: PaymentId) -> Result<Option<Invoice>, db::Error> {
    store::find_invoice_by_payment(tx, payment).await
}

/// Returns the addresses of a chain to which money is expected: every address with an unconfirmed transfer, and the
/// addresses of at most `limit` open and `limit` reversed invoices. Invoices that expire earlier have priority.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_addresses_expecting_payment(
    tx: &mut Tx,
    chain: &ChainId,
    limit: i64,
) -> Result<Vec<Address>, db::Error> {
    store::list_addresses_expecting_payment(tx, chain, limit).await
}

/// Returns the sums of the deposits that an invoice counts, or counted until it expired, with their confirmations and
/// their newest transaction. Unconfirmed transfers are not included.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn summarize_counted_or_short_deposits(tx: &mut Tx, invoice: &Invoice) -> Result<ReceivedSums, db::Error> {
    store::summarize_counted_or_short_deposits(tx, invoice.id, &invoice.chain).await
}

/// Returns `received` with the unconfirmed transfers to the invoice added, when the invoice is open or reversed. For
/// all other invoices, returns `received` unchanged.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn add_unconfirmed_if_invoice_waits(
    tx: &mut Tx,
    asked: &InvoiceTerms,
    received: ReceivedSums,
) -> Result<ReceivedSums, db::Error> {
    match asked.state {
        State::Open | State::Reversed => {
            let unconfirmed = unconfirmed::sum_unbooked_unconfirmed_transfers(tx, asked.id).await?;
            // An unconfirmed transfer has 0 confirmations. While there is one, no number of confirmations is displayed.
            let confirmations = received.confirmations.filter(|_| unconfirmed.txid.is_none());
            Ok(ReceivedSums { confirmations, txid: unconfirmed.txid.or(received.txid), unconfirmed, ..received })
        }
        State::Paid | State::Expired | State::Cancelled => Ok(received),
    }
}

/// Moves the credited money of a paid invoice to the surplus account, because another payment has already paid for the
/// same order. Returns the moved amount, in base units, and its asset. Returns `None`, and changes nothing, when the
/// payment has no paid invoice with credited money, such as an external payment.
///
/// # Errors
/// [`PostError`] when the ledger refuses the entry.
pub async fn move_settlement_to_surplus(
    tx: &mut Tx,
    now: Instant,
    payment: PaymentId,
) -> Result<Option<(Amount, AssetId)>, PostError> {
    let Some(invoice) = store::find_invoice_by_payment(tx, payment).await? else { return Ok(None) };
    let mut update = invoice_update::lock_invoice_or_fail(tx, invoice.id).await?;
    let Some((entry, moved)) = update.take_credited_amount_as_surplus() else { return Ok(None) };
    ledger::book_journal_entries(tx, now, &[entry]).await?;
    let asset = update.asset.clone();
    store_changed_invoices_and_payments(tx, now, vec![update]).await?;
    Ok(Some((moved, asset)))
}

/// Returns a map from invoice id to the sums of the deposits that the invoice counts, or counted until it expired.
/// Invoices without such deposits are left out.
pub(crate) async fn sum_counted_or_short_deposits(
    tx: &mut Tx,
    ids: &BTreeSet<InvoiceId>,
) -> Result<BTreeMap<InvoiceId, CountedSums>, db::Error> {
    store::sum_counted_or_short_deposits(tx, ids).await
}

/// Cancels an open invoice, marks its payment as failed, and returns true. Returns false, and changes nothing, when the
/// invoice is not open, has received money, or has an unconfirmed transfer. Money that arrives after the cancellation
/// is booked in the suspense account for late money.
///
/// # Errors
/// Any [`db::Error`] of the database, or an error when the invoice does not exist.
pub async fn cancel_invoice_if_no_money_seen(tx: &mut Tx, now: Instant, id: InvoiceId) -> Result<bool, db::Error> {
    let mut update = invoice_update::lock_invoice_or_fail(tx, id).await?;
    let Some(next) = machine::next_invoice_state(update.state, Input::Withdrawn, update.due, update.tolerance) else {
        return Ok(false);
    };
    let unconfirmed = unconfirmed::sum_unbooked_unconfirmed_transfers(tx, id).await?;
    if !store::summarize_counted_or_short_deposits(tx, id, &update.chain).await?.seen.is_zero()
        || !unconfirmed.amount.is_zero()
    {
        return Ok(false);
    }
    update.close_invoice_and_payment(now, next, payments::State::Failed);
    store_changed_invoices_and_payments(tx, now, vec![update]).await?;
    Ok(true)
}
