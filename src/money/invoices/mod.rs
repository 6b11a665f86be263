//! Invoices: requests for on-chain payments. An invoice requests an amount of one asset, to an address of its own,
//! before the end of a payment window.
//!
//! The ledger books the money of a deposit before the invoice counts it.

pub mod machine;
mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;

use chain::{Address, AddressKey, Amount, Asset, AssetId, ChainId};

use crate::addresses::ReservedAddress;
use crate::deposits::{self, Grace};
use crate::effects::{self, Effects, PaymentChanges, Retraction, ReviewChange, ReviewRequest};
use crate::ledger::{self, Account, EntryLine, JournalEntry, PostError, Suspense};
use crate::payments::{self, PaymentChange};
use crate::pricing::{Fiat, Quote};
use crate::unconfirmed;
use clock::Instant;
use db::{self, Locked, ResultRef, Tx};
use ids::{AddressId, InvoiceId, PaymentId, Shop};
use records::reviews;

pub use machine::{Disposition, Input, State};
pub(crate) use store::{Counted, list_open_native_invoices};
pub use store::{Received, parse_stored_chain};

/// An invoice to store.
#[derive(Debug, Clone)]
pub struct NewInvoice {
    /// The payment that the invoice is for. The same database transaction inserts it.
    pub payment: ResultRef<PaymentId>,
    /// The shop that receives the money.
    pub shop: Shop,
    /// The requested asset.
    pub asset: Asset,
    /// The price that the quote converts.
    pub price: Fiat,
    /// The amount due and the rate behind it.
    pub quote: Quote,
    /// The shortfall that still counts as paid, in base units.
    pub tolerance: Amount,
    /// The confirmations that a deposit needs; a deposit in the tip block has 1.
    pub confirmations: u32,
    /// The end of the payment window.
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
    /// The shortfall that still counts as paid, in base units.
    pub tolerance: Amount,
    /// The confirmations that a deposit needs; a deposit in the tip block has 1.
    pub confirmations: u32,
    /// The time when the invoice was stored.
    pub created_at: Instant,
    /// The end of the payment window.
    pub expires_at: Instant,
    /// The number of times that the invoice was paid; more than 1 after reorgs.
    pub settlements: i64,
    /// The amount that the last settlement credited to the merchant, in base units; `None` unless the invoice is paid.
    pub settled: Option<Amount>,
    /// The time when the invoice was paid, expired or cancelled; `None` while it waits for money.
    pub closed_at: Option<Instant>,
    /// The time when the credited amount became available to the merchant; `None` while it is pending.
    pub released_at: Option<Instant>,
}

/// The part of an invoice that the status of an order shows.
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
    /// The shortfall that still counts as paid, in base units.
    pub tolerance: Amount,
    /// The confirmations that a deposit needs; a deposit in the tip block has 1.
    pub confirmations: u32,
    /// The end of the payment window.
    pub expires_at: Instant,
}

/// Queues the statements that insert the invoice and its address. The result contains the invoice's id.
pub fn queue_invoice_insert(
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

/// Returns the addresses of a chain that expect money: every address with an unconfirmed transfer, and those of at
/// most `limit` open and `limit` reversed invoices. Invoices with an earlier end of the window have priority.
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

/// Returns the sums of the counted deposits of an invoice, and the newest transaction.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn sum_received_deposits(tx: &mut Tx, invoice: &Invoice) -> Result<Received, db::Error> {
    store::sum_received_deposits(tx, invoice.id, &invoice.chain).await
}

/// Returns `received` with the unconfirmed transfers added. When the invoice is neither open nor reversed, returns
/// `received` unchanged.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn add_unconfirmed_payment(
    tx: &mut Tx,
    asked: &InvoiceTerms,
    received: Received,
) -> Result<Received, db::Error> {
    match asked.state {
        State::Open | State::Reversed => {
            let expected = unconfirmed::sum_pending_amount(tx, asked.id).await?;
            // With an unconfirmed transfer, the smallest number of confirmations is 0, so no number is displayed.
            let confirmations = received.confirmations.filter(|_| expected.txid.is_none());
            Ok(Received { confirmations, txid: expected.txid.or(received.txid), expected, ..received })
        }
        State::Paid | State::Expired | State::Cancelled => Ok(received),
    }
}

/// A locked invoice with changes in memory, which [`effects::apply_effects`] stores.
#[derive(Debug)]
pub(crate) struct InvoiceUpdate {
    /// The state of the invoice in the database, before the changes.
    was: State,
    invoice: Invoice,
    /// True when the invoice may have had deposits before this database transaction.
    reached: bool,
    /// True when the row of the invoice must be updated.
    changed: bool,
    /// The new state of the payment; `None` when it stays the same.
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

    /// Returns true when the invoice may have had deposits before this database transaction.
    pub fn may_have_earlier_deposits(&self) -> bool {
        self.reached
    }

    /// Marks the payment as confirming: money for the invoice has arrived and is not confirmed yet.
    pub fn mark_payment_confirming(&mut self, effects: &mut Effects) {
        self.payment = Some(payments::State::Confirming);
        effects.payments.push(PaymentChange::Confirming(self.payment_id()));
    }

    /// Marks the invoice as paid when `confirmed`, the sum of its confirmed and counted deposits in base units,
    /// reaches the amount due, less the tolerance. Books the sum, up to the amount due, as pending money of the
    /// merchant, and any excess in the surplus account.
    pub fn settle_invoice_if_paid(&mut self, now: Instant, confirmed: Amount, effects: &mut Effects) {
        if self.book_settlement(now, confirmed, effects) {
            effects.payments.push(PaymentChange::Paid(self.payment_id()));
        }
    }

    /// Settles an invoice again after a reorg removed one of its deposits. `left` is the sum of the remaining
    /// confirmed deposits, in base units. The payment stays paid, so no payment change is reported.
    pub fn settle_invoice_again(&mut self, now: Instant, left: Amount, effects: &mut Effects) {
        self.book_settlement(now, left, effects);
    }

    /// Books a settlement and returns true when `confirmed` pays the invoice.
    fn book_settlement(&mut self, now: Instant, confirmed: Amount, effects: &mut Effects) -> bool {
        let input = Input::Confirmed(confirmed);
        let Some(next) = machine::next_invoice_state(self.state, input, self.due, self.tolerance) else { return false };
        let (incoming, earned) = (Account::MerchantIncoming(self.shop.merchant), confirmed.min(self.due));
        let surplus = confirmed.saturating_sub(self.due);
        let mut lines =
            self.split_into_entry_lines(incoming.clone(), Account::MerchantPending(self.shop.merchant), earned);
        if !surplus.is_zero() {
            lines.extend(self.split_into_entry_lines(
                incoming,
                Account::Suspense(self.shop.merchant, Suspense::Surplus),
                surplus,
            ));
            let detail = format!("{surplus} base units of {} above what was due", self.asset);
            let request = ReviewRequest {
                amount: Some(surplus),
                ..self.build_invoice_review(reviews::Kind::PaymentSurplus, detail)
            };
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
        effects.entries.push(JournalEntry::new_post_entry(self.shop.mode, name, "invoice paid", lines));
        true
    }

    /// Undoes a settlement because a reorg removed a counted deposit. `before` and `left` are the sums of the
    /// confirmed deposits before and after the reorg, in base units. Returns true when `left` does not pay the
    /// invoice; otherwise the caller settles it again.
    pub fn unsettle_invoice(&mut self, before: Amount, left: Amount, effects: &mut Effects) -> bool {
        let Some(settled) = self.settled.filter(|_| self.state == State::Paid) else { return false };
        let (merchant, incoming) = (self.shop.merchant, Account::MerchantIncoming(self.shop.merchant));
        let earned_account = match self.released_at {
            Some(_) => Account::MerchantAvailable(merchant),
            None => Account::MerchantPending(merchant),
        };
        let mut lines = self.split_into_entry_lines(earned_account, incoming.clone(), settled);
        let surplus = before.saturating_sub(settled);
        if !surplus.is_zero() {
            lines.extend(self.split_into_entry_lines(
                Account::Suspense(merchant, Suspense::Surplus),
                incoming,
                surplus,
            ));
            effects.reviews.push(self.build_reorg_retraction(reviews::Kind::PaymentSurplus, None));
        }
        let name = format!("invoice/{}/reversed/{}", self.id, self.settlements);
        effects.entries.push(JournalEntry::new_post_entry(self.shop.mode, name, "invoice reversed", lines));
        let lost = machine::next_invoice_state(State::Paid, Input::Lost(left), self.due, self.tolerance).is_some();
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

    /// Moves the credited amount of a paid invoice from pending to available. The caller has checked that all counted
    /// deposits are final.
    pub fn release_credited_amount(&mut self, now: Instant, effects: &mut Effects) {
        let earned = self.settled.filter(|_| self.state == State::Paid && self.released_at.is_none());
        let Some(earned) = earned else { return };
        let merchant = self.shop.merchant;
        let lines = self.split_into_entry_lines(
            Account::MerchantPending(merchant),
            Account::MerchantAvailable(merchant),
            earned,
        );
        let name = format!("invoice/{}/final/{}", self.id, self.settlements);
        effects.entries.push(JournalEntry::new_post_entry(self.shop.mode, name, "invoice final", lines));
        self.invoice.released_at = Some(now);
        self.changed = true;
    }

    /// Moves the invoice to a closed state, and its payment to `payment`.
    fn close_invoice(&mut self, now: Instant, to: State, payment: payments::State) {
        self.invoice.state = to;
        self.invoice.closed_at = Some(now);
        self.changed = true;
        self.payment = Some(payment);
    }

    /// Returns the review for an expired invoice that received partial payments of `arrived` base units in total.
    fn build_short_payment_review(&self, arrived: Amount) -> ReviewRequest {
        let detail = format!("{arrived} of {} base units of {} arrived", self.due, self.asset);
        self.build_invoice_review(reviews::Kind::PaymentShort, detail)
    }

    /// Retracts the review of an expired invoice because a reorg removed one of its partial payments. When `left` base
    /// units remain, a review for these is opened instead.
    pub fn retract_short_payment_review(&self, left: Amount, effects: &mut Effects) {
        let replacement = (!left.is_zero()).then(|| self.build_short_payment_review(left));
        effects.reviews.push(self.build_reorg_retraction(reviews::Kind::PaymentShort, replacement));
    }

    /// Returns entry lines that move the amount: several lines when the amount exceeds the maximum of one posting.
    fn split_into_entry_lines(&self, debit: Account, credit: Account, amount: Amount) -> Vec<EntryLine> {
        let line =
            |amount| EntryLine { debit: debit.clone(), credit: credit.clone(), asset: self.asset.clone(), amount };
        ledger::split_into_postable_amounts(amount).map(line).collect()
    }

    fn payment_id(&self) -> PaymentId {
        self.invoice.payment
    }

    fn build_invoice_review(&self, kind: reviews::Kind, detail: String) -> ReviewRequest {
        ReviewRequest { kind, subject: format!("invoice/{}", self.id), detail, amount: None }
    }

    fn build_reorg_retraction(&self, kind: reviews::Kind, replacement: Option<ReviewRequest>) -> ReviewChange {
        let subject = format!("invoice/{}", self.id);
        ReviewChange::Retract(Retraction {
            kind,
            subject,
            note: "a reorg removed a block with money of the invoice",
            replacement,
        })
    }
}

/// Locks invoices in the order of their ids and returns them by id.
pub(crate) async fn lock_invoices(
    tx: &mut Tx,
    ids: &BTreeSet<InvoiceId>,
) -> Result<BTreeMap<InvoiceId, InvoiceUpdate>, db::Error> {
    let locked = store::lock_invoices(tx, ids).await?;
    Ok(locked.into_iter().map(|invoice| (invoice.id, InvoiceUpdate::new(invoice, true))).collect())
}

/// Locks the invoices of addresses and returns them by address. Addresses without an invoice are left out.
pub(crate) async fn lock_invoices_by_address(
    tx: &mut Tx,
    chain: &ChainId,
    keys: &BTreeSet<AddressKey>,
) -> Result<HashMap<AddressKey, InvoiceUpdate>, db::Error> {
    let locked = store::lock_invoices_by_address(tx, chain, keys).await?;
    Ok(locked.into_iter().map(|(key, reached, invoice)| (key, InvoiceUpdate::new(invoice, reached))).collect())
}

/// Returns the sums of counted deposits, by invoice id. Invoices without counted deposits are left out.
pub(crate) async fn sum_counted_deposits(
    tx: &mut Tx,
    ids: &BTreeSet<InvoiceId>,
) -> Result<BTreeMap<InvoiceId, Counted>, db::Error> {
    store::sum_counted_deposits(tx, ids).await
}

/// Stores the changed invoices and the new states of their payments.
pub(crate) async fn store_invoice_updates(
    tx: &mut Tx,
    now: Instant,
    updates: Vec<InvoiceUpdate>,
) -> Result<(), db::Error> {
    let (mut invoices, mut payments) = (Vec::new(), Vec::new());
    for update in updates {
        payments.extend(update.payment.map(|to| (update.payment_id(), to)));
        if update.changed {
            invoices.push((update.was, update.invoice));
        }
    }
    store::update_invoices(tx, now, &invoices).await?;
    payments::set_payment_states(tx, now, &payments).await
}

/// Returns at most `limit` open and `limit` reversed invoices of a chain whose window ended before `passed`.
///
/// An invoice is left out while one of its counted deposits is unconfirmed or was removed by a recent reorg. It is
/// also left out while it has an unconfirmed transfer that was seen in time, for at most [`unconfirmed::HOLD_MS`].
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_expirable_invoices(
    tx: &mut Tx,
    chain: &ChainId,
    now: Instant,
    passed: Instant,
    grace: Grace,
    limit: i64,
) -> Result<Vec<InvoiceId>, db::Error> {
    store::list_expirable_invoices(tx, chain, passed, now.plus_ms(-unconfirmed::HOLD_MS), grace, limit).await
}

/// Returns the number of invoices that wait for money on chains that are not in `followed`, by chain. Such invoices
/// never expire.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn count_unfollowed_invoices(tx: &mut Tx, followed: &[ChainId]) -> Result<BTreeMap<String, i64>, db::Error> {
    let mut waiting = store::count_waiting_invoices(tx).await?;
    waiting.retain(|chain, _| followed.iter().all(|id| id.as_str() != chain));
    Ok(waiting)
}

/// Expires open and reversed invoices whose window has ended, except for those with unconfirmed deposits. Partial
/// payments move to the short account. `unverified` is the reason why the balances of the addresses could not be
/// compared with the deposits; when it is given, each expired invoice gets a review.
pub(crate) async fn expire_ended_invoices(
    tx: &mut Tx,
    now: Instant,
    ids: &BTreeSet<InvoiceId>,
    unverified: Option<&str>,
) -> Result<PaymentChanges, PostError> {
    let mut effects = Effects::default();
    for (id, mut update) in lock_invoices(tx, ids).await? {
        let Some(next) = machine::next_invoice_state(update.state, Input::WindowEnded, update.due, update.tolerance)
        else {
            continue;
        };
        let received = store::sum_received_deposits(tx, id, &update.chain).await?;
        if received.seen != received.confirmed {
            continue;
        }
        if !received.confirmed.is_zero() {
            let merchant = update.shop.merchant;
            let short = Account::Suspense(merchant, Suspense::Short);
            let lines = update.split_into_entry_lines(Account::MerchantIncoming(merchant), short, received.confirmed);
            let name = format!("invoice/{id}/expired");
            effects.entries.push(JournalEntry::new_post_entry(update.shop.mode, name, "invoice expired short", lines));
            deposits::set_deposit_dispositions(tx, id, Disposition::Counted, Disposition::Short).await?;
            effects.reviews.push(ReviewChange::Open(update.build_short_payment_review(received.confirmed)));
        }
        if let Some(reason) = unverified {
            effects.reviews.push(ReviewChange::Open(
                update.build_invoice_review(reviews::Kind::BalanceUnverified, reason.to_owned()),
            ));
        }
        effects.payments.push(match update.was {
            State::Reversed => PaymentChange::Lost(update.payment_id()),
            State::Open | State::Paid | State::Expired | State::Cancelled => {
                PaymentChange::Expired(update.payment_id())
            }
        });
        update.close_invoice(now, next, payments::State::Expired);
        effects.invoices.push(update);
    }
    effects::apply_effects(tx, now, effects).await
}

/// Cancels an open invoice and returns true. Returns false when the invoice is not open, has received money, or has an
/// unconfirmed transfer. Money that arrives after the cancellation is booked as late.
///
/// # Errors
/// Any [`db::Error`] of the database, or an error when the invoice does not exist.
pub async fn cancel_unpaid_invoice(tx: &mut Tx, now: Instant, id: InvoiceId) -> Result<bool, db::Error> {
    let mut update = lock_invoice(tx, id).await?;
    let Some(next) = machine::next_invoice_state(update.state, Input::Withdrawn, update.due, update.tolerance) else {
        return Ok(false);
    };
    let expected = unconfirmed::sum_pending_amount(tx, id).await?;
    if !store::sum_received_deposits(tx, id, &update.chain).await?.seen.is_zero() || !expected.amount.is_zero() {
        return Ok(false);
    }
    update.close_invoice(now, next, payments::State::Failed);
    store_invoice_updates(tx, now, vec![update]).await?;
    Ok(true)
}

async fn lock_invoice(tx: &mut Tx, id: InvoiceId) -> Result<InvoiceUpdate, db::Error> {
    let missing = || db::Error::Statement(format!("invoice {id} does not exist"));
    lock_invoices(tx, &BTreeSet::from([id])).await?.remove(&id).ok_or_else(missing)
}
