//! Invoices that a database transaction has locked. The transaction first changes them in memory and stores them later,
//! all together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;

use chain::{AddressKey, ChainId, Height};

use crate::effects::Effects;
use crate::invoices::{Invoice, State, store};
use crate::payments::{self, PaymentChange};
use clock::Instant;
use db::{self, Locked, Tx};
use ids::{InvoiceId, PaymentId};

/// A locked invoice with changes in memory, which [`crate::effects::apply_effects`] stores.
#[derive(Debug)]
pub(crate) struct InvoiceUpdate {
    /// The state of the invoice in the database, before the changes.
    pub(super) was: State,
    pub(super) invoice: Invoice,
    /// True when the invoice may have had deposits before this database transaction.
    reached: bool,
    /// The height of the highest block that was known when the index of the address was leased; `None` when the invoice
    /// was not locked by its address. Money in blocks up to this height is older than the invoice.
    leased_height: Option<Height>,
    /// True when this transaction has undone a settlement that was surplus as a whole, because another payment had
    /// already paid for the same order.
    pub(super) was_surplus: bool,
    /// True when the row of the invoice must be updated.
    pub(super) changed: bool,
    /// The new state of the invoice's payment; `None` when it stays the same.
    pub(super) payment: Option<payments::State>,
}

impl Deref for InvoiceUpdate {
    type Target = Invoice;

    fn deref(&self) -> &Invoice {
        &self.invoice
    }
}

impl InvoiceUpdate {
    fn new(locked: Locked<Invoice>, reached: bool, leased_height: Option<Height>) -> InvoiceUpdate {
        let (was, invoice) = (locked.state, locked.into_inner());
        let (was_surplus, changed, payment) = (false, false, None);
        InvoiceUpdate { was, invoice, reached, leased_height, was_surplus, changed, payment }
    }

    /// Returns true when a block at `height` of the chain was known when the index of the invoice's address was leased.
    /// The invoice must have been locked by its address. Heights of other chains cannot be compared.
    pub fn is_older_than_lease(&self, chain: &ChainId, height: Height) -> bool {
        self.invoice.chain == *chain && self.leased_height.is_some_and(|leased| height <= leased)
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

    /// Moves the invoice to the state `to`, in which it no longer waits for money, and its payment to the state
    /// `payment`. The changes are stored later.
    pub(super) fn close_invoice_and_payment(&mut self, now: Instant, to: State, payment: payments::State) {
        self.invoice.state = to;
        self.invoice.closed_at = Some(now);
        self.changed = true;
        self.payment = Some(payment);
    }

    pub(super) fn payment_id(&self) -> PaymentId {
        self.invoice.payment
    }
}

/// Locks the invoices in the order of their ids, and returns a map from id to locked invoice. Ids that do not exist are
/// left out.
pub(crate) async fn lock_invoices(
    tx: &mut Tx,
    ids: &BTreeSet<InvoiceId>,
) -> Result<BTreeMap<InvoiceId, InvoiceUpdate>, db::Error> {
    let locked = store::lock_invoices(tx, ids).await?;
    Ok(locked.into_iter().map(|invoice| (invoice.id, InvoiceUpdate::new(invoice, true, None))).collect())
}

/// Locks the invoices of the addresses `keys` on `chain`, and returns a map from address to locked invoice. Addresses
/// without an invoice are left out.
pub(crate) async fn lock_invoices_by_address(
    tx: &mut Tx,
    chain: &ChainId,
    keys: &BTreeSet<AddressKey>,
) -> Result<HashMap<AddressKey, InvoiceUpdate>, db::Error> {
    let locked = store::lock_invoices_by_address(tx, chain, keys).await?;
    let update = |found: store::InvoiceOfAddress| {
        (found.key, InvoiceUpdate::new(found.invoice, found.has_deposits, found.leased_height))
    };
    Ok(locked.into_iter().map(update).collect())
}

pub(super) async fn lock_invoice_or_fail(tx: &mut Tx, id: InvoiceId) -> Result<InvoiceUpdate, db::Error> {
    let missing = || db::Error::Statement(format!("invoice {id} does not exist"));
    lock_invoices(tx, &BTreeSet::from([id])).await?.remove(&id).ok_or_else(missing)
}

/// Stores the invoices that have changed, and the new states of their payments.
pub(crate) async fn store_changed_invoices_and_payments(
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
    store::update_invoices_and_reversal_deadlines(tx, now, &invoices).await?;
    payments::set_payment_states_and_closing_times(tx, now, &payments).await
}
