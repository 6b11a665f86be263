//! A running transaction. The first statement that fails ends it: PostgreSQL accepts nothing more after an error, so
//! SQLite behaves the same. Write `on conflict do nothing` where a duplicate is expected.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::batch_rows::{BatchRows, RUN_ONCE};
use crate::queue::{self, ReturnedIds, Statement};
use crate::{Backend, Bind, Counters, Error, FromValue, ResultRef, Row, expect_changed, postgres, sqlite};

/// A running transaction, passed to its closure by [`Db::write`](crate::Db::write), [`Db::read`](crate::Db::read) or
/// [`Db::select_one`](crate::Db::select_one).
///
/// Every function that runs statements fails with the [`Error`] of the database, after which the transaction can only
/// fail.
pub struct Tx {
    pub(super) connection: DbConnection,
    stats: Arc<Stats>,
    kind: TxKind,
    failed: Option<Error>,
    changed: bool,
    hooks: Vec<CommitHook>,
    /// Scheduled statements that have not run yet. Always empty on SQLite, where they run at once.
    deferred: Vec<DeferredStatement>,
    /// Queued statements that have not run yet.
    queued: Vec<Statement>,
    /// The results of the queued statements that have run, in the order in which they were queued.
    returned: Vec<ReturnedIds>,
}

/// A statement whose result the closure does not need.
pub(super) struct DeferredStatement {
    /// The SQL text, with placeholders `$1`, `$2`, …
    pub sql: &'static str,
    /// The rows for which the statement runs; empty for a statement without given rows, which runs once.
    pub given: BatchRows,
    /// The values of the placeholders, in order.
    pub binds: Vec<Bind>,
    /// The number of rows that the statement must change; `None` when any number is allowed.
    pub expected: Option<u64>,
}

pub(super) enum TxKind {
    Transaction,
    /// Exactly one `select`, without a transaction.
    SelectOne {
        /// On PostgreSQL: the pool, which has another connection when this one has died while it was idle.
        fallback: Option<Arc<postgres::Connections>>,
        has_selected: bool,
    },
}

pub(super) enum DbConnection {
    Sqlite(rusqlite::Connection),
    Postgres(sqlx::PgConnection),
}

pub(super) type CommitHook = Box<dyn FnOnce() + Send>;

/// The effects that the commit of a transaction has on this process.
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
    /// Any [`Error`] of the statement, or of a deferred one before it.
    pub async fn execute(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<u64, Error> {
        self.start_statement(sql, &[], &binds).await?;
        let result = match &mut self.connection {
            DbConnection::Sqlite(connection) => sqlite::statement::execute(connection, sql, RUN_ONCE, &binds),
            DbConnection::Postgres(connection) => postgres::execute(connection, sql, Vec::new(), binds).await,
        };
        self.note_change(result)
    }

    /// Runs a statement for each given row and returns the number of rows that all runs changed.
    ///
    /// # Errors
    /// Any [`Error`] of the statement, or of a deferred one before it.
    pub async fn execute_for_each(
        &mut self,
        sql: &'static str,
        given: BatchRows,
        binds: Vec<Bind>,
    ) -> Result<u64, Error> {
        if given.is_empty() {
            return Ok(0);
        }
        self.start_statement(sql, &given, &binds).await?;
        let result = match &mut self.connection {
            DbConnection::Sqlite(connection) => sqlite::statement::execute(connection, sql, &given, &binds),
            DbConnection::Postgres(connection) => postgres::execute(connection, sql, given, binds).await,
        };
        self.note_change(result)
    }

    /// Schedules a statement whose result the caller does not need, except that it must change `expected` rows.
    ///
    /// PostgreSQL runs all deferred statements as one, before the next statement that is not deferred or at the end of
    /// the transaction. So no deferred statement may depend on the changes of another one, nor change the same row. On
    /// PostgreSQL only, a deferred statement may read the rows that the one just before it returned, as the table
    /// `changed_before`.
    ///
    /// # Errors
    /// On SQLite, where the statement runs at once: any [`Error`] of it, and [`Error::UnexpectedRowCount`]. On
    /// PostgreSQL the next statement or the end of the transaction fails.
    pub async fn execute_deferred(
        &mut self,
        sql: &'static str,
        given: BatchRows,
        binds: Vec<Bind>,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        match self.backend() {
            Backend::Sqlite => {
                let found = match given.is_empty() {
                    true => self.execute(sql, binds).await?,
                    false => self.execute_for_each(sql, given, binds).await?,
                };
                let checked = expected.map_or(Ok(()), |expected| expect_changed(found, expected));
                self.note_failure(checked)
            }
            Backend::Postgres => {
                self.deferred.push(DeferredStatement { sql, given, binds, expected });
                Ok(())
            }
        }
    }

    /// Runs the statements that were deferred, because the following code depends on them.
    ///
    /// # Errors
    /// Any [`Error`] of them, and the error that ended the transaction earlier.
    pub async fn run_deferred(&mut self) -> Result<(), Error> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let deferred = std::mem::take(&mut self.deferred);
        let DbConnection::Postgres(connection) = &mut self.connection else { return Ok(()) };
        if deferred.is_empty() {
            return Ok(());
        }
        self.stats.statements.fetch_add(1, Ordering::Relaxed);
        let result = postgres::execute_deferred(connection, deferred).await;
        self.note_change(result).map(drop)
    }

    /// Runs a statement and returns all its rows. Bound their number with a `limit`.
    ///
    /// # Errors
    /// Any [`Error`] of the statement, or of a deferred one before it.
    pub async fn rows(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Vec<Row>, Error> {
        self.start_statement(sql, &[], &binds).await?;
        let result = match (&mut self.connection, &self.kind) {
            (DbConnection::Sqlite(connection), _) => sqlite::statement::rows(connection, sql, RUN_ONCE, &binds),
            (DbConnection::Postgres(connection), TxKind::SelectOne { fallback: Some(connections), .. }) => {
                connections.select_with_retry(connection, sql, binds).await
            }
            (DbConnection::Postgres(connection), _) => postgres::rows(connection, sql, Vec::new(), binds).await,
        };
        self.note_rows(sql, result)
    }

    /// Runs a statement for each given row and returns the rows of all runs, in no order.
    ///
    /// # Errors
    /// Any [`Error`] of the statement, or of a deferred one before it.
    pub async fn rows_for_each(
        &mut self,
        sql: &'static str,
        given: BatchRows,
        binds: Vec<Bind>,
    ) -> Result<Vec<Row>, Error> {
        if given.is_empty() {
            return Ok(Vec::new());
        }
        self.start_statement(sql, &given, &binds).await?;
        let result = match &mut self.connection {
            DbConnection::Sqlite(connection) => sqlite::statement::rows(connection, sql, &given, &binds),
            DbConnection::Postgres(connection) => postgres::rows(connection, sql, given, binds).await,
        };
        self.note_rows(sql, result)
    }

    /// Runs a statement and returns its row, or `None` when it returns none.
    ///
    /// # Errors
    /// [`Error::TooManyRows`] when it returns several, or any [`Error`] of the statement or of a deferred one before
    /// it.
    pub async fn row(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Option<Row>, Error> {
        let mut rows = self.rows(sql, binds).await?;
        if rows.len() > 1 {
            return Err(Error::TooManyRows { found: rows.len() });
        }
        Ok(rows.pop())
    }

    /// Queues a statement, which must return a column `id`. All queued statements run together, in one round trip on
    /// PostgreSQL: at [`Tx::run_queued`], before the next statement that is not queued, or at the end of the
    /// transaction. A statement that returns no row does not fail; see [`Tx::row_count_of`].
    pub fn queue<T>(&mut self, sql: &'static str, binds: Vec<Bind>) -> ResultRef<T> {
        let statement = self.returned.len() + self.queued.len();
        self.queued.push(Statement { sql, binds });
        ResultRef { statement, id: PhantomData }
    }

    /// Runs the queued statements, because the following code needs their results.
    ///
    /// # Errors
    /// Any [`Error`] of a queued statement, or of a deferred one before it.
    pub async fn run_queued(&mut self) -> Result<(), Error> {
        let statements = std::mem::take(&mut self.queued);
        if statements.is_empty() {
            return Ok(());
        }
        let first = self.returned.len();
        match self.backend() {
            Backend::Sqlite => self.run_one_by_one(statements).await?,
            Backend::Postgres => self.run_as_one(statements).await?,
        }
        self.changed |= self.returned.iter().skip(first).any(|ids| ids.rows > 0);
        Ok(())
    }

    /// Returns the number of rows that a queued statement returned; 0 before it has run.
    pub fn row_count_of<T>(&self, result: ResultRef<T>) -> u64 {
        self.returned.get(result.statement).map_or(0, |ids| ids.rows)
    }

    /// Returns the id of the one row that a queued statement returned.
    ///
    /// # Errors
    /// [`Error::UnexpectedRowCount`] when the statement did not return exactly one row, or has not run yet.
    pub fn id_of<T: FromValue>(&self, result: ResultRef<T>) -> Result<T, Error> {
        self.returned.get(result.statement).copied().unwrap_or_default().only_id()
    }

    async fn run_one_by_one(&mut self, statements: Vec<Statement>) -> Result<(), Error> {
        for statement in statements {
            let (sql, binds) = statement.resolve(&self.returned)?;
            self.start_statement(sql, &[], &binds).await?;
            let DbConnection::Sqlite(connection) = &self.connection else { unreachable!("the backend is SQLite") };
            let result = sqlite::statement::returned_ids(connection, sql, &binds);
            let ids = self.note_failure(result)?;
            self.returned.push(ids);
        }
        Ok(())
    }

    async fn run_as_one(&mut self, statements: Vec<Statement>) -> Result<(), Error> {
        let count = statements.len();
        let statements = statements.into_iter().map(|statement| statement.rebase(&self.returned)).collect();
        let (sql, binds) = queue::combine(statements)?;
        self.start_statement(&sql, &[], &binds).await?;
        let DbConnection::Postgres(connection) = &mut self.connection else {
            unreachable!("the backend is PostgreSQL")
        };
        let result = postgres::only_row(connection, sql, binds).await;
        let row = self.note_failure(result)?;
        for number in 0..count {
            self.returned.push(ReturnedIds { rows: row.get_at(2 * number)?, least: row.get_at(2 * number + 1)? });
        }
        Ok(())
    }

    /// Runs the deferred and the queued statements that have not run yet, at the end of the transaction.
    ///
    /// # Errors
    /// Any [`Error`] of them, and the error that ended the transaction earlier.
    pub(super) async fn run_pending(&mut self) -> Result<(), Error> {
        self.run_deferred().await?;
        self.run_queued().await
    }

    /// Runs several statements without binds: the text of a migration.
    pub(super) async fn run_script(&mut self, sql: &'static str) -> Result<(), Error> {
        self.start_statement(sql, &[], &[]).await?;
        let result = match &mut self.connection {
            DbConnection::Sqlite(connection) => sqlite::statement::run_script(connection, sql),
            DbConnection::Postgres(connection) => postgres::run_script(connection, sql).await,
        };
        self.changed = true;
        self.note_failure(result)
    }

    /// Returns the database software that runs this transaction.
    pub fn backend(&self) -> Backend {
        match self.connection {
            DbConnection::Sqlite(_) => Backend::Sqlite,
            DbConnection::Postgres(_) => Backend::Postgres,
        }
    }

    /// Returns the SQL text for the backend, where no common text exists. Row locks need no second text: `for update`
    /// and `for update skip locked` are removed on SQLite, where the single writer excludes all others.
    pub fn sql_for_backend(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.backend() {
            Backend::Sqlite => sqlite,
            Backend::Postgres => postgres,
        }
    }

    /// Registers `hook` to run once, after the transaction is durable and before its caller gets the result. It does
    /// not run when the transaction fails. It must be short and must not use the database: on SQLite the writer waits
    /// for it.
    pub fn after_commit(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.hooks.push(Box::new(hook));
    }

    /// Returns the value of type `T` that all transactions of this database share. It may hold only copies of rows that
    /// never change, added by [`Tx::after_commit`].
    pub fn cache<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut cache = self.stats.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = cache.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default())).clone();
        shared.downcast().expect("each value is stored under its own type")
    }

    /// Returns the failure that ended the transaction, even if its closure returned success.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failed.clone()
    }

    /// Removes the state of this transaction, so that the next one can use the same connection.
    pub(super) fn take_commit_effects(&mut self) -> CommitEffects {
        self.failed = None;
        self.deferred.clear();
        self.queued.clear();
        self.returned.clear();
        CommitEffects { changed: std::mem::take(&mut self.changed), hooks: std::mem::take(&mut self.hooks) }
    }

    async fn start_statement(&mut self, sql: &str, given: &[Vec<Bind>], binds: &[Bind]) -> Result<(), Error> {
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
            return Err(Error::Statement(format!("`select_one` runs exactly one select, and this is not it: {sql}")));
        }
        let runs = match self.backend() {
            Backend::Sqlite => u64::try_from(given.len()).unwrap_or(u64::MAX).max(1),
            Backend::Postgres => 1,
        };
        self.stats.statements.fetch_add(runs, Ordering::Relaxed);
        Ok(())
    }

    fn note_change(&mut self, result: Result<u64, Error>) -> Result<u64, Error> {
        let changed = self.note_failure(result)?;
        self.changed |= changed > 0;
        Ok(changed)
    }

    fn note_rows(&mut self, sql: &str, result: Result<Vec<Row>, Error>) -> Result<Vec<Row>, Error> {
        let rows = self.note_failure(result)?;
        self.changed |= !rows.is_empty() && sql.contains("returning");
        Ok(rows)
    }

    fn note_failure<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }
}

fn is_select(sql: &str) -> bool {
    sql.trim_start().starts_with("select")
}

/// The counters and the cache that the transactions of a database share.
#[derive(Default)]
pub(super) struct Stats {
    statements: AtomicU64,
    commits: AtomicU64,
    transactions: AtomicU64,
    cache: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Stats {
    /// Counts one durable commit that changed rows.
    pub fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one transaction that ran, whatever its outcome.
    pub fn count_transaction(&self) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the current counts.
    pub fn counters(&self) -> Counters {
        Counters {
            sql_statements: self.statements.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            transactions: self.transactions.load(Ordering::Relaxed),
        }
    }
}

/// Runs the hooks of committed transactions. A hook that panics is logged and does not stop the others.
pub(super) fn run_hooks(hooks: Vec<CommitHook>) {
    for hook in hooks {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(hook)).is_err() {
            tracing::error!("a hook after a commit panicked");
        }
    }
}
