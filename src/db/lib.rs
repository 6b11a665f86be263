//! The database: named transactions, portable statements, rows. The only place that names rusqlite or sqlx.
//!
//! A feature writes one SQL text with `$1` placeholders; columns are BIGINT, TEXT and BLOB or BYTEA. Every transaction is
//! a closure that awaits nothing but its [`Tx`]; a caller that goes away never leaves one open. What it asked for is
//! done, whether or not it waits for the answer.

mod attempt;
pub mod instance_lock;
mod batch_rows;
mod error;
pub mod lease;
mod batch;
pub mod lock;
mod migrations;
mod postgres;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;
mod tx;
mod value;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

pub use attempt::Body;
pub use batch::{Batch, BatchResult, ResultRef};
pub use batch_rows::BatchRows;
pub use error::{Constraint, Error};
pub use tx::Tx;
pub use value::{Bind, FromValue, Row, Value};

use tx::Stats;

#[derive(Clone)]
pub struct Config {
    /// `sqlite:PATH` or `postgres://…`; the latter may hold a password.
    pub url: String,
    /// Reader threads of SQLite.
    pub readers: u32,
    /// Connections to PostgreSQL.
    pub pg_pool: u32,
}

impl Config {
    /// With as many readers and connections as a small machine needs.
    pub fn new(url: impl Into<String>) -> Config {
        Config { url: url.into(), readers: 4, pg_pool: 16 }
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("readers", &self.readers).field("pg_pool", &self.pg_pool).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// Since the database was opened; exact, and only growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Statements of closures, without those that begin and end transactions.
    pub sql_statements: u64,
    /// Durable commits that changed rows; a group of transactions counts once.
    pub commits: u64,
    /// Closures that were run, refused ones and reading ones included.
    pub transactions: u64,
}

#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    engine: Engine,
    stats: Arc<Stats>,
    /// Goes when the last handle goes: the scratch folder of a test.
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

enum Engine {
    Sqlite(sqlite::Engine),
    Postgres(postgres::Engine),
}

impl Db {
    /// Opens and checks versions and settings; changes no schema.
    pub async fn open(config: &Config) -> Result<Db, Error> {
        Db::open_keeping(config, None).await
    }

    async fn open_keeping(config: &Config, keep: Option<Box<dyn Any + Send + Sync>>) -> Result<Db, Error> {
        let stats = Arc::new(Stats::default());
        let engine = if let Some(path) = config.url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            Engine::Sqlite(sqlite::Engine::open(Path::new(path), config.readers, &stats)?)
        } else if config.url.starts_with("postgres:") || config.url.starts_with("postgresql:") {
            Engine::Postgres(postgres::Engine::open(&config.url, config.pg_pool, stats.clone()).await?)
        } else {
            return Err(Error::Unsupported("the database's URL starts with neither `sqlite:` nor `postgres:`".into()));
        };
        Ok(Db(Arc::new(Inner { engine, stats, _keep: keep })))
    }

    /// Applies what is pending, each migration in a transaction of its own, and returns their names.
    pub async fn migrate(&self) -> Result<Vec<String>, Error> {
        migrations::apply(self, migrations::ALL).await
    }

    pub async fn pending_migrations(&self) -> Result<Vec<String>, Error> {
        migrations::pending(self, migrations::ALL).await
    }

    /// Runs `body` in a transaction and returns when it is durable, or when nothing of it is stored. The name is for logs.
    pub async fn write<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        F: Body<T, E>,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.write(name, body).await,
            Engine::Postgres(engine) => engine.write(name, postgres::Limit::Usual, body).await,
        }
    }

    /// Like [`Db::write`], without the limits that a migration may pass.
    async fn write_at_length<T, F>(&self, name: &'static str, body: F) -> Result<T, Error>
    where
        F: Body<T, Error>,
        T: Send + 'static,
    {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.write(name, body).await,
            Engine::Postgres(engine) => engine.write(name, postgres::Limit::None, body).await,
        }
    }

    /// Runs `body` on a snapshot of what is committed; it cannot change anything.
    pub async fn read<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        F: Body<T, E>,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.read(name, body).await,
            Engine::Postgres(engine) => engine.read(name, postgres::Limit::Usual, body).await,
        }
    }

    /// Like [`Db::read`], without a limit to all of it: for a command that reads everything. Each statement has its own.
    pub async fn read_at_length<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        F: Body<T, E>,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.read(name, body).await,
            Engine::Postgres(engine) => engine.read(name, postgres::Limit::None, body).await,
        }
    }

    /// Like [`Db::read`], for a body of one `select`, which sees one moment by itself: no transaction is begun for it, and on
    /// SQLite no thread is changed for it. For rows that an index finds.
    pub async fn select_one<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        F: Body<T, E>,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.select_one(name, body).await,
            Engine::Postgres(engine) => engine.select_one(name, body).await,
        }
    }

    pub fn backend(&self) -> Backend {
        match &self.0.engine {
            Engine::Sqlite(_) => Backend::Sqlite,
            Engine::Postgres(_) => Backend::Postgres,
        }
    }

    pub fn counters(&self) -> Counters {
        self.0.stats.counters()
    }

    /// Ends what was begun and refuses what comes later.
    pub async fn close(&self) {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.close().await,
            Engine::Postgres(engine) => engine.close().await,
        }
    }

    /// A consistent copy of a running SQLite database, readable by its owner only; never overwrites.
    pub async fn backup(&self, to: &Path) -> Result<(), Error> {
        if self.backend() == Backend::Postgres {
            return Err(Error::Unsupported("a PostgreSQL database is backed up with pg_dump or base backups".into()));
        }
        let (inner, to) = (self.0.clone(), to.to_owned());
        let copy = tokio::task::spawn_blocking(move || match &inner.engine {
            Engine::Sqlite(engine) => engine.backup(&to),
            Engine::Postgres(_) => unreachable!("refused above"),
        });
        copy.await.map_err(|e| Error::Unavailable(format!("the backup ended early: {e}")))?
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({:?})", self.backend())
    }
}

/// A row that is locked by the transaction at hand. Only `lock_` functions of stores make one.
#[derive(Debug)]
pub struct Locked<T>(T);

impl<T> Locked<T> {
    pub fn new(row: T) -> Locked<T> {
        Locked(row)
    }

    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Counted changes: a statement that met another state than the caller believed must not pass.
pub fn expect_changed(found: u64, expected: u64) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Changed { expected, found }) }
}

/// `execute!(tx, "update … where id = $1", id)?` is the number of changed rows.
#[macro_export]
macro_rules! execute {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.execute(sql, binds).await
    }};
}

/// `rows!(tx, "select … where a = $1", a)?` is all rows.
#[macro_export]
macro_rules! rows {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.rows(sql, binds).await
    }};
}

/// `row!(tx, "select … where id = $1", id)?` is the row, if there is one.
#[macro_export]
macro_rules! row {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.row(sql, binds).await
    }};
}

/// One row for a statement that is given rows: `given![id, state]`.
#[macro_export]
macro_rules! given {
    ($($bind:expr),+ $(,)?) => { vec![$($crate::Bind::from($bind)),+] };
}

/// `rows_each!(tx, given, "with given (id bigint) select … from given, orders where …", mode)?` is all rows, in no order.
#[macro_export]
macro_rules! rows_each {
    ($tx:expr, $given:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let given: $crate::BatchRows = $given;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.rows_each(sql, given, binds).await
    }};
}

/// `deferred!(tx, "update … where id = $1", id)?` changes exactly one row; `deferred_each!` one for each given row.
#[macro_export]
macro_rules! deferred {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.execute_deferred(sql, Vec::new(), binds, Some(1)).await
    }};
}

/// `deferred_each!(tx, given, "with given (id bigint) update … from given where …", mode)?` changes one row for each.
#[macro_export]
macro_rules! deferred_each {
    ($tx:expr, $given:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let given: $crate::BatchRows = $given;
        let binds = vec![$($crate::Bind::from($bind)),*];
        let expected = u64::try_from(given.len()).unwrap_or(u64::MAX);
        match given.is_empty() {
            true => Ok(()),
            false => $tx.execute_deferred(sql, given, binds, Some(expected)).await,
        }
    }};
}

/// `statement!(chain, "insert into … values ($1) returning id", a)` adds a statement and promises the id that it returns.
#[macro_export]
macro_rules! statement {
    ($chain:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $chain.add(sql, binds)
    }};
}
