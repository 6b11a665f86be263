//! The connections to the server, and the transactions that run on them.
//!
//! sqlx's own pool is not used. Here only transactions take and return connections, so that a connection needs no ping
//! between two transactions, and a broken connection is dropped. A transaction begins on an idle connection. When that
//! connection is dead, the transaction tries the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::statement::{execute_returning_rows, run_control_statement, to_error};
use crate::instance_lock;
use crate::lease::Epoch;
use crate::stats::Stats;
use crate::transaction_body::{TransactionBody, run_body_and_flush_catching_panics};
use crate::tx::{DbConnection, TxKind, run_hooks_logging_panics};
use crate::{Bind, Error, Row, Tx};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the error of a call to a database that was closed.
pub fn database_closed_error() -> Error {
    Error::Unavailable("the database is closed".into())
}

/// All connections to the server, at most `count_max` of them.
pub struct Connections {
    options: PgConnectOptions,
    idle: Mutex<IdleConnections>,
    permits: Arc<Semaphore>,
    count_max: u32,
    stats: Arc<Stats>,
}

/// The connections that are not in use, and the state of the instance lock under which they were opened.
struct IdleConnections {
    connections: Vec<PgConnection>,
    fence: FenceState,
}

/// The permission of this process to open connections to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceState {
    /// Connections may be opened without the instance lock. This is for commands, which keep no state in memory, so
    /// that any number of such processes may run, and for the daemon before it has the lock.
    Open,
    /// Connections may be opened as long as the instance lock has this epoch.
    Fenced(Epoch),
    /// Connections may not be opened, because the process has lost the instance lock.
    Lost,
}

/// The kind of a transaction, which decides its isolation level.
#[derive(Clone, Copy)]
pub enum TxAccess {
    /// The transaction may change rows. Each statement sees what was committed before the statement (`read committed`).
    Write,
    /// The transaction cannot change rows. All its statements see one snapshot (`repeatable read`).
    Read,
}

impl TxAccess {
    const fn begin_sql(self) -> &'static str {
        match self {
            TxAccess::Write => "begin isolation level read committed",
            TxAccess::Read => "begin isolation level repeatable read read only",
        }
    }
}

impl Connections {
    /// Creates the pool without any connection; a transaction that finds no idle connection opens one. At most
    /// `count_max` connections are open, at least one.
    pub fn new(options: PgConnectOptions, count_max: u32, stats: Arc<Stats>) -> Result<Connections, Error> {
        let count_max = count_max.max(1);
        let permits = usize::try_from(count_max).map_err(|_| Error::Unsupported("too many connections".into()))?;
        let permits = Arc::new(Semaphore::new(permits));
        let idle = Mutex::new(IdleConnections { connections: Vec::new(), fence: FenceState::Open });
        Ok(Connections { options, idle, permits, count_max, stats })
    }

    /// Returns the options with which connections are opened: address, user and settings.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Waits until fewer transactions than the maximum are running. The caller may use one connection for as long as it
    /// holds the returned permit.
    pub async fn wait_for_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.permits.clone().acquire_owned().await.map_err(|_| database_closed_error())
    }

    /// Runs a transaction on one connection: begins, runs `body`, and commits, or rolls back after an error.
    pub async fn run_transaction<T, E, F>(&self, name: &'static str, access: TxAccess, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: TransactionBody<T, E>,
    {
        let connection = self.begin_on_idle_or_new_connection(access).await?;
        self.stats.count_transaction();
        let mut tx = Tx::new(DbConnection::Postgres(connection), self.stats.clone());
        let outcome = run_body_and_flush_catching_panics(name, &mut tx, body).await;
        let effects = tx.take_effects_and_reset();
        let DbConnection::Postgres(mut connection) = tx.connection else { return outcome };
        if outcome.is_err() {
            // When the rollback fails, the connection is dropped, and the server rolls back.
            if run_control_statement(&mut connection, "rollback").await.is_ok() {
                self.return_or_close_connection(connection);
            }
            return outcome;
        }
        match run_control_statement(&mut connection, "commit").await {
            Ok(()) => {}
            Err(sqlx::Error::Database(rejection)) => {
                let error = to_error(&sqlx::Error::Database(rejection));
                self.return_or_close_connection(connection);
                return Err(error.into());
            }
            Err(lost) => return Err(Error::CommitUnknown(lost.to_string()).into()),
        }
        if effects.changed && matches!(access, TxAccess::Write) {
            self.stats.count_commit();
        }
        self.return_or_close_connection(connection);
        run_hooks_logging_panics(effects.hooks);
        outcome
    }

    /// Runs a body of exactly one `select` without `begin` and `commit`, which saves two round trips.
    pub async fn run_body_as_select_with_fallback<T, E, F>(self: Arc<Self>, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: TransactionBody<T, E>,
    {
        let connection = match self.take_idle_connection() {
            Some(connection) => connection,
            None => self.open_connection().await?,
        };
        self.stats.count_transaction();
        let mut tx = Tx::new(DbConnection::Postgres(connection), self.stats.clone());
        tx.set_kind(TxKind::SelectOne { fallback: Some(self.clone()), has_selected: false });
        let outcome = run_body_and_flush_catching_panics(name, &mut tx, body).await;
        let (failure, effects) = (tx.failure(), tx.take_effects_and_reset());
        if let (DbConnection::Postgres(connection), None) = (tx.connection, failure) {
            self.return_or_close_connection(connection);
        }
        if outcome.is_ok() {
            run_hooks_logging_panics(effects.hooks);
        }
        outcome
    }

    /// Runs a `select`. When the connection has died while it was idle, the `select` runs again on another connection.
    pub async fn select_with_retry(
        &self,
        connection: &mut PgConnection,
        sql: &'static str,
        binds: Vec<Bind>,
    ) -> Result<Vec<Row>, Error> {
        loop {
            match execute_returning_rows(connection, sql, Vec::new(), binds.clone()).await {
                Err(Error::Unavailable(why)) => tracing::debug!("an idle connection was dead: {why}"),
                result => return result,
            }
            match self.take_idle_connection() {
                Some(idle) => *connection = idle,
                None => {
                    *connection = self.open_connection().await?;
                    return execute_returning_rows(connection, sql, Vec::new(), binds).await;
                }
            }
        }
    }

    /// Begins a transaction on an idle connection, or on a new one when no idle connection is alive.
    async fn begin_on_idle_or_new_connection(&self, access: TxAccess) -> Result<PgConnection, Error> {
        loop {
            let Some(mut connection) = self.take_idle_connection() else { break };
            match run_control_statement(&mut connection, access.begin_sql()).await {
                Ok(()) => return Ok(connection),
                // The connection died while it was idle; another idle connection may still be alive.
                Err(error) => tracing::debug!("an idle connection was dead: {error}"),
            }
        }
        let mut connection = self.open_connection().await?;
        run_control_statement(&mut connection, access.begin_sql()).await.map_err(|e| to_error(&e))?;
        Ok(connection)
    }

    /// Opens a connection if the fence state allows that. If this process holds the instance lock, the connection takes
    /// the shared lock of the daemon's connections.
    pub async fn open_connection(&self) -> Result<PgConnection, Error> {
        let fence = self.lock_idle_connections().fence;
        if fence == FenceState::Lost {
            return Err(Error::Unavailable("another daemon has taken over the database".into()));
        }
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, self.options.connect()).await;
        let connection = connection.map_err(|_| Error::Unavailable("the server does not answer".into()))?;
        let mut connection = connection.map_err(|e| to_error(&e))?;
        if let FenceState::Fenced(epoch) = fence {
            instance_lock::take_shared_lock_if_epoch_matches(&mut connection, epoch).await?;
        }
        Ok(connection)
    }

    fn take_idle_connection(&self) -> Option<PgConnection> {
        self.lock_idle_connections().connections.pop()
    }

    /// Gives a connection back to the pool. Closes the connection instead when this process has lost the instance lock.
    pub fn return_or_close_connection(&self, connection: PgConnection) {
        let mut idle = self.lock_idle_connections();
        if idle.fence != FenceState::Lost {
            idle.connections.push(connection);
        }
    }

    fn lock_idle_connections(&self) -> MutexGuard<'_, IdleConnections> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the rule by which connections are opened, and closes the idle connections, which were opened under the
    /// previous rule.
    pub fn set_fence_and_drop_idle(&self, fence: FenceState) {
        let mut idle = self.lock_idle_connections();
        idle.fence = fence;
        idle.connections.clear();
    }

    /// Waits for the running transactions, then refuses new ones.
    pub async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(self.count_max).await {
            self.permits.close();
            drop(all);
        }
        let idle = std::mem::take(&mut self.lock_idle_connections().connections);
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::debug!("a connection closed with an error: {error}");
            }
        }
    }
}
