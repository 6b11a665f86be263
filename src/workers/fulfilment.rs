//! The worker that delivers paid orders.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::workers::{Ran, Worker};
use clock::Clock;
use db::Db;
use envelope::Envelope;
use shop::fulfilment::{self, EmailTemplates};

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
