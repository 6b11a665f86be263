//! The worker that sends queued e-mails.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::workers::{Ran, Worker};
use clock::Clock;
use db::Db;
use mail::{self, Transport};

/// Sends queued e-mails that are due.
pub struct MailWorker {
    db: Db,
    clock: Clock,
    transport: Arc<Transport>,
}

impl MailWorker {
    /// Creates a worker that sends through `transport`.
    pub fn new(db: Db, clock: Clock, transport: Arc<Transport>) -> MailWorker {
        MailWorker { db, clock, transport }
    }
}

#[async_trait]
impl Worker for MailWorker {
    fn name(&self) -> String {
        "mail".into()
    }

    fn idle_pause(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        let sent = mail::deliver_due_mails(&self.db, self.clock.now(), &self.transport).await?;
        Ok(if sent > 0 { Ran::Worked } else { Ran::Idle })
    }
}
