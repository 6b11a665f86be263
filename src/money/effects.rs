//! Effects: the changes that decisions about invoices and deposits make in the ledger, in reviews and in payments, and
//! the one function that stores them.
//!
//! A function first collects its decisions in one [`Effects`] value: the journal entries, the reviews to open or
//! retract, the invoices that changed, and the changes of their payments. [`apply_effects`] stores them and returns the
//! payment changes as [`PaymentChanges`]. [`PaymentChanges::dispatch_to_listener`] then reports these to the
//! [`PaymentListener`] in the same transaction.
//!
//! Every public function that can change a payment is a method of [`DepositService`](crate::deposits::DepositService).
//! The service has the listener and reports the changes itself, so that no worker can forget to notify the listener.

use db::{self, Tx};
use futures_util::future::BoxFuture;
use records::reviews;

use crate::invoices::{self, InvoiceUpdate};
use crate::ledger::{self, JournalEntry, PostError};
use crate::payments::PaymentChange;
use chain::Amount;
use clock::Instant;

/// All changes that one database transaction makes to money, collected before any of them is stored.
#[derive(Debug, Default)]
#[must_use = "a decision has no effect until it is applied"]
pub(crate) struct Effects {
    /// Journal entries, booked in this order, all or none.
    pub entries: Vec<JournalEntry>,
    /// Reviews to open or to close, in this order. When a review is retracted and then opened again in the same
    /// transaction, it shows the new amounts.
    pub reviews: Vec<ReviewChange>,
    /// The locked invoices, each with its changes in memory.
    pub invoices: Vec<InvoiceUpdate>,
    /// The payment changes to report to the listener.
    pub payments: Vec<PaymentChange>,
}

/// A review to open or to close.
#[derive(Debug)]
pub(crate) enum ReviewChange {
    /// Opens a review.
    Open(ReviewRequest),
    /// Closes a review, if it is open, because its cause has ended: for example, an endpoint now shows a deposit that
    /// it did not show before.
    Resolve {
        /// The kind of the review.
        kind: reviews::Kind,
        /// The kind and the id of the object that the review is about, such as `deposit/7`.
        subject: String,
        /// The closing note.
        note: String,
    },
    /// Closes a review, if it is open, because a reorg removed its cause.
    Retract(Retraction),
}

/// A review to open for the operator.
#[derive(Debug)]
pub(crate) struct ReviewRequest {
    /// The kind of the review: the reason why the operator has to decide.
    pub kind: reviews::Kind,
    /// The text that identifies the object of the review by kind and id, such as `invoice/7`.
    pub subject: String,
    /// A sentence that explains the case to the operator.
    pub detail: String,
    /// The amount that the review is about, in base units. When the operator has already decided on this amount or a
    /// larger amount, the review is not opened again. `None` always opens the review.
    pub amount: Option<Amount>,
}

/// A review to close because a reorg removed the money that it is about.
#[derive(Debug)]
pub(crate) struct Retraction {
    /// The kind of the review: the reason why the operator had to decide.
    pub kind: reviews::Kind,
    /// The text that identifies the object of the review by kind and id, such as `invoice/7`.
    pub subject: String,
    /// The note that is stored with the closed review, so that the operator sees why it was closed.
    pub note: &'static str,
    /// The review to open instead; `None` opens no review. It is opened only if the retracted review was still open:
    /// when the operator has closed that review, no further decision is needed.
    pub replacement: Option<ReviewRequest>,
}

/// The receiver of all payment changes. The shop implements this trait to update its orders. [`PaymentChange`] lists
/// the possible changes.
pub trait PaymentListener: Send + Sync {
    /// Reacts to `changes`, in their order, in the database transaction that made them.
    ///
    /// # Errors
    /// An error rolls the transaction back, so that neither the changes nor their causes are stored.
    fn on_payment_changes<'a>(
        &'a self,
        tx: &'a mut Tx,
        now: Instant,
        changes: &'a [PaymentChange],
    ) -> BoxFuture<'a, Result<(), db::Error>>;
}

/// Payment changes that are already stored in this database transaction, but not yet reported to the listener.
#[derive(Debug)]
#[must_use = "the listener must receive these changes in the same database transaction"]
pub(crate) struct PaymentChanges(Vec<PaymentChange>);

impl PaymentChanges {
    /// Reports the changes to the listener. Does not call the listener when there are no changes.
    pub async fn dispatch_to_listener(
        self,
        tx: &mut Tx,
        now: Instant,
        listener: &dyn PaymentListener,
    ) -> Result<(), db::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        listener.on_payment_changes(tx, now, &self.0).await
    }
}

/// Stores the journal entries, the reviews and the invoices with the states of their payments, in this order. Returns
/// the payment changes, which the caller must report to the listener.
pub(crate) async fn apply_effects(tx: &mut Tx, now: Instant, effects: Effects) -> Result<PaymentChanges, PostError> {
    ledger::book_journal_entries(tx, now, &effects.entries).await?;
    for change in effects.reviews {
        match change {
            ReviewChange::Open(request) => open_review_unless_amount_decided(tx, now, request).await?,
            ReviewChange::Resolve { kind, subject, note } => {
                reviews::resolve_review_if_open(tx, now, kind, &subject, &note).await?;
            }
            ReviewChange::Retract(retraction) => retract_review_if_open_and_replace(tx, now, retraction).await?,
        }
    }
    invoices::store_changed_invoices_and_payments(tx, now, effects.invoices).await?;
    Ok(PaymentChanges(effects.payments))
}

async fn open_review_unless_amount_decided(tx: &mut Tx, now: Instant, request: ReviewRequest) -> Result<(), db::Error> {
    let ReviewRequest { kind, subject, detail, amount } = request;
    match amount {
        Some(amount) => reviews::open_review_unless_decided(tx, now, kind, &subject, &detail, amount).await,
        None => reviews::open_or_reopen_review(tx, now, kind, &subject, &detail).await,
    }
}

async fn retract_review_if_open_and_replace(
    tx: &mut Tx,
    now: Instant,
    retraction: Retraction,
) -> Result<(), db::Error> {
    let was_open =
        reviews::retract_review_if_open(tx, now, retraction.kind, &retraction.subject, retraction.note).await?;
    match retraction.replacement {
        Some(replacement) if was_open => open_review_unless_amount_decided(tx, now, replacement).await,
        Some(_) | None => Ok(()),
    }
}
