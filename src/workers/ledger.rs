//! Maintenance of the ledger: appends postings to the hash chain, and adds them to the stored balances.

use std::time::Duration;

use async_trait::async_trait;

use crate::workers::{Ran, Worker};
use db::{self, Db};
use money::ledger;

/// The maximum number of postings that one database transaction appends to the hash chain.
const HASH_CHAIN_MAX: i64 = 2_000;
/// The maximum number of balances that one database transaction updates.
const ROLL_UP_MAX: i64 = 200;

/// The worker that appends postings to the hash chain. It has work only on PostgreSQL: on SQLite, the database
/// transaction that posts also appends to the hash chain.
pub struct HashChainWorker {
    db: Db,
}

impl HashChainWorker {
    /// Creates a worker that appends the postings of this database.
    pub fn new(db: Db) -> HashChainWorker {
        HashChainWorker { db }
    }
}

#[async_trait]
impl Worker for HashChainWorker {
    fn name(&self) -> String {
        "ledger hash chain".into()
    }

    fn idle_pause(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        if self.db.backend() == db::Backend::Sqlite {
            return Ok(Ran::Idle);
        }
        let appended = self
            .db
            .write("append_to_hash_chain", |tx| {
                Box::pin(async move { ledger::append_postings_to_hash_chain(tx, HASH_CHAIN_MAX).await })
            })
            .await?;
        Ok(if appended > 0 { Ran::Worked } else { Ran::Idle })
    }
}

/// The worker that adds new postings to the stored balances of accounts that may go below zero. Nothing checks such a
/// balance before a posting, so it may be behind the postings.
pub struct BalanceRollUpWorker {
    db: Db,
}

impl BalanceRollUpWorker {
    /// Creates a worker that updates the balances of this database.
    pub fn new(db: Db) -> BalanceRollUpWorker {
        BalanceRollUpWorker { db }
    }
}

#[async_trait]
impl Worker for BalanceRollUpWorker {
    fn name(&self) -> String {
        "ledger roll-up".into()
    }

    fn idle_pause(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        let rolled_up = self
            .db
            .write("roll_up_balances", |tx| Box::pin(async move { ledger::roll_up_balances(tx, ROLL_UP_MAX).await }))
            .await?;
        Ok(if rolled_up > 0 { Ran::Worked } else { Ran::Idle })
    }
}
