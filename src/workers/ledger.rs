//! Appends postings to the hash chain, and keeps the balance rows of accounts that may go below zero up to date.

use std::time::Duration;

use async_trait::async_trait;

use crate::workers::{Ran, Worker};
use db::{self, Db};
use money::ledger;

const SEAL_MAX: i64 = 2_000;
const FOLD_MAX: i64 = 200;

/// Appends new postings to the hash chain on PostgreSQL. On SQLite every transaction appends its own postings.
pub struct Seal {
    db: Db,
}

impl Seal {
    /// Creates the worker; one serves the whole daemon.
    pub fn new(db: Db) -> Seal {
        Seal { db }
    }
}

#[async_trait]
impl Worker for Seal {
    fn name(&self) -> String {
        "seal".into()
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        if self.db.backend() == db::Backend::Sqlite {
            return Ok(Ran::Idle);
        }
        let sealed = self
            .db
            .write("seal", |tx| Box::pin(async move { ledger::append_to_hash_chain(tx, SEAL_MAX).await }))
            .await?;
        Ok(if sealed > 0 { Ran::Worked } else { Ran::Idle })
    }
}

/// Adds new postings to the balance rows of accounts that may go below zero. All other balance rows are always current.
pub struct Fold {
    db: Db,
}

impl Fold {
    /// Creates the worker; one serves the whole daemon.
    pub fn new(db: Db) -> Fold {
        Fold { db }
    }
}

#[async_trait]
impl Worker for Fold {
    fn name(&self) -> String {
        "fold".into()
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        let folded = self.db.write("fold", |tx| Box::pin(async move { ledger::roll_up(tx, FOLD_MAX).await })).await?;
        Ok(if folded > 0 { Ran::Worked } else { Ran::Idle })
    }
}
