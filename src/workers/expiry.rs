//! Expires records whose end depends only on the clock: orders whose external payment (Alipay, WeChat Pay) is overdue,
//! and idempotency keys.

use std::time::Duration;

use async_trait::async_trait;

use crate::workers::{Ran, Worker};
use access::idempotency;
use clock::Clock;
use db::Db;
use shop::orders;

/// Maximum number of idempotency keys deleted in one database transaction.
const KEYS_MAX: u32 = 1_000;

/// Expires orders whose external payment is overdue, and deletes expired idempotency keys.
pub struct ExpiryWorker {
    db: Db,
    clock: Clock,
}

impl ExpiryWorker {
    /// Creates a worker that uses this database and this clock.
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
        let expired = self.db.write("expire_overdue_external_payments", move |tx| {
            Box::pin(orders::expire_external_payments_and_orders(tx, now))
        });
        let expired = expired.await?;
        let deleted = self
            .db
            .write("delete_expired_keys", move |tx| Box::pin(idempotency::delete_expired_keys(tx, now, KEYS_MAX)));
        let worked = expired > 0 || deleted.await? > 0;
        Ok(if worked { Ran::Worked } else { Ran::Idle })
    }
}
