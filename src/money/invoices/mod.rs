//! What an on-chain payment asks: so much of one asset, to an address of its own, until then.
//!
//! Money is in the ledger before an invoice decides anything about it.

pub mod machine;
mod store;

use chain::{Address, Amount, Asset, AssetId, ChainId};

use crate::clock::Instant;
use crate::db::{self, Locked, Tx};
use crate::ids::{AddressId, InvoiceId, PaymentId, Shop};
use crate::money::addresses::{Addresses, IssueError};
use crate::money::ledger::{self, Account, Leg, PostError, Suspense};
use crate::money::payments::{self, Change};
use crate::money::pricing::{Fiat, Quote};
use crate::money::sightings;

pub use machine::{Happened, State, Use};
pub use store::Received;

#[derive(Debug, Clone)]
pub struct NewInvoice {
    pub payment: PaymentId,
    pub shop: Shop,
    pub asset: Asset,
    pub price: Fiat,
    pub quote: Quote,
    /// How far below the quote still counts as paid, base units.
    pub tolerance: Amount,
    pub confirmations: u32,
    pub expires_at: Instant,
}

#[derive(Debug, Clone)]
pub struct Invoice {
    pub id: InvoiceId,
    pub payment: PaymentId,
    pub shop: Shop,
    pub chain: ChainId,
    pub asset: AssetId,
    pub address_id: AddressId,
    /// Canonical text.
    pub address: String,
    pub state: State,
    pub due: Amount,
    pub tolerance: Amount,
    pub confirmations: u32,
    pub created_at: Instant,
    pub expires_at: Instant,
    /// How often it was settled.
    pub settlements: i64,
    /// What the merchant was credited when it was last settled.
    pub settled: Option<Amount>,
    pub released_at: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Issues the address and stores what is asked, in the transaction of the payment.
pub async fn request(
    tx: &mut Tx,
    now: Instant,
    addresses: &Addresses,
    new: NewInvoice,
) -> Result<(InvoiceId, Address), RequestError> {
    let (address_id, address) = addresses.issue(tx, now, &new.asset.chain).await?;
    let id = store::insert_invoice(tx, now, &new, address_id).await?;
    Ok((id, address))
}

pub async fn find_by_payment(tx: &mut Tx, payment: PaymentId) -> Result<Option<Invoice>, db::Error> {
    store::find_by_payment(tx, payment).await
}

/// What its counted deposits add up to, with the newest of them.
pub async fn received(tx: &mut Tx, invoice: &Invoice) -> Result<Received, db::Error> {
    store::find_received(tx, invoice.id, &invoice.chain).await
}

/// The same with what is on its way, as long as it matters.
pub async fn progress(tx: &mut Tx, invoice: &Invoice) -> Result<Received, db::Error> {
    let received = received(tx, invoice).await?;
    match invoice.state {
        State::Open | State::Reversed => {
            let expected = sightings::expected(tx, invoice.id).await?;
            // The one with the fewest confirmations has none yet.
            let confirmations = received.confirmations.filter(|_| expected.txid.is_none());
            Ok(Received { confirmations, txid: expected.txid.or(received.txid), expected, ..received })
        }
        State::Paid | State::Expired | State::Cancelled => Ok(received),
    }
}

/// Applies newly confirmed counted money: the invoice is paid when the confirmed sum reaches what is due. What is above
/// goes to the surplus account; both stay a merchant's pending money until the deposits are final.
pub(in crate::money) async fn settle(tx: &mut Tx, now: Instant, id: InvoiceId) -> Result<Option<Change>, PostError> {
    let invoice = store::lock_invoice(tx, id).await?;
    let confirmed = store::find_received(tx, id, &invoice.chain).await?.confirmed;
    let Some(next) = machine::next(invoice.state, Happened::Confirmed(confirmed), invoice.due, invoice.tolerance)
    else {
        return Ok(None);
    };
    let merchant = invoice.shop.merchant;
    let earned = confirmed.min(invoice.due);
    let surplus = confirmed.saturating_sub(invoice.due);
    let mut legs = vec![leg(&invoice, Account::MerchantIncoming(merchant), Account::MerchantPending(merchant), earned)];
    if !surplus.is_zero() {
        let account = Account::Suspense(merchant, Suspense::Surplus);
        legs.push(leg(&invoice, Account::MerchantIncoming(merchant), account, surplus));
    }
    let entry = format!("invoice/{id}/paid/{}", invoice.settlements + 1);
    ledger::post(tx, now, invoice.shop.mode, &entry, "invoice paid", &legs).await?;
    if !surplus.is_zero() {
        let detail = format!("{surplus} base units of {} above what was due", invoice.asset);
        crate::reviews::open(tx, now, "payment.surplus", &format!("invoice/{id}"), &detail).await?;
    }
    store::set_settled(tx, now, &invoice, next, earned).await?;
    payments::advance(tx, now, invoice.payment, payments::State::Success).await?;
    Ok(Some(Change::Paid(invoice.payment)))
}

/// Takes a settlement back because counted money lost its block; `left` is the confirmed sum that remains.
pub(in crate::money) async fn unsettle(
    tx: &mut Tx,
    now: Instant,
    id: InvoiceId,
    before: Amount,
    left: Amount,
) -> Result<Option<Change>, PostError> {
    let invoice = store::lock_invoice(tx, id).await?;
    let Some(settled) = invoice.settled.filter(|_| invoice.state == State::Paid) else { return Ok(None) };
    let merchant = invoice.shop.merchant;
    let earned_account = match invoice.released_at {
        Some(_) => Account::MerchantAvailable(merchant),
        None => Account::MerchantPending(merchant),
    };
    let mut legs = vec![leg(&invoice, earned_account, Account::MerchantIncoming(merchant), settled)];
    let surplus = before.saturating_sub(settled);
    if !surplus.is_zero() {
        let account = Account::Suspense(merchant, Suspense::Surplus);
        legs.push(leg(&invoice, account, Account::MerchantIncoming(merchant), surplus));
    }
    let entry = format!("invoice/{id}/reversed/{}", invoice.settlements);
    ledger::post(tx, now, invoice.shop.mode, &entry, "invoice reversed", &legs).await?;
    store::set_reversed(tx, &invoice).await?;
    if machine::next(State::Paid, Happened::Lost(left), invoice.due, invoice.tolerance).is_none() {
        // Enough is left: it is settled anew with what there is.
        return Ok(None);
    }
    Ok(Some(Change::Reversed(invoice.payment)))
}

/// Moves what a paid invoice earned from pending to available once none of its counted deposits can vanish any more.
pub(in crate::money) async fn release(tx: &mut Tx, now: Instant, id: InvoiceId) -> Result<(), PostError> {
    let invoice = store::lock_invoice(tx, id).await?;
    let Some(settled) = invoice.settled.filter(|_| invoice.state == State::Paid && invoice.released_at.is_none())
    else {
        return Ok(());
    };
    if store::has_counted_not_final(tx, id).await? {
        return Ok(());
    }
    let merchant = invoice.shop.merchant;
    let legs = [leg(&invoice, Account::MerchantPending(merchant), Account::MerchantAvailable(merchant), settled)];
    let entry = format!("invoice/{id}/final/{}", invoice.settlements);
    ledger::post(tx, now, invoice.shop.mode, &entry, "invoice final", &legs).await?;
    Ok(store::set_released(tx, now, &invoice).await?)
}

/// Candidates for expiry on a chain: the window has passed on the clock, nothing counted is unconfirmed, and nothing is on
/// its way that was seen in time and is not older than [`sightings::HOLD_MS`].
pub async fn list_expirable(
    tx: &mut Tx,
    chain: &ChainId,
    now: Instant,
    passed: Instant,
    limit: i64,
) -> Result<Vec<InvoiceId>, db::Error> {
    store::list_expirable(tx, chain, passed, now.plus_ms(-sightings::HOLD_MS), limit).await
}

/// Ends the window of one invoice. Part payments move to the short account.
pub async fn expire(tx: &mut Tx, now: Instant, id: InvoiceId) -> Result<Option<Change>, PostError> {
    let invoice = store::lock_invoice(tx, id).await?;
    let Some(next) = machine::next(invoice.state, Happened::WindowEnded, invoice.due, invoice.tolerance) else {
        return Ok(None);
    };
    let received = store::find_received(tx, id, &invoice.chain).await?;
    if received.seen != received.confirmed {
        return Ok(None);
    }
    if !received.confirmed.is_zero() {
        let merchant = invoice.shop.merchant;
        let short = Account::Suspense(merchant, Suspense::Short);
        let legs = [leg(&invoice, Account::MerchantIncoming(merchant), short, received.confirmed)];
        ledger::post(tx, now, invoice.shop.mode, &format!("invoice/{id}/expired"), "invoice expired short", &legs)
            .await?;
        store::set_uses(tx, id, Use::Counted, Use::Short).await?;
        let detail = format!("{} of {} base units of {} arrived", received.confirmed, invoice.due, invoice.asset);
        crate::reviews::open(tx, now, "payment.short", &format!("invoice/{id}"), &detail).await?;
    }
    store::set_closed(tx, now, &invoice, next).await?;
    payments::advance(tx, now, invoice.payment, payments::State::Expired).await?;
    Ok(Some(Change::Expired(invoice.payment)))
}

/// Takes an open invoice back; false when money has reached it, or when it is closed. What arrives later is booked as late.
pub async fn withdraw(tx: &mut Tx, now: Instant, id: InvoiceId) -> Result<bool, db::Error> {
    let invoice = store::lock_invoice(tx, id).await?;
    let Some(next) = machine::next(invoice.state, Happened::Withdrawn, invoice.due, invoice.tolerance) else {
        return Ok(false);
    };
    if !store::find_received(tx, id, &invoice.chain).await?.seen.is_zero() {
        return Ok(false);
    }
    store::set_closed(tx, now, &invoice, next).await?;
    payments::advance(tx, now, invoice.payment, payments::State::Failed).await?;
    Ok(true)
}

pub(in crate::money) async fn lock(tx: &mut Tx, id: InvoiceId) -> Result<Locked<Invoice>, db::Error> {
    store::lock_invoice(tx, id).await
}

pub(in crate::money) fn leg(invoice: &Invoice, debit: Account, credit: Account, amount: Amount) -> Leg {
    Leg { debit, credit, asset: invoice.asset.clone(), amount }
}
