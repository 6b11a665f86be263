//! Delivers paid orders.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::workers::{Ran, Worker};
use clock::Clock;
use db::Db;
use envelope::Envelope;
use shop::fulfilment::{self, EmailTemplates};

/// Delivers the items of paid orders.
pub struct FulfilmentWorker {
    db: Db,
    clock: Clock,
    envelope: Arc<Envelope>,
    letters: Arc<EmailTemplates>,
}

impl FulfilmentWorker {
    /// Creates the worker. `letters` are the templates of the e-mails that announce a delivery.
    pub fn new(db: Db, clock: Clock, envelope: Arc<Envelope>, letters: EmailTemplates) -> FulfilmentWorker {
        FulfilmentWorker { db, clock, envelope, letters: Arc::new(letters) }
    }
}

#[async_trait]
impl Worker for FulfilmentWorker {
    fn name(&self) -> String {
        "fulfil".into()
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        let delivered = fulfilment::deliver_due(&self.db, self.clock.now(), &self.envelope, &self.letters).await?;
        Ok(if delivered > 0 { Ran::Worked } else { Ran::Idle })
    }
}
