//! Connections for `run_body_as_select_with_fallback`, which runs on the thread of the caller. A row that an index finds is read faster than
//! it could be passed from one thread to another.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;

use crate::sqlite::connections::open_reader_connection;
use crate::stats::Stats;
use crate::transaction_body::{TransactionBody, run_body_and_flush_catching_panics};
use crate::tx::{DbConnection, TxKind, run_hooks_logging_panics};
use crate::{Error, Tx};

/// Read-only connections that run single `select`s on the threads of their callers.
pub(super) struct DirectReaders {
    /// The connections that are not in use; `None` after [`DirectReaders::close`].
    idle: Mutex<Option<Vec<Tx>>>,
    stats: Arc<Stats>,
}

impl DirectReaders {
    /// Opens `count` read-only connections to the file.
    pub fn open(path: &Path, count: u32, stats: &Arc<Stats>) -> Result<DirectReaders, Error> {
        let open = |_| Ok(Tx::new(DbConnection::Sqlite(open_reader_connection(path)?), stats.clone()));
        let idle = (0..count).map(open).collect::<Result<_, Error>>()?;
        Ok(DirectReaders { idle: Mutex::new(Some(idle)), stats: stats.clone() })
    }

    /// Returns an idle connection, or `None` when all are in use or closed.
    pub fn take_idle_connection(&self) -> Option<Tx> {
        self.lock_idle_connections().as_mut()?.pop()
    }

    /// Runs `body` on a connection from [`DirectReaders::take_idle_connection`] and puts the connection back.
    pub fn run_select<T, E, F>(&self, name: &'static str, mut tx: Tx, body: F) -> Result<T, E>
    where
        E: From<Error>,
        F: TransactionBody<T, E>,
    {
        self.stats.count_transaction();
        tx.set_kind(TxKind::SelectOne { fallback: None, has_selected: false });
        // A statement of SQLite never waits. So if the closure is not finished at the first poll, it awaits something
        // other than its database.
        let outcome = run_body_and_flush_catching_panics(name, &mut tx, body).now_or_never();
        let outcome = outcome.unwrap_or_else(|| Err(Error::Suspended { name }.into()));
        let effects = tx.take_effects_and_reset();
        self.return_or_close_connection(tx);
        if outcome.is_ok() {
            run_hooks_logging_panics(effects.hooks);
        }
        outcome
    }

    /// Closes the idle connections. A connection in use is closed when its `select` has ended.
    pub fn close(&self) {
        *self.lock_idle_connections() = None;
    }

    fn return_or_close_connection(&self, tx: Tx) {
        if let Some(idle) = self.lock_idle_connections().as_mut() {
            idle.push(tx);
        }
    }

    fn lock_idle_connections(&self) -> MutexGuard<'_, Option<Vec<Tx>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
