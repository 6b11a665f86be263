//! Expires what depends on the clock alone: orders whose payment on an external page is overdue, and idempotency keys.

use std::time::Duration;

use async_trait::async_trait;

use crate::workers::{Ran, Worker};
use access::idempotency;
use clock::Clock;
use db::Db;
use shop::orders;

/// Maximum number of idempotency keys deleted in one transaction.
const KEYS_MAX: u32 = 1_000;

/// Expires overdue orders with external payments, and idempotency keys.
pub struct ExpiryWorker {
    db: Db,
    clock: Clock,
}

impl ExpiryWorker {
    /// A worker on this database.
    pub fn new(db: Db, clock: Clock) -> ExpiryWorker {
        ExpiryWorker { db, clock }
    }
}

#[async_trait]
impl Worker for ExpiryWorker {
    fn name(&self) -> String {
        "expiry".into()
    }

    fn idle_pause(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        let now = self.clock.now();
        let expired =
            self.db.write("expire_external_orders", move |tx| Box::pin(orders::expire_overdue_external(tx, now)));
        let expired = expired.await?;
        let deleted =
            self.db.write("delete_expired_keys", move |tx| Box::pin(idempotency::delete_expired(tx, now, KEYS_MAX)));
        let worked = expired > 0 || deleted.await? > 0;
        Ok(if worked { Ran::Worked } else { Ran::Idle })
    }
}
