//! Ledger maintenance: appends postings to the hash chain and rolls up balances.

use std::time::Duration;

use async_trait::async_trait;

use crate::workers::{Ran, Worker};
use db::{self, Db};
use money::ledger;

/// Maximum number of postings appended in one transaction.
const HASH_CHAIN_MAX: i64 = 2_000;
/// Maximum number of balances rolled up in one transaction.
const ROLL_UP_MAX: i64 = 200;

/// Appends postings to the hash chain. Only needed on PostgreSQL: on SQLite the posting transaction does it.
pub struct HashChainWorker {
    db: Db,
}

impl HashChainWorker {
    /// A worker on this database.
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
                Box::pin(async move { ledger::append_to_hash_chain(tx, HASH_CHAIN_MAX).await })
            })
            .await?;
        Ok(if appended > 0 { Ran::Worked } else { Ran::Idle })
    }
}

/// Rolls up the balances of accounts without a balance row of their own, which no transaction waits for.
pub struct BalanceRollUpWorker {
    db: Db,
}

impl BalanceRollUpWorker {
    /// A worker on this database.
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
