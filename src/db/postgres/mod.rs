//! PostgreSQL: every transaction runs on a task of its own, with a connection of its own.

mod connections;
mod server_settings;
mod statement;

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::oneshot;

use crate::Error;
use crate::stats::Stats;
use crate::transaction_body::TransactionBody;

pub(super) use connections::{Connections, FenceState};
pub(super) use statement::{
    execute_deferred_statements, execute_returning_one_row, execute_returning_rows, execute_statement, run_sql_script,
};

use connections::{TxAccess, database_closed_error};

/// Number of prepared statements that a connection keeps.
const STATEMENT_CACHE: usize = 512;
/// Time limit of a transaction. It is longer than every time limit of the server, so this limit ends only those
/// transactions whose connection does not respond any more.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(120);
/// The settings that every session gets, as names and values.
const SESSION: [(&str, &str); 3] =
    [("idle_in_transaction_session_timeout", "15s"), ("lock_timeout", "5s"), ("statement_timeout", "30s")];

/// The time limit of a whole transaction.
#[derive(Clone, Copy)]
pub(super) enum TimeLimit {
    /// The limit [`TRANSACTION_TIMEOUT`].
    Standard,
    /// No limit: a migration may rewrite a table, and an audit reads all tables.
    None,
}

/// An open database on a PostgreSQL server.
pub(super) struct Engine(Arc<Connections>);

impl Engine {
    /// Opens one connection to the server and refuses a server whose version or settings cannot be used.
    pub async fn open(url: &str, connections_max: u32, stats: Arc<Stats>) -> Result<Engine, Error> {
        // The parser's error is dropped, because it may quote the password.
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| Error::Unsupported("the database URL is not a valid PostgreSQL URL".into()))?
            .application_name("settled")
            .statement_cache_capacity(STATEMENT_CACHE)
            .options(SESSION)
            .disable_statement_logging();
        let connections = Connections::new(options, connections_max, stats)?;
        let mut connection = connections.open_connection().await?;
        let sql = "select cast(current_setting('server_version_num') as bigint) as version,
            current_setting('synchronous_commit') as durable, current_setting('server_encoding') as encoding";
        let settings = execute_returning_rows(&mut connection, sql, Vec::new(), Vec::new()).await?;
        server_settings::refuse_unsuitable_server(
            settings.first().ok_or_else(|| Error::Statement("the server returned no settings".into()))?,
        )?;
        connections.return_or_close_connection(connection);
        Ok(Engine(Arc::new(connections)))
    }

    /// Returns the connections to the server. Only the instance lock uses them from outside: it decides whether further
    /// connections may be opened.
    pub fn connections(&self) -> Arc<Connections> {
        self.0.clone()
    }

    /// Runs `body` in a transaction that may change rows.
    pub async fn write<T, E, F>(&self, name: &'static str, limit: TimeLimit, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: TransactionBody<T, E>,
    {
        self.run_on_own_task_when_permitted(name, limit, |connections| async move {
            connections.run_transaction(name, TxAccess::Write, body).await
        })
        .await
    }

    /// Runs `body` in a read-only transaction on one snapshot.
    pub async fn read<T, E, F>(&self, name: &'static str, limit: TimeLimit, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: TransactionBody<T, E>,
    {
        self.run_on_own_task_when_permitted(name, limit, |connections| async move {
            connections.run_transaction(name, TxAccess::Read, body).await
        })
        .await
    }

    /// Runs a body of exactly one `select`, without a transaction around it.
    pub async fn run_body_as_select_with_fallback<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: TransactionBody<T, E>,
    {
        let limit = TimeLimit::Standard;
        self.run_on_own_task_when_permitted(name, limit, |connections| async move {
            connections.run_body_as_select_with_fallback(name, body).await
        })
        .await
    }

    /// Runs a transaction on a task of its own as soon as a connection is free, and returns its result. The transaction
    /// ends even when the caller is dropped.
    #[expect(
        clippy::disallowed_methods,
        reason = "a transaction must outlive its caller, and `run_body_and_flush_catching_panics` catches its panics"
    )]
    async fn run_on_own_task_when_permitted<T, E, R>(
        &self,
        name: &'static str,
        limit: TimeLimit,
        run: impl FnOnce(Arc<Connections>) -> R,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        R: Future<Output = Result<T, E>> + Send + 'static,
    {
        // If the caller is dropped while it waits for the permit, no transaction was started.
        let permit = self.0.wait_for_permit().await?;
        let (sender, receiver) = oneshot::channel();
        let run = run(self.0.clone());
        tokio::spawn(async move {
            let start = Instant::now();
            let outcome = match limit {
                TimeLimit::None => run.await,
                TimeLimit::Standard => tokio::time::timeout(TRANSACTION_TIMEOUT, run).await.unwrap_or_else(|_| {
                    Err(Error::CommitUnknown("the server did not answer for two minutes".into()).into())
                }),
            };
            drop(permit);
            tracing::debug!(name, elapsed_us = start.elapsed().as_micros(), "transaction {name} ended");
            // Sending fails when the caller was dropped. Even then the transaction has run to its end.
            let _caller_dropped = sender.send(outcome);
        });
        receiver.await.unwrap_or_else(|_| Err(database_closed_error().into()))
    }

    /// Waits for the running transactions, then refuses new ones.
    pub async fn close(&self) {
        self.0.close().await;
    }
}
