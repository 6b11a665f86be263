//! A running transaction. The first statement that fails ends it: PostgreSQL accepts nothing more after an error, and so
//! the same holds on SQLite. Write `on conflict do nothing` where a duplicate is expected.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::{self, Ids};
use crate::batch_rows::{BatchRows, ONCE};
use crate::{Backend, Batch, BatchResult, Bind, Counters, Error, Row, expect_changed, postgres, sqlite};

pub struct Tx {
    pub(super) link: DbConnection,
    stats: Arc<Stats>,
    scope: Scope,
    failed: Option<Error>,
    changed: bool,
    hooks: Vec<Hook>,
    /// Changes that PostgreSQL makes in one statement with the others that wait.
    waiting: Vec<Waiting>,
}

pub(super) struct Waiting {
    pub sql: &'static str,
    pub given: BatchRows,
    pub binds: Vec<Bind>,
    /// How many rows it must change; `None` where any number is fine.
    pub expected: Option<u64>,
}

pub(super) enum Scope {
    Transaction,
    /// One `select` and nothing else. Where its connection may have died while it was idle, it is made again.
    SelectOne {
        spare: Option<Arc<postgres::Pool>>,
        looked: bool,
    },
}

pub(super) enum DbConnection {
    Sqlite(rusqlite::Connection),
    Postgres(sqlx::PgConnection),
}

pub(super) type Hook = Box<dyn FnOnce() + Send>;

/// What a transaction leaves behind when its closure has ended.
pub(super) struct CommitEffects {
    pub changed: bool,
    pub hooks: Vec<Hook>,
}

impl Tx {
    pub(super) fn new(link: DbConnection, stats: Arc<Stats>) -> Tx {
        let scope = Scope::Transaction;
        Tx { link, stats, scope, failed: None, changed: false, hooks: Vec::new(), waiting: Vec::new() }
    }

    pub(super) fn set_scope(&mut self, scope: Scope) {
        self.scope = scope;
    }

    /// Returns how many rows were changed.
    pub async fn execute(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<u64, Error> {
        self.start_statement(sql, &[], &binds).await?;
        let answer = match &mut self.link {
            DbConnection::Sqlite(connection) => sqlite::statement::execute(connection, sql, ONCE, &binds),
            DbConnection::Postgres(connection) => postgres::execute(connection, sql, Vec::new(), binds).await,
        };
        self.keep_change(answer)
    }

    /// Returns how many rows were changed, for all given rows together.
    pub async fn execute_each(&mut self, sql: &'static str, given: BatchRows, binds: Vec<Bind>) -> Result<u64, Error> {
        if given.is_empty() {
            return Ok(0);
        }
        self.start_statement(sql, &given, &binds).await?;
        let answer = match &mut self.link {
            DbConnection::Sqlite(connection) => sqlite::statement::execute(connection, sql, &given, &binds),
            DbConnection::Postgres(connection) => postgres::execute(connection, sql, given, binds).await,
        };
        self.keep_change(answer)
    }

    /// A change whose answer nobody needs: `expected` rows, where a number is expected. PostgreSQL makes all changes that
    /// wait in one statement, before the next one that is not for later, or at the end: none of them may see what another
    /// one does, nor change the same row. Only there, a change may read what the one just before it returned, as the
    /// table `changed_before`.
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
                    false => self.execute_each(sql, given, binds).await?,
                };
                let checked = expected.map_or(Ok(()), |expected| expect_changed(found, expected));
                self.keep_failure(checked)
            }
            Backend::Postgres => {
                self.waiting.push(Waiting { sql, given, binds, expected });
                Ok(())
            }
        }
    }

    /// Makes the changes that wait: what comes after may depend on them.
    pub async fn flush(&mut self) -> Result<(), Error> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let waiting = std::mem::take(&mut self.waiting);
        let DbConnection::Postgres(connection) = &mut self.link else { return Ok(()) };
        if waiting.is_empty() {
            return Ok(());
        }
        self.stats.statements.fetch_add(1, Ordering::Relaxed);
        let answer = postgres::execute_all(connection, waiting).await;
        self.keep_change(answer).map(drop)
    }

    /// Reads all rows: bound the statement with a `limit`.
    pub async fn rows(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Vec<Row>, Error> {
        self.start_statement(sql, &[], &binds).await?;
        let answer = match (&mut self.link, &self.scope) {
            (DbConnection::Sqlite(connection), _) => sqlite::statement::rows(connection, sql, ONCE, &binds),
            (DbConnection::Postgres(connection), Scope::SelectOne { spare: Some(pool), .. }) => {
                pool.look(connection, sql, binds).await
            }
            (DbConnection::Postgres(connection), _) => postgres::rows(connection, sql, Vec::new(), binds).await,
        };
        self.keep_rows(sql, answer)
    }

    /// The rows for all given rows, in no order.
    pub async fn rows_each(
        &mut self,
        sql: &'static str,
        given: BatchRows,
        binds: Vec<Bind>,
    ) -> Result<Vec<Row>, Error> {
        if given.is_empty() {
            return Ok(Vec::new());
        }
        self.start_statement(sql, &given, &binds).await?;
        let answer = match &mut self.link {
            DbConnection::Sqlite(connection) => sqlite::statement::rows(connection, sql, &given, &binds),
            DbConnection::Postgres(connection) => postgres::rows(connection, sql, given, binds).await,
        };
        self.keep_rows(sql, answer)
    }

    /// Runs all links of a chain. One that returns no row ends nothing: whoever counts on it looks at what is [`BatchResult`].
    pub async fn chain(&mut self, chain: Batch) -> Result<BatchResult, Error> {
        let links = chain.into_links();
        if links.is_empty() {
            return Ok(BatchResult { links: Vec::new() });
        }
        let links = match self.backend() {
            Backend::Sqlite => self.run_links(links).await?,
            Backend::Postgres => self.run_joined(links).await?,
        };
        self.changed |= links.iter().any(|ids| ids.rows > 0);
        Ok(BatchResult { links })
    }

    async fn run_links(&mut self, links: Vec<batch::Statement>) -> Result<Vec<Ids>, Error> {
        let mut done = Vec::with_capacity(links.len());
        for link in links {
            let (sql, binds) = link.resolve(&done)?;
            self.start_statement(sql, &[], &binds).await?;
            let DbConnection::Sqlite(connection) = &self.link else { unreachable!("asked for SQLite") };
            let answer = sqlite::statement::ids(connection, sql, &binds);
            done.push(self.keep_failure(answer)?);
        }
        Ok(done)
    }

    async fn run_joined(&mut self, links: Vec<batch::Statement>) -> Result<Vec<Ids>, Error> {
        let count = links.len();
        let (sql, binds) = batch::join(links)?;
        self.start_statement(&sql, &[], &binds).await?;
        let DbConnection::Postgres(connection) = &mut self.link else { unreachable!("asked for PostgreSQL") };
        let answer = postgres::only_row(connection, sql, binds).await;
        let row = self.keep_failure(answer)?;
        (0..count).map(|link| Ok(Ids { rows: row.at(2 * link)?, first: row.at(2 * link + 1)? })).collect()
    }

    /// At most one row; more are an error.
    pub async fn row(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Option<Row>, Error> {
        let mut rows = self.rows(sql, binds).await?;
        if rows.len() > 1 {
            return Err(Error::TooManyRows { found: rows.len() });
        }
        Ok(rows.pop())
    }

    /// Several statements without binds: the text of a migration.
    pub(super) async fn batch(&mut self, sql: &'static str) -> Result<(), Error> {
        self.start_statement(sql, &[], &[]).await?;
        let answer = match &mut self.link {
            DbConnection::Sqlite(connection) => sqlite::statement::batch(connection, sql),
            DbConnection::Postgres(connection) => postgres::batch(connection, sql).await,
        };
        self.changed = true;
        self.keep_failure(answer)
    }

    pub fn backend(&self) -> Backend {
        match self.link {
            DbConnection::Sqlite(_) => Backend::Sqlite,
            DbConnection::Postgres(_) => Backend::Postgres,
        }
    }

    /// The dialect point for what has no common text. Row locks need none: `for update` and `for update skip locked`
    /// are left out on SQLite, where the one writer excludes everybody else.
    pub fn pick(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.backend() {
            Backend::Sqlite => sqlite,
            Backend::Postgres => postgres,
        }
    }

    /// `f` runs once, after this transaction is stored and before its caller is answered; never when it is not stored.
    /// It must be short and must not use the database: on SQLite it holds up the writer.
    pub fn after_commit(&mut self, f: impl FnOnce() + Send + 'static) {
        self.hooks.push(Box::new(f));
    }

    /// What is remembered of this database beside its rows, shared by all transactions: only what never changes, put
    /// there by [`Tx::after_commit`].
    pub fn cache<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut cache = self.stats.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = cache.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default())).clone();
        kept.downcast().expect("it is kept under its type")
    }

    /// The failure that ended the transaction although its closure may have answered with success.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failed.clone()
    }

    /// Empties the transaction for the next one on the same connection.
    pub(super) fn take_traces(&mut self) -> CommitEffects {
        self.failed = None;
        self.waiting.clear();
        CommitEffects { changed: std::mem::take(&mut self.changed), hooks: std::mem::take(&mut self.hooks) }
    }

    async fn start_statement(&mut self, sql: &str, given: &[Vec<Bind>], binds: &[Bind]) -> Result<(), Error> {
        self.flush().await?;
        let bad = |bind: &&Bind| matches!(bind, Bind::TooLarge(_) | Bind::ResultRef(_));
        if let Some(bad) = given.iter().flatten().chain(binds).find(bad) {
            return Err(Error::Statement(format!("{} was bound", bad.kind())));
        }
        if let Scope::SelectOne { looked, .. } = &mut self.scope
            && (std::mem::replace(looked, true) || !is_select(sql))
        {
            return Err(Error::Statement(format!("a select_one is one select, not also: {sql}")));
        }
        let runs = match self.backend() {
            Backend::Sqlite => u64::try_from(given.len()).unwrap_or(u64::MAX).max(1),
            Backend::Postgres => 1,
        };
        self.stats.statements.fetch_add(runs, Ordering::Relaxed);
        Ok(())
    }

    fn keep_change(&mut self, answer: Result<u64, Error>) -> Result<u64, Error> {
        let changed = self.keep_failure(answer)?;
        self.changed |= changed > 0;
        Ok(changed)
    }

    fn keep_rows(&mut self, sql: &str, answer: Result<Vec<Row>, Error>) -> Result<Vec<Row>, Error> {
        let rows = self.keep_failure(answer)?;
        self.changed |= !rows.is_empty() && sql.contains("returning");
        Ok(rows)
    }

    fn keep_failure<T>(&mut self, answer: Result<T, Error>) -> Result<T, Error> {
        answer.inspect_err(|error| self.failed = Some(error.clone()))
    }
}

fn is_select(sql: &str) -> bool {
    sql.trim_start().starts_with("select")
}

/// What the transactions of a database share.
#[derive(Default)]
pub(super) struct Stats {
    statements: AtomicU64,
    commits: AtomicU64,
    transactions: AtomicU64,
    cache: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Stats {
    pub fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_transaction(&self) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
    }

    pub fn counters(&self) -> Counters {
        Counters {
            sql_statements: self.statements.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            transactions: self.transactions.load(Ordering::Relaxed),
        }
    }
}

/// Runs hooks of stored transactions. One that panics is logged and takes nothing else down.
pub(super) fn run_hooks(hooks: Vec<Hook>) {
    for hook in hooks {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(hook)).is_err() {
            tracing::error!("a hook after a commit panicked");
        }
    }
}
