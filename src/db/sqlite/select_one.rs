//! Single looks at what is committed, made on the thread that asks: a row that an index finds is read in less time than
//! two threads need to hand it over.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;

use crate::attempt::{Body, attempt};
use crate::sqlite::open_reader;
use crate::tx::{DbConnection, Scope, Stats, run_hooks};
use crate::{Error, Tx};

pub(super) struct SelectOnes {
    /// Connections that nobody uses; `None` once they are closed.
    idle: Mutex<Option<Vec<Tx>>>,
    stats: Arc<Stats>,
}

impl SelectOnes {
    pub fn open(path: &Path, count: u32, stats: &Arc<Stats>) -> Result<SelectOnes, Error> {
        let open = |_| Ok(Tx::new(DbConnection::Sqlite(open_reader(path)?), stats.clone()));
        let idle = (0..count).map(open).collect::<Result<_, Error>>()?;
        Ok(SelectOnes { idle: Mutex::new(Some(idle)), stats: stats.clone() })
    }

    pub fn take(&self) -> Option<Tx> {
        self.idle().as_mut()?.pop()
    }

    pub fn run<T, E, F>(&self, name: &'static str, mut tx: Tx, body: F) -> Result<T, E>
    where
        E: From<Error>,
        F: Body<T, E>,
    {
        self.stats.count_transaction();
        tx.set_scope(Scope::SelectOne { spare: None, looked: false });
        // A statement never waits here, so a closure that is pending waits for something that is not its database.
        let outcome = attempt(name, &mut tx, body).now_or_never();
        let outcome = outcome.unwrap_or_else(|| Err(Error::Suspended { name }.into()));
        let traces = tx.take_traces();
        self.give_back(tx);
        if outcome.is_ok() {
            run_hooks(traces.hooks);
        }
        outcome
    }

    pub fn close(&self) {
        *self.idle() = None;
    }

    fn give_back(&self, tx: Tx) {
        if let Some(idle) = self.idle().as_mut() {
            idle.push(tx);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<Tx>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
