//! Sends queued e-mails.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::workers::{Ran, Worker};
use clock::Clock;
use db::Db;
use mail::{self, Transport};

<<<<<<< HEAD
/// Sends queued e-mails when they are due.
pub struct Mail {
=======
/// Sends queued e-mails that are due.
pub struct MailWorker {
>>>>>>> main
    db: Db,
    clock: Clock,
    transport: Arc<Transport>,
}

<<<<<<< HEAD
impl Mail {
    /// Creates the worker; one serves the whole daemon.
    pub fn new(db: Db, clock: Clock, transport: Arc<Transport>) -> Mail {
        Mail { db, clock, transport }
=======
impl MailWorker {
    /// A worker that sends through `transport`.
    pub fn new(db: Db, clock: Clock, transport: Arc<Transport>) -> MailWorker {
        MailWorker { db, clock, transport }
>>>>>>> main
    }
}

#[async_trait]
impl Worker for MailWorker {
    fn name(&self) -> String {
        "mail".into()
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        let sent = mail::deliver_due(&self.db, self.clock.now(), &self.transport).await?;
        Ok(if sent > 0 { Ran::Worked } else { Ran::Idle })
    }
}
