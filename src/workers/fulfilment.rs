//! The worker that delivers paid orders.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::workers::{Ran, Worker};
use clock::{Clock, Instant};
use db::{Db, Tx};
use envelope::Envelope;
use money::effects::PaymentListener;
use money::payments::PaymentChange;
use shop::fulfilment::{self, EmailTemplates};
use tasks::Wake;

/// Delivers the items of paid orders, and retries failed deliveries when they are due.
pub struct FulfilmentWorker {
    db: Db,
    clock: Clock,
    envelope: Arc<Envelope>,
    templates: Arc<EmailTemplates>,
}

impl FulfilmentWorker {
    /// Creates a worker that decrypts stock with `envelope` and queues e-mails made of `templates`.
    pub fn new(db: Db, clock: Clock, envelope: Arc<Envelope>, templates: EmailTemplates) -> FulfilmentWorker {
        FulfilmentWorker { db, clock, envelope, templates: Arc::new(templates) }
    }
}

/// A payment listener that passes changes on to another listener. When a payment succeeds, it wakes the workers after
/// the commit, so that the order is delivered at once.
pub struct WakingPaymentListener<L> {
    listener: L,
    wake: Wake,
}

impl<L: PaymentListener> WakingPaymentListener<L> {
    /// Creates a listener that passes changes on to `listener`.
    pub fn new(listener: L, wake: Wake) -> WakingPaymentListener<L> {
        WakingPaymentListener { listener, wake }
    }
}

impl<L: PaymentListener> PaymentListener for WakingPaymentListener<L> {
    fn on_payment_changes<'a>(
        &'a self,
        tx: &'a mut Tx,
        now: Instant,
        changes: &'a [PaymentChange],
    ) -> BoxFuture<'a, Result<(), db::Error>> {
        if changes.iter().any(|change| matches!(change, PaymentChange::Paid(_))) {
            let wake = self.wake.clone();
            tx.after_commit(move || wake.wake());
        }
        self.listener.on_payment_changes(tx, now, changes)
    }
}

#[async_trait]
impl Worker for FulfilmentWorker {
    fn name(&self) -> String {
        "fulfilment".into()
    }

    fn idle_pause(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        let delivered =
            fulfilment::deliver_due_orders(&self.db, self.clock.now(), &self.envelope, &self.templates).await?;
        Ok(if delivered > 0 { Ran::Worked } else { Ran::Idle })
    }
}
