//! A running transaction. After the first statement that fails, the transaction can only be rolled back: PostgreSQL
//! accepts no more statements after an error, and this crate makes SQLite behave the same way. Write `on conflict do
//! nothing` where a duplicate is expected.

use std::any::{Any, TypeId};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::batch_rows::{BatchRows, RUN_ONCE};
use crate::deferred_statements::DeferredStatement;
use crate::queued_statements::{QueuedStatement, ReturnedRows};
use crate::stats::Stats;
use crate::{Backend, Bind, Error, Row, postgres, sqlite};

/// A running transaction, passed to its closure by [`Db::write`](crate::Db::write), [`Db::read`](crate::Db::read) or
/// [`Db::run_body_as_select_with_fallback`](crate::Db::run_body_as_select_with_fallback).
///
/// Every function that runs statements fails with the [`Error`] of the database, after which the transaction can only
/// fail.
pub struct Tx {
    pub(super) connection: DbConnection,
    pub(super) stats: Arc<Stats>,
    kind: TxKind,
    /// The error after which the transaction can only be rolled back; `None` while it can still succeed.
    pub(super) failed: Option<Error>,
    /// True when a statement changed rows.
    pub(super) changed: bool,
    /// The functions that run after the commit of the transaction.
    hooks: Vec<CommitHook>,
    /// Deferred statements that have not run yet. Always empty on SQLite, where they run at once.
    pub(super) deferred: Vec<DeferredStatement>,
    /// Queued statements that have not run yet.
    pub(super) queued: Vec<QueuedStatement>,
    /// The results of the queued statements that have run, in the order in which they were queued.
    pub(super) returned: Vec<ReturnedRows>,
}

/// The kind of a transaction, which limits the statements that it may run.
pub(super) enum TxKind {
    /// A transaction that may run any statements, between `begin` and `commit`.
    Transaction,
    /// Exactly one `select`, which runs without `begin` and `commit`.
    SelectOne {
        /// On PostgreSQL: the pool that replaces this connection when it died while it was idle. `None` on SQLite.
        fallback: Option<Arc<postgres::Connections>>,
        /// True when the only `select` of this read has run; any further statement is an error.
        has_selected: bool,
    },
}

/// A connection to either database.
pub(super) enum DbConnection {
    /// A connection to an SQLite file.
    Sqlite(rusqlite::Connection),
    /// A connection to a PostgreSQL server.
    Postgres(sqlx::PgConnection),
}

/// A function that runs after the commit.
pub(super) type CommitHook = Box<dyn FnOnce() + Send>;

/// The actions that follow in this process after a transaction was committed.
pub(super) struct CommitEffects {
    /// True when the transaction changed rows, so that the commit is counted.
    pub changed: bool,
    /// The functions that run once after the commit, in the order in which they were registered.
    pub hooks: Vec<CommitHook>,
}

impl Tx {
    pub(super) fn new(connection: DbConnection, stats: Arc<Stats>) -> Tx {
        let kind = TxKind::Transaction;
        Tx {
            connection,
            stats,
            kind,
            failed: None,
            changed: false,
            hooks: Vec::new(),
            deferred: Vec::new(),
            queued: Vec::new(),
            returned: Vec::new(),
        }
    }

    pub(super) fn set_kind(&mut self, kind: TxKind) {
        self.kind = kind;
    }

    /// Runs a statement and returns the number of rows that it changed.
    ///
    /// # Errors
    /// Any [`Error`] of this statement, or of a deferred or queued statement that runs before it.
    pub async fn execute(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<u64, Error> {
        self.run_earlier_and_check_statement(sql, &[], &binds).await?;
        let result = match &mut self.connection {
            DbConnection::Sqlite(connection) => sqlite::statement::execute_statement(connection, sql, RUN_ONCE, &binds),
            DbConnection::Postgres(connection) => postgres::execute_statement(connection, sql, Vec::new(), binds).await,
        };
        self.record_changes_or_failure(result)
    }

    /// Runs a statement for each given row and returns the number of rows that all runs changed. Runs nothing and
    /// returns 0 when there are no given rows.
    ///
    /// # Errors
    /// Any [`Error`] of this statement, or of a deferred or queued statement that runs before it.
    pub async fn execute_for_each(
        &mut self,
        sql: &'static str,
        given: BatchRows,
        binds: Vec<Bind>,
    ) -> Result<u64, Error> {
        if given.is_empty() {
            return Ok(0);
        }
        self.run_earlier_and_check_statement(sql, &given, &binds).await?;
        let result = match &mut self.connection {
            DbConnection::Sqlite(connection) => sqlite::statement::execute_statement(connection, sql, &given, &binds),
            DbConnection::Postgres(connection) => postgres::execute_statement(connection, sql, given, binds).await,
        };
        self.record_changes_or_failure(result)
    }

    /// Runs a statement and returns all its rows. The statement should have a `limit`, so that the number of rows is
    /// bounded.
    ///
    /// # Errors
    /// Any [`Error`] of this statement, or of a deferred or queued statement that runs before it.
    pub async fn rows(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Vec<Row>, Error> {
        self.run_earlier_and_check_statement(sql, &[], &binds).await?;
        let result = match (&mut self.connection, &self.kind) {
            (DbConnection::Sqlite(connection), _) => {
                sqlite::statement::execute_returning_rows(connection, sql, RUN_ONCE, &binds)
            }
            (DbConnection::Postgres(connection), TxKind::SelectOne { fallback: Some(connections), .. }) => {
                connections.select_with_retry(connection, sql, binds).await
            }
            (DbConnection::Postgres(connection), _) => {
                postgres::execute_returning_rows(connection, sql, Vec::new(), binds).await
            }
        };
        self.record_returning_or_failure(sql, result)
    }

    /// Runs a statement for each given row and returns the rows of all runs, in no particular order.
    ///
    /// # Errors
    /// Any [`Error`] of this statement, or of a deferred or queued statement that runs before it.
    pub async fn rows_for_each(
        &mut self,
        sql: &'static str,
        given: BatchRows,
        binds: Vec<Bind>,
    ) -> Result<Vec<Row>, Error> {
        if given.is_empty() {
            return Ok(Vec::new());
        }
        self.run_earlier_and_check_statement(sql, &given, &binds).await?;
        let result = match &mut self.connection {
            DbConnection::Sqlite(connection) => {
                sqlite::statement::execute_returning_rows(connection, sql, &given, &binds)
            }
            DbConnection::Postgres(connection) => postgres::execute_returning_rows(connection, sql, given, binds).await,
        };
        self.record_returning_or_failure(sql, result)
    }

    /// Runs a statement and returns its only row; `None` when it returns no row.
    ///
    /// # Errors
    /// [`Error::TooManyRows`] when the statement returns several rows, or any [`Error`] of this statement or of a
    /// deferred or queued statement that runs before it.
    pub async fn row(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Option<Row>, Error> {
        let mut rows = self.rows(sql, binds).await?;
        if rows.len() > 1 {
            return Err(Error::TooManyRows { found: rows.len() });
        }
        Ok(rows.pop())
    }

    /// Runs the deferred and the queued statements that have not run yet, at the end of the transaction.
    ///
    /// # Errors
    /// Any [`Error`] of these statements, and the error of an earlier statement that already failed.
    pub(super) async fn run_deferred_and_queued(&mut self) -> Result<(), Error> {
        self.run_deferred().await?;
        self.run_queued().await
    }

    /// Runs several statements without bound values, such as the text of a migration.
    pub(super) async fn run_script(&mut self, sql: &'static str) -> Result<(), Error> {
        self.run_earlier_and_check_statement(sql, &[], &[]).await?;
        let result = match &mut self.connection {
            DbConnection::Sqlite(connection) => sqlite::statement::run_sql_script(connection, sql),
            DbConnection::Postgres(connection) => postgres::run_sql_script(connection, sql).await,
        };
        self.changed = true;
        self.record_failure(result)
    }

    /// Returns the database software that runs this transaction.
    pub fn backend(&self) -> Backend {
        match self.connection {
            DbConnection::Sqlite(_) => Backend::Sqlite,
            DbConnection::Postgres(_) => Backend::Postgres,
        }
    }

    /// Returns the SQL text for the backend. Use it only where one text cannot serve both databases. Row locks need no
    /// second text: `for update` and `for update skip locked` are removed on SQLite, where only one transaction writes
    /// at a time.
    pub fn sql_for_backend(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.backend() {
            Backend::Sqlite => sqlite,
            Backend::Postgres => postgres,
        }
    }

    /// Raises the number of the next row of a table with generated row numbers by `count`.
    ///
    /// # Errors
    /// Any [`Error`] of the database.
    pub async fn skip_row_numbers(
        &mut self,
        table: &'static str,
        column: &'static str,
        count: u32,
    ) -> Result<(), Error> {
        match self.backend() {
            Backend::Sqlite => {
                let raised = self
                    .execute(
                        "update sqlite_sequence set seq = seq + $2 where name = $1",
                        vec![table.into(), count.into()],
                    )
                    .await?;
                if raised == 0 {
                    let insert = "insert into sqlite_sequence (name, seq) values ($1, $2)";
                    self.execute(insert, vec![table.into(), count.into()]).await?;
                }
            }
            Backend::Postgres => {
                let raise = "select setval(sequence, nextval(sequence) + $3) as number
                             from (select pg_get_serial_sequence($1, $2)::regclass as sequence) s";
                self.rows(raise, vec![table.into(), column.into(), count.into()]).await?;
            }
        }
        Ok(())
    }

    /// Registers `hook` to run once, after the transaction is durable and before its caller gets the result. The hook
    /// does not run when the transaction fails. It must be short and must not use the database, because on SQLite the
    /// writer waits for it.
    pub fn after_commit(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.hooks.push(Box::new(hook));
    }

    /// Returns the value of type `T` that all transactions of this database share in memory; the first call creates it
    /// with `T::default()`. The value may contain only copies of rows that never change, and only a hook of
    /// [`Tx::after_commit`] may add such copies.
    pub fn shared_cache<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut cache = self.stats.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = cache.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default())).clone();
        shared.downcast().expect("each value is stored under its own type")
    }

    /// Returns the error after which the transaction can only be rolled back; `None` while it can still succeed. The
    /// transaction must fail with this error even if its closure returned success.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failed.clone()
    }

    /// Returns the hooks that run after the commit, and whether rows were changed. Resets the state of this value, so
    /// that the next transaction can use the same connection.
    pub(super) fn take_effects_and_reset(&mut self) -> CommitEffects {
        self.failed = None;
        self.deferred.clear();
        self.queued.clear();
        self.returned.clear();
        CommitEffects { changed: std::mem::take(&mut self.changed), hooks: std::mem::take(&mut self.hooks) }
    }

    /// Prepares the next statement: runs the deferred and queued statements before it, refuses values that cannot be
    /// bound, refuses a second statement of [`Db::run_body_as_select_with_fallback`](crate::Db::run_body_as_select_with_fallback), and counts the statement.
    pub(super) async fn run_earlier_and_check_statement(
        &mut self,
        sql: &str,
        given: &[Vec<Bind>],
        binds: &[Bind],
    ) -> Result<(), Error> {
        self.run_deferred().await?;
        if !self.queued.is_empty() {
            Box::pin(self.run_queued()).await?;
        }
        let is_unbindable = |bind: &&Bind| matches!(bind, Bind::TooLarge(_) | Bind::ResultRef(_));
        if let Some(bind) = given.iter().flatten().chain(binds).find(is_unbindable) {
            return Err(Error::Statement(format!("{} was bound", bind.kind())));
        }
        if let TxKind::SelectOne { has_selected, .. } = &mut self.kind
            && (std::mem::replace(has_selected, true) || !is_select(sql))
        {
            return Err(Error::Statement(format!(
                "`run_body_as_select_with_fallback` runs exactly one select, and this is not it: {sql}"
            )));
        }
        let runs = match self.backend() {
            Backend::Sqlite => u64::try_from(given.len()).unwrap_or(u64::MAX).max(1),
            Backend::Postgres => 1,
        };
        self.stats.statements.fetch_add(runs, Ordering::Relaxed);
        Ok(())
    }

    /// Records that rows were changed or that the statement failed. Returns `result` unchanged.
    pub(super) fn record_changes_or_failure(&mut self, result: Result<u64, Error>) -> Result<u64, Error> {
        let changed = self.record_failure(result)?;
        self.changed |= changed > 0;
        Ok(changed)
    }

    /// Records that rows were changed, if the statement has a `returning` clause and returned rows, or that the
    /// statement failed. Returns `result` unchanged.
    fn record_returning_or_failure(&mut self, sql: &str, result: Result<Vec<Row>, Error>) -> Result<Vec<Row>, Error> {
        let rows = self.record_failure(result)?;
        self.changed |= !rows.is_empty() && sql.contains("returning");
        Ok(rows)
    }

    /// If the result is an error, records it as the failure of the transaction. Returns `result` unchanged.
    pub(super) fn record_failure<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }
}

/// Returns true when the statement begins with `select`.
fn is_select(sql: &str) -> bool {
    sql.trim_start().starts_with("select")
}

/// Runs the hooks of committed transactions. A hook that panics is logged and does not stop the others.
pub(super) fn run_hooks_logging_panics(hooks: Vec<CommitHook>) {
    for hook in hooks {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(hook)).is_err() {
            tracing::error!("a hook after a commit panicked");
        }
    }
}
