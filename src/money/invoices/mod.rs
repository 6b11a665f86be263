//! Invoices: what an on-chain payment asks for, which is an amount of one asset, to an address of its own, by the end of a window.
//!
//! Money is in the ledger before an invoice decides anything about it.

#![deny(missing_docs)]

pub mod machine;
mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;

use chain::{Address, AddressKey, Amount, Asset, AssetId, ChainId};

use crate::addresses::ReservedAddress;
use crate::deposits::Grace;
use crate::effects::{self, Effects, PaymentChanges, Retraction, ReviewChange, ReviewRequest};
use crate::ledger::{self, Account, EntryLine, JournalEntry, PostError, Suspense};
use crate::payments::{self, PaymentChange};
use crate::pricing::{Fiat, Quote};
use crate::unconfirmed;
use clock::Instant;
use db::{self, Batch, Locked, ResultRef, Tx};
use ids::{AddressId, InvoiceId, PaymentId, Shop};
use records::reviews;

pub use machine::{Disposition, Input, State};
pub(crate) use store::Counted;
pub use store::{Received, stored_chain};

/// An invoice to store.
#[derive(Debug, Clone)]
pub struct NewInvoice {
    /// The payment that the invoice belongs to, stored in the same batch.
    pub payment: ResultRef<PaymentId>,
    /// The shop that is paid.
    pub shop: Shop,
    /// The asset that is asked for.
    pub asset: Asset,
    /// The price in fiat that the quote converts.
    pub price: Fiat,
    /// The frozen rate and the amount due.
    pub quote: Quote,
    /// How far below the quoted amount a payment may stay, in base units.
    pub tolerance: Amount,
    /// The confirmations that its deposits need; 1 is the newest block.
    pub confirmations: u32,
    /// The end of the payment window.
    pub expires_at: Instant,
}

/// A stored invoice.
#[derive(Debug, Clone)]
pub struct Invoice {
    /// The id of the invoice.
    pub id: InvoiceId,
    /// The payment that it belongs to.
    pub payment: PaymentId,
    /// The shop that is paid.
    pub shop: Shop,
    /// The chain of its address.
    pub chain: ChainId,
    /// The asset that is asked for.
    pub asset: AssetId,
    /// The id of its address.
    pub address_id: AddressId,
    /// Canonical text.
    pub address: String,
    /// The state.
    pub state: State,
    /// The amount due, in base units.
    pub due: Amount,
    /// How far below `due` a payment may stay, in base units.
    pub tolerance: Amount,
    /// The confirmations that its deposits need; 1 is the newest block.
    pub confirmations: u32,
    /// The time at which it was stored.
    pub created_at: Instant,
    /// The end of the payment window.
    pub expires_at: Instant,
    /// The number of times that it was settled; more than one after reorganisations.
    pub settlements: i64,
    /// The base units that the merchant was credited when it was last settled; `None` when it is not settled.
    pub settled: Option<Amount>,
    /// The time at which it was paid, expired or cancelled; `None` while it waits for money.
    pub closed_at: Option<Instant>,
    /// The time at which the credit became available; `None` while it is pending.
    pub released_at: Option<Instant>,
}

/// The part of an invoice that the status of an order shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceTerms {
    /// The id of the invoice.
    pub id: InvoiceId,
    /// The chain of its address.
    pub chain: ChainId,
    /// The asset that is asked for.
    pub asset: AssetId,
    /// Canonical text.
    pub address: String,
    /// The state.
    pub state: State,
    /// The amount due, in base units.
    pub due: Amount,
    /// How far below `due` a payment may stay, in base units.
    pub tolerance: Amount,
    /// The confirmations that its deposits need; 1 is the newest block.
    pub confirmations: u32,
    /// The end of the payment window.
    pub expires_at: Instant,
}

/// Adds the statements that store the invoice and its address to the batch of its payment.
pub fn request(links: &mut Batch, now: Instant, address: &ReservedAddress, new: &NewInvoice) -> ResultRef<InvoiceId> {
    let address = address.insert(links, now);
    store::insert_invoice(links, now, new, address)
}

/// Returns the invoice of a payment; `None` when the payment is not on a chain.
pub async fn find_by_payment(tx: &mut Tx, payment: PaymentId) -> Result<Option<Invoice>, db::Error> {
    store::find_by_payment(tx, payment).await
}

/// Returns the addresses that expect money: those with an unconfirmed transfer, and those of at most `limit` open and `limit`
/// reversed invoices, whose windows end first.
pub async fn list_expecting_payment(tx: &mut Tx, chain: &ChainId, limit: i64) -> Result<Vec<Address>, db::Error> {
    store::list_expecting_payment(tx, chain, limit).await
}

/// Returns the sums of the counted deposits of an invoice, with the newest transaction.
pub async fn received(tx: &mut Tx, invoice: &Invoice) -> Result<Received, db::Error> {
    store::find_received(tx, invoice.id, &invoice.chain).await
}

/// Adds the unconfirmed transfers to `received`, while the invoice is open or reversed.
pub async fn progress(tx: &mut Tx, asked: &InvoiceTerms, received: Received) -> Result<Received, db::Error> {
    match asked.state {
        State::Open | State::Reversed => {
            let expected = unconfirmed::find_pending(tx, asked.id).await?;
            // The newest transfer has no confirmations yet.
            let confirmations = received.confirmations.filter(|_| expected.txid.is_none());
            Ok(Received { confirmations, txid: expected.txid.or(received.txid), expected, ..received })
        }
        State::Paid | State::Expired | State::Cancelled => Ok(received),
    }
}

/// A locked invoice with its changes in memory. [`effects::apply`] stores them.
#[derive(Debug)]
pub(crate) struct InvoiceUpdate {
    was: State,
    invoice: Invoice,
    /// The invoice may have had deposits before this transaction.
    reached: bool,
    changed: bool,
    payment: Option<payments::State>,
}

impl Deref for InvoiceUpdate {
    type Target = Invoice;

    fn deref(&self) -> &Invoice {
        &self.invoice
    }
}

impl InvoiceUpdate {
    fn new(locked: Locked<Invoice>, reached: bool) -> InvoiceUpdate {
        InvoiceUpdate { was: locked.state, invoice: locked.into_inner(), reached, changed: false, payment: None }
    }

    pub fn is_reached(&self) -> bool {
        self.reached
    }

    /// Marks the payment as confirming: money for the invoice has arrived and is not confirmed yet.
    pub fn mark_confirming(&mut self, effects: &mut Effects) {
        self.payment = Some(payments::State::Confirming);
        effects.payments.push(PaymentChange::Confirming(self.payment_id()));
    }

    /// Applies newly confirmed counted money: the invoice is paid when `confirmed`, the sum of its counted deposits in base
    /// units, reaches the amount due. The excess goes to the surplus account. Both are pending money of the merchant until
    /// the deposits are final.
    pub fn settle(&mut self, now: Instant, confirmed: Amount, effects: &mut Effects) {
        if self.book_settlement(now, confirmed, effects) {
            effects.payments.push(PaymentChange::Paid(self.payment_id()));
        }
    }

    /// Settles an invoice anew with what is left after one of its deposits lost its block. Its payment stays paid, so that no
    /// payment change is reported.
    pub fn settle_again(&mut self, now: Instant, left: Amount, effects: &mut Effects) {
        self.book_settlement(now, left, effects);
    }

    /// Returns true when the invoice is paid by this.
    fn book_settlement(&mut self, now: Instant, confirmed: Amount, effects: &mut Effects) -> bool {
        let input = Input::Confirmed(confirmed);
        let Some(next) = machine::next(self.state, input, self.due, self.tolerance) else { return false };
        let (incoming, earned) = (Account::MerchantIncoming(self.shop.merchant), confirmed.min(self.due));
        let surplus = confirmed.saturating_sub(self.due);
        let mut lines = self.lines(incoming.clone(), Account::MerchantPending(self.shop.merchant), earned);
        if !surplus.is_zero() {
            lines.extend(self.lines(incoming, Account::Suspense(self.shop.merchant, Suspense::Surplus), surplus));
            let detail = format!("{surplus} base units of {} above what was due", self.asset);
            let request = ReviewRequest { amount: Some(surplus), ..self.review(reviews::Kind::PaymentSurplus, detail) };
            effects.reviews.push(ReviewChange::Open(request));
        }
        let invoice = &mut self.invoice;
        invoice.state = next;
        invoice.settled = Some(earned);
        invoice.settlements += 1;
        invoice.closed_at = Some(now);
        invoice.released_at = None;
        self.changed = true;
        self.payment = Some(payments::State::Success);
        let name = format!("invoice/{}/paid/{}", self.id, self.settlements);
        effects.entries.push(JournalEntry::post(self.shop.mode, name, "invoice paid", lines));
        true
    }

    /// Takes a settlement back because counted money lost its block. `left` is what remains of the confirmed sum `before`, in
    /// base units. Returns true when that is not enough to pay the invoice; otherwise the caller settles it again.
    pub fn unsettle(&mut self, before: Amount, left: Amount, effects: &mut Effects) -> bool {
        let Some(settled) = self.settled.filter(|_| self.state == State::Paid) else { return false };
        let (merchant, incoming) = (self.shop.merchant, Account::MerchantIncoming(self.shop.merchant));
        let earned_account = match self.released_at {
            Some(_) => Account::MerchantAvailable(merchant),
            None => Account::MerchantPending(merchant),
        };
        let mut lines = self.lines(earned_account, incoming.clone(), settled);
        let surplus = before.saturating_sub(settled);
        if !surplus.is_zero() {
            lines.extend(self.lines(Account::Suspense(merchant, Suspense::Surplus), incoming, surplus));
            effects.reviews.push(self.retraction(reviews::Kind::PaymentSurplus, None));
        }
        let name = format!("invoice/{}/reversed/{}", self.id, self.settlements);
        effects.entries.push(JournalEntry::post(self.shop.mode, name, "invoice reversed", lines));
        let lost = machine::next(State::Paid, Input::Lost(left), self.due, self.tolerance).is_some();
        let invoice = &mut self.invoice;
        invoice.state = State::Reversed;
        invoice.settled = None;
        invoice.closed_at = None;
        invoice.released_at = None;
        self.changed = true;
        if lost {
            effects.payments.push(PaymentChange::Reversed(self.payment_id()));
        }
        lost
    }

    /// Moves the credit of a paid invoice from pending to available. The caller has checked that all of its counted deposits
    /// are final.
    pub fn release(&mut self, now: Instant, effects: &mut Effects) {
        let earned = self.settled.filter(|_| self.state == State::Paid && self.released_at.is_none());
        let Some(earned) = earned else { return };
        let merchant = self.shop.merchant;
        let lines = self.lines(Account::MerchantPending(merchant), Account::MerchantAvailable(merchant), earned);
        let name = format!("invoice/{}/final/{}", self.id, self.settlements);
        effects.entries.push(JournalEntry::post(self.shop.mode, name, "invoice final", lines));
        self.invoice.released_at = Some(now);
        self.changed = true;
    }

    fn close(&mut self, now: Instant, to: State, payment: payments::State) {
        self.invoice.state = to;
        self.invoice.closed_at = Some(now);
        self.changed = true;
        self.payment = Some(payment);
    }

    /// The review of part payments, `arrived` base units in sum, whose invoice expired.
    fn short_review(&self, arrived: Amount) -> ReviewRequest {
        let detail = format!("{arrived} of {} base units of {} arrived", self.due, self.asset);
        self.review(reviews::Kind::PaymentShort, detail)
    }

    /// Takes back the review of an expired invoice because one of its part payments lost its block; `left` base units remain.
    pub fn lose_short(&self, left: Amount, effects: &mut Effects) {
        let replacement = (!left.is_zero()).then(|| self.short_review(left));
        effects.reviews.push(self.retraction(reviews::Kind::PaymentShort, replacement));
    }

    /// Sums of deposits may be more than one posting carries.
    fn lines(&self, debit: Account, credit: Account, amount: Amount) -> Vec<EntryLine> {
        let line =
            |amount| EntryLine { debit: debit.clone(), credit: credit.clone(), asset: self.asset.clone(), amount };
        ledger::split_into_postable(amount).map(line).collect()
    }

    fn payment_id(&self) -> PaymentId {
        self.invoice.payment
    }

    fn review(&self, kind: reviews::Kind, detail: String) -> ReviewRequest {
        ReviewRequest { kind, subject: format!("invoice/{}", self.id), detail, amount: None }
    }

    fn retraction(&self, kind: reviews::Kind, replacement: Option<ReviewRequest>) -> ReviewChange {
        let subject = format!("invoice/{}", self.id);
        ReviewChange::Retract(Retraction {
            kind,
            subject,
            note: "a block with money of the invoice vanished",
            replacement,
        })
    }
}

/// Locks invoices in the order of their ids and returns them by id.
pub(crate) async fn lock(
    tx: &mut Tx,
    ids: &BTreeSet<InvoiceId>,
) -> Result<BTreeMap<InvoiceId, InvoiceUpdate>, db::Error> {
    let locked = store::lock_invoices(tx, ids).await?;
    Ok(locked.into_iter().map(|invoice| (invoice.id, InvoiceUpdate::new(invoice, true))).collect())
}

/// Locks the invoices of addresses and returns them by address. Addresses without an invoice are left out.
pub(crate) async fn lock_by_address(
    tx: &mut Tx,
    chain: &ChainId,
    keys: &BTreeSet<AddressKey>,
) -> Result<HashMap<AddressKey, InvoiceUpdate>, db::Error> {
    let locked = store::lock_invoices_by_address(tx, chain, keys).await?;
    Ok(locked.into_iter().map(|(key, reached, invoice)| (key, InvoiceUpdate::new(invoice, reached))).collect())
}

/// Returns the sums of the counted deposits of each invoice, without the invoices that have none.
pub(crate) async fn counted(tx: &mut Tx, ids: &BTreeSet<InvoiceId>) -> Result<BTreeMap<InvoiceId, Counted>, db::Error> {
    store::list_counted(tx, ids).await
}

/// Stores changed invoices and the states of their payments.
pub(crate) async fn store_updates(tx: &mut Tx, now: Instant, updates: Vec<InvoiceUpdate>) -> Result<(), db::Error> {
    let (mut invoices, mut payments) = (Vec::new(), Vec::new());
    for update in updates {
        payments.extend(update.payment.map(|to| (update.payment_id(), to)));
        if update.changed {
            invoices.push((update.was, update.invoice));
        }
    }
    store::set_invoices(tx, now, &invoices).await?;
    payments::advance(tx, now, &payments).await
}

/// Returns at most `limit` open and `limit` reversed invoices of a chain whose windows ended before `passed`, unless a counted
/// deposit is unconfirmed or lost its block a short time ago, or an unconfirmed transfer was seen in time and is not older than
/// [`unconfirmed::HOLD_MS`].
pub async fn list_expirable(
    tx: &mut Tx,
    chain: &ChainId,
    now: Instant,
    passed: Instant,
    grace: Grace,
    limit: i64,
) -> Result<Vec<InvoiceId>, db::Error> {
    store::list_expirable(tx, chain, passed, now.plus_ms(-unconfirmed::HOLD_MS), grace, limit).await
}

/// Returns the number of invoices that wait for money on chains that are not in `followed`, by chain. Their windows never end.
pub async fn count_orphaned(tx: &mut Tx, followed: &[ChainId]) -> Result<BTreeMap<String, i64>, db::Error> {
    let mut waiting = store::count_waiting(tx).await?;
    waiting.retain(|chain, _| followed.iter().all(|id| id.as_str() != chain));
    Ok(waiting)
}

/// Ends the windows of open invoices, and the wait of reversed ones, unless counted money of them is not confirmed yet. Part
/// payments move to the short account. `unverified` says why the balances of the addresses could not be compared with the
/// deposits before; with it, each invoice that expires gets a review.
pub(crate) async fn expire(
    tx: &mut Tx,
    now: Instant,
    ids: &BTreeSet<InvoiceId>,
    unverified: Option<&str>,
) -> Result<PaymentChanges, PostError> {
    let mut effects = Effects::default();
    for (id, mut update) in lock(tx, ids).await? {
        let Some(next) = machine::next(update.state, Input::WindowEnded, update.due, update.tolerance) else {
            continue;
        };
        let received = store::find_received(tx, id, &update.chain).await?;
        if received.seen != received.confirmed {
            continue;
        }
        if !received.confirmed.is_zero() {
            let merchant = update.shop.merchant;
            let short = Account::Suspense(merchant, Suspense::Short);
            let lines = update.lines(Account::MerchantIncoming(merchant), short, received.confirmed);
            let name = format!("invoice/{id}/expired");
            effects.entries.push(JournalEntry::post(update.shop.mode, name, "invoice expired short", lines));
            store::set_uses(tx, id, Disposition::Counted, Disposition::Short).await?;
            effects.reviews.push(ReviewChange::Open(update.short_review(received.confirmed)));
        }
        if let Some(reason) = unverified {
            effects
                .reviews
                .push(ReviewChange::Open(update.review(reviews::Kind::BalanceUnverified, reason.to_owned())));
        }
        effects.payments.push(match update.was {
            State::Reversed => PaymentChange::Lost(update.payment_id()),
            State::Open | State::Paid | State::Expired | State::Cancelled => {
                PaymentChange::Expired(update.payment_id())
            }
        });
        update.close(now, next, payments::State::Expired);
        effects.invoices.push(update);
    }
    effects::apply(tx, now, effects).await
}

/// Cancels an open invoice. Returns false when it has received money, when an unconfirmed transfer exists, and when it is not
/// open. Money that arrives later is booked as late.
pub async fn withdraw(tx: &mut Tx, now: Instant, id: InvoiceId) -> Result<bool, db::Error> {
    let mut update = lock_one(tx, id).await?;
    let Some(next) = machine::next(update.state, Input::Withdrawn, update.due, update.tolerance) else {
        return Ok(false);
    };
    let expected = unconfirmed::find_pending(tx, id).await?;
    if !store::find_received(tx, id, &update.chain).await?.seen.is_zero() || !expected.amount.is_zero() {
        return Ok(false);
    }
    update.close(now, next, payments::State::Failed);
    store_updates(tx, now, vec![update]).await?;
    Ok(true)
}

async fn lock_one(tx: &mut Tx, id: InvoiceId) -> Result<InvoiceUpdate, db::Error> {
    let missing = || db::Error::Statement(format!("invoice {id} does not exist"));
    lock(tx, &BTreeSet::from([id])).await?.remove(&id).ok_or_else(missing)
}
