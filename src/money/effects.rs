//! Everything that a decision about an invoice or a deposit causes, and the one place that applies it.
//!
//! A verb first decides, and collects in one [`Effects`] value the journal entries, the reviews to open or retract, the
//! invoices that changed and the changes of their payments. [`apply`] stores them and returns the payment changes as
//! [`PaymentChanges`]. These have a single use: [`PaymentChanges::dispatch`] reports them to the [`PaymentListener`], in the
//! same transaction. Every public verb that can change a payment is a method of
//! [`DepositService`](crate::deposits::DepositService), which is built with the listener and dispatches by itself, so that no
//! worker can forget to.
//!
//! `money` knows no goods and no orders: the listener is handed in by the daemon.

#![deny(missing_docs)]

use db::{self, Tx};
use futures_util::future::BoxFuture;
use records::reviews;

use crate::invoices::{self, InvoiceUpdate};
use crate::ledger::{self, JournalEntry, PostError};
use crate::payments::PaymentChange;
use chain::Amount;
use clock::Instant;

/// Everything that one transaction decides about money, before any of it is stored.
#[derive(Debug, Default)]
#[must_use = "a decision has no effect until it is applied"]
pub(crate) struct Effects {
    /// Booked in this order, all or none.
    pub entries: Vec<JournalEntry>,
    /// Opened and retracted in this order, so that a review that is retracted and requested again shows its new figures.
    pub reviews: Vec<ReviewChange>,
    pub invoices: Vec<InvoiceUpdate>,
    pub payments: Vec<PaymentChange>,
}

#[derive(Debug)]
pub(crate) enum ReviewChange {
    Open(ReviewRequest),
    Retract(Retraction),
}

/// A review to open for the operator.
#[derive(Debug)]
pub(crate) struct ReviewRequest {
    pub kind: reviews::Kind,
    pub subject: String,
    pub detail: String,
    /// The amount in question, in base units. With an amount, the review is not opened again after the operator decided on
    /// this amount or a larger one.
    pub amount: Option<Amount>,
}

/// A review to close because the money that it was about vanished with its block.
#[derive(Debug)]
pub(crate) struct Retraction {
    pub kind: reviews::Kind,
    pub subject: String,
    pub note: &'static str,
    /// A review to open instead, unless the operator had closed the retracted one already.
    pub replacement: Option<ReviewRequest>,
}

/// Learns of payments whose state changed. The shop implements it; [`crate::payments`] says which changes there are.
pub trait PaymentListener: Send + Sync {
    /// Acts on `changes`, in their order, in the transaction that made them.
    ///
    /// # Errors
    ///
    /// An error ends the transaction, so that neither the changes nor what caused them is stored.
    fn on_payment_changes<'a>(
        &'a self,
        tx: &'a mut Tx,
        now: Instant,
        changes: &'a [PaymentChange],
    ) -> BoxFuture<'a, Result<(), db::Error>>;
}

/// Payment changes that are stored and not reported yet.
#[derive(Debug)]
#[must_use = "the listener has to learn of these changes in the same transaction"]
pub(crate) struct PaymentChanges(Vec<PaymentChange>);

impl PaymentChanges {
    /// Reports the changes to the listener.
    pub async fn dispatch(self, tx: &mut Tx, now: Instant, listener: &dyn PaymentListener) -> Result<(), db::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        listener.on_payment_changes(tx, now, &self.0).await
    }
}

/// Stores the effects: first the money in the ledger, then the reviews, the invoices and their payments.
pub(crate) async fn apply(tx: &mut Tx, now: Instant, effects: Effects) -> Result<PaymentChanges, PostError> {
    ledger::book(tx, now, &effects.entries).await?;
    for change in effects.reviews {
        match change {
            ReviewChange::Open(request) => open(tx, now, request).await?,
            ReviewChange::Retract(retraction) => retract(tx, now, retraction).await?,
        }
    }
    invoices::store_updates(tx, now, effects.invoices).await?;
    Ok(PaymentChanges(effects.payments))
}

async fn open(tx: &mut Tx, now: Instant, request: ReviewRequest) -> Result<(), db::Error> {
    let ReviewRequest { kind, subject, detail, amount } = request;
    match amount {
        Some(amount) => reviews::open_for_amount(tx, now, kind, &subject, &detail, amount).await,
        None => reviews::open(tx, now, kind, &subject, &detail).await,
    }
}

async fn retract(tx: &mut Tx, now: Instant, retraction: Retraction) -> Result<(), db::Error> {
    let was_open = reviews::retract(tx, now, retraction.kind, &retraction.subject, retraction.note).await?;
    match retraction.replacement {
        Some(replacement) if was_open => open(tx, now, replacement).await,
        Some(_) | None => Ok(()),
    }
}
