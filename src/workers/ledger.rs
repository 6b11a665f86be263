<<<<<<< HEAD
//! Appends postings to the hash chain, and keeps the balance rows of accounts that may go below zero up to date.
=======
//! Ledger maintenance: appends postings to the hash chain and rolls up balances.
>>>>>>> main

use std::time::Duration;

use async_trait::async_trait;

use crate::workers::{Ran, Worker};
use db::{self, Db};
use money::ledger;

/// Maximum number of postings appended in one transaction.
const HASH_CHAIN_MAX: i64 = 2_000;
/// Maximum number of balances rolled up in one transaction.
const ROLL_UP_MAX: i64 = 200;

<<<<<<< HEAD
/// Appends new postings to the hash chain on PostgreSQL. On SQLite every transaction appends its own postings.
pub struct Seal {
    db: Db,
}

impl Seal {
    /// Creates the worker; one serves the whole daemon.
    pub fn new(db: Db) -> Seal {
        Seal { db }
=======
/// Appends postings to the hash chain. Only needed on PostgreSQL: on SQLite the posting transaction does it.
pub struct HashChainWorker {
    db: Db,
}

impl HashChainWorker {
    /// A worker on this database.
    pub fn new(db: Db) -> HashChainWorker {
        HashChainWorker { db }
>>>>>>> main
    }
}

#[async_trait]
impl Worker for HashChainWorker {
    fn name(&self) -> String {
        "ledger hash chain".into()
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn run(&self) -> anyhow::Result<Ran> {
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

<<<<<<< HEAD
/// Adds new postings to the balance rows of accounts that may go below zero. All other balance rows are always current.
pub struct Fold {
    db: Db,
}

impl Fold {
    /// Creates the worker; one serves the whole daemon.
    pub fn new(db: Db) -> Fold {
        Fold { db }
=======
/// Rolls up the balances of accounts without a balance row of their own, which no transaction waits for.
pub struct BalanceRollUpWorker {
    db: Db,
}

impl BalanceRollUpWorker {
    /// A worker on this database.
    pub fn new(db: Db) -> BalanceRollUpWorker {
        BalanceRollUpWorker { db }
>>>>>>> main
    }
}

#[async_trait]
impl Worker for BalanceRollUpWorker {
    fn name(&self) -> String {
        "ledger roll-up".into()
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        let rolled_up = self
            .db
            .write("roll_up_balances", |tx| Box::pin(async move { ledger::roll_up(tx, ROLL_UP_MAX).await }))
            .await?;
        Ok(if rolled_up > 0 { Ran::Worked } else { Ran::Idle })
    }
}
