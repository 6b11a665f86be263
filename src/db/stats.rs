//! The counts of statements, commits and transactions, and the cache that transactions share.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Exact counts since the database was opened. They never decrease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Statements that transactions ran, without those that begin and end a transaction.
    pub sql_statements: u64,
    /// Durable commits that changed rows. A group of transactions that SQLite commits together counts once.
    pub commits: u64,
    /// Transactions that ran, including those that only read and those that were rolled back.
    pub transactions: u64,
}

/// The counters and the cache that the transactions of a database share.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) statements: AtomicU64,
    commits: AtomicU64,
    transactions: AtomicU64,
    /// The shared values of [`Tx::shared_cache`](crate::Tx::shared_cache): one value of each type.
    pub(super) cache: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Stats {
    /// Increments the number of durable commits. Call this function only for a commit that changed rows.
    pub fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Increments the number of transactions that ran, also for one that failed.
    pub fn count_transaction(&self) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the current numbers of statements, commits and transactions.
    pub fn counters(&self) -> Counters {
        Counters {
            sql_statements: self.statements.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            transactions: self.transactions.load(Ordering::Relaxed),
        }
    }
}
