//! A running transaction. The first statement that fails ends it: PostgreSQL accepts nothing more after an error, and so
//! the same holds on SQLite. Write `on conflict do nothing` where a duplicate is expected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::db::{Backend, Bind, Counters, Error, Row, postgres, sqlite};

pub struct Tx {
    pub(super) link: Link,
    tally: Arc<Tally>,
    failed: Option<Error>,
    changed: bool,
    hooks: Vec<Hook>,
}

pub(super) enum Link {
    Sqlite(rusqlite::Connection),
    Postgres(sqlx::PgConnection),
}

pub(super) type Hook = Box<dyn FnOnce() + Send>;

/// What a transaction leaves behind when its closure has ended.
pub(super) struct Traces {
    pub changed: bool,
    pub hooks: Vec<Hook>,
}

impl Tx {
    pub(super) fn new(link: Link, tally: Arc<Tally>) -> Tx {
        Tx { link, tally, failed: None, changed: false, hooks: Vec::new() }
    }

    /// Returns how many rows were changed.
    pub async fn execute(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<u64, Error> {
        self.start_statement(&binds)?;
        let answer = match &mut self.link {
            Link::Sqlite(connection) => sqlite::statement::execute(connection, sql, &binds),
            Link::Postgres(connection) => postgres::execute(connection, sql, binds).await,
        };
        let changed = self.keep_failure(answer)?;
        self.changed |= changed > 0;
        Ok(changed)
    }

    /// Reads all rows: bound the statement with a `limit`.
    pub async fn rows(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Vec<Row>, Error> {
        self.start_statement(&binds)?;
        let answer = match &mut self.link {
            Link::Sqlite(connection) => sqlite::statement::rows(connection, sql, &binds),
            Link::Postgres(connection) => postgres::rows(connection, sql, binds).await,
        };
        let rows = self.keep_failure(answer)?;
        self.changed |= !rows.is_empty() && !sql.trim_start().starts_with("select");
        Ok(rows)
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
        self.start_statement(&[])?;
        let answer = match &mut self.link {
            Link::Sqlite(connection) => sqlite::statement::batch(connection, sql),
            Link::Postgres(connection) => postgres::batch(connection, sql).await,
        };
        self.changed = true;
        self.keep_failure(answer)
    }

    pub fn backend(&self) -> Backend {
        match self.link {
            Link::Sqlite(_) => Backend::Sqlite,
            Link::Postgres(_) => Backend::Postgres,
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

    /// The failure that ended the transaction although its closure may have answered with success.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failed.clone()
    }

    /// Empties the transaction for the next one on the same connection.
    pub(super) fn take_traces(&mut self) -> Traces {
        self.failed = None;
        Traces { changed: std::mem::take(&mut self.changed), hooks: std::mem::take(&mut self.hooks) }
    }

    fn start_statement(&mut self, binds: &[Bind]) -> Result<(), Error> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        if binds.iter().any(|bind| matches!(bind, Bind::TooLarge(_))) {
            return Err(Error::Statement("an integer above 2^63 was bound".into()));
        }
        self.tally.statements.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn keep_failure<T>(&mut self, answer: Result<T, Error>) -> Result<T, Error> {
        answer.inspect_err(|error| self.failed = Some(error.clone()))
    }
}

#[derive(Default)]
pub(super) struct Tally {
    statements: AtomicU64,
    commits: AtomicU64,
    transactions: AtomicU64,
}

impl Tally {
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
