//! The database: named transactions, SQL statements that work on both databases, and rows. This is the only crate that
//! uses rusqlite or sqlx.
//!
//! A feature writes one SQL text with `$1` placeholders for both databases; columns are BIGINT, TEXT and BLOB or BYTEA.
//! A transaction is a closure that awaits nothing but its [`Tx`]. It runs to its end even when its caller is dropped,
//! so a cancelled request never leaves a transaction open, and its changes may be stored although no caller waits for
//! them.

mod tx;
mod transaction_body;
mod value;
mod queued_statements;
mod deferred_statements;
mod batch_rows;
mod stats;
mod error;
mod statement_macros;
mod text_enum;
mod migrations;
pub mod lease;
pub mod instance_lock;
pub mod file_lock;
mod integrity;
mod postgres;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

pub use batch_rows::BatchRows;
pub use error::{Constraint, Error};
pub use integrity::IntegrityReport;
pub use queued_statements::ResultRef;
pub use stats::Counters;
pub use transaction_body::TransactionBody;
pub use tx::Tx;
pub use value::{Bind, FromValue, Row, Value};

use stats::Stats;

/// The address of the database, and the number of connections to open.
#[derive(Clone)]
pub struct Config {
    /// The address: `sqlite:PATH` or `postgres://…`. An address of PostgreSQL may contain a password.
    pub url: String,
    /// Number of reader threads of SQLite; at least one is started.
    pub readers: u32,
    /// Maximum number of connections to PostgreSQL; at least one is allowed.
    pub pg_pool: u32,
}

impl Config {
    /// Returns a configuration for a small machine: 4 reader threads, 16 connections.
    pub fn new(url: impl Into<String>) -> Config {
        Config { url: url.into(), readers: 4, pg_pool: 16 }
    }
}

/// `Debug` writes all fields except the URL, which may contain a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("readers", &self.readers).field("pg_pool", &self.pg_pool).finish_non_exhaustive()
    }
}

/// The database software behind a [`Db`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// SQLite: a file that this process opens.
    Sqlite,
    /// PostgreSQL: a server, version 14 or newer.
    Postgres,
}

/// A handle to an open database. Clones share its connections.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    engine: Engine,
    stats: Arc<Stats>,
    /// A value that is dropped together with the last handle, such as the temporary database of a test.
    _owned: Option<Box<dyn Any + Send + Sync>>,
}

/// The open database: the threads and connections of SQLite, or the connections to PostgreSQL.
enum Engine {
    Sqlite(sqlite::Engine),
    Postgres(postgres::Engine),
}

impl Db {
    /// Opens the database and checks its version and settings. The schema is not changed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the URL, the version or a setting of the database cannot be used, and
    /// [`Error::Unavailable`] when the database cannot be reached.
    pub async fn open(config: &Config) -> Result<Db, Error> {
        Db::open_with_value_to_drop(config, None).await
    }

    /// Opens the database as [`Db::open`] does. `owned`, such as the temporary database of a test, is dropped together
    /// with the last handle.
    async fn open_with_value_to_drop(config: &Config, owned: Option<Box<dyn Any + Send + Sync>>) -> Result<Db, Error> {
        let stats = Arc::new(Stats::default());
        let engine = if let Some(path) = config.url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            Engine::Sqlite(sqlite::Engine::open(Path::new(path), config.readers, &stats)?)
        } else if config.url.starts_with("postgres:") || config.url.starts_with("postgresql:") {
            Engine::Postgres(postgres::Engine::open(&config.url, config.pg_pool, stats.clone()).await?)
        } else {
            return Err(Error::Unsupported("the database URL must start with `sqlite:` or `postgres:`".into()));
        };
        Ok(Db(Arc::new(Inner { engine, stats, _owned: owned })))
    }

    /// Applies the pending migrations, each in a transaction of its own, and returns their names.
    ///
    /// # Errors
    /// [`Error::Migration`] when the applied migrations are not the ones that this version knows or one of them fails,
    /// and [`Error::Unsupported`] when an unreleased version made the database.
    pub async fn migrate(&self) -> Result<Vec<String>, Error> {
        migrations::apply_pending_migrations(self, migrations::ALL).await
    }

    /// Returns the names of the migrations that were not applied yet.
    ///
    /// # Errors
    /// The same as [`Db::migrate`].
    pub async fn pending_migrations(&self) -> Result<Vec<String>, Error> {
        migrations::list_pending_migrations(self, migrations::ALL).await
    }

    /// Runs `body` in a transaction and returns when its changes are durable. `name` names the transaction in logs.
    ///
    /// # Errors
    /// The error of `body`, or an [`Error`] of the database. Nothing is stored then, except that after
    /// [`Error::CommitUnknown`] the changes may be stored.
    pub async fn write<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        F: TransactionBody<T, E>,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.write(name, body).await,
            Engine::Postgres(engine) => engine.write(name, postgres::TimeLimit::Standard, body).await,
        }
    }

    /// Does the same as [`Db::write`], but PostgreSQL sets no time limit for the whole transaction, because a migration
    /// may rewrite a large table. On SQLite no transaction has a time limit.
    async fn write_without_time_limit<T, F>(&self, name: &'static str, body: F) -> Result<T, Error>
    where
        F: TransactionBody<T, Error>,
        T: Send + 'static,
    {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.write(name, body).await,
            Engine::Postgres(engine) => engine.write(name, postgres::TimeLimit::None, body).await,
        }
    }

    /// Runs `body` in a read-only transaction on one snapshot of the committed data.
    ///
    /// # Errors
    /// The error of `body`, or an [`Error`] of the database.
    pub async fn read<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        F: TransactionBody<T, E>,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.read(name, body).await,
            Engine::Postgres(engine) => engine.read(name, postgres::TimeLimit::Standard, body).await,
        }
    }

    /// Does the same as [`Db::read`], but without a time limit for the whole transaction. It is for commands that read
    /// all tables. Each statement still has its own time limit.
    ///
    /// # Errors
    /// The error of `body`, or an [`Error`] of the database.
    pub async fn read_without_time_limit<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        F: TransactionBody<T, E>,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.read(name, body).await,
            Engine::Postgres(engine) => engine.read(name, postgres::TimeLimit::None, body).await,
        }
    }

    /// Does the same as [`Db::read`], for a body that runs exactly one `select`. A single statement sees one snapshot
    /// even without a transaction, so no transaction is begun. On SQLite the statement runs on the caller's thread, so
    /// it must be fast: use it only for rows that an index finds.
    ///
    /// # Errors
    /// The error of `body`, or an [`Error`] of the database; [`Error::Statement`] for a second statement or a change.
    pub async fn run_body_as_select_with_fallback<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        F: TransactionBody<T, E>,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.run_body_as_select_with_fallback(name, body).await,
            Engine::Postgres(engine) => engine.run_body_as_select_with_fallback(name, body).await,
        }
    }

    /// Returns the database software behind this handle.
    pub fn backend(&self) -> Backend {
        match &self.0.engine {
            Engine::Sqlite(_) => Backend::Sqlite,
            Engine::Postgres(_) => Backend::Postgres,
        }
    }

    /// Returns the numbers of statements, commits and transactions since the database was opened.
    pub fn counters(&self) -> Counters {
        self.0.stats.counters()
    }

    /// Closes the database: waits for the transactions that were submitted before and refuses later ones with
    /// [`Error::Unavailable`]. Every clone of this handle is closed too.
    pub async fn close(&self) {
        match &self.0.engine {
            Engine::Sqlite(engine) => engine.close().await,
            Engine::Postgres(engine) => engine.close().await,
        }
    }

    /// Writes a consistent copy of a running SQLite database to a new file, which only its owner can read, and runs the
    /// integrity checks of SQLite on it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on PostgreSQL, when the file exists already, and when the copy is damaged;
    /// [`Error::Unavailable`] when the copy cannot be written.
    pub async fn backup(&self, to: &Path) -> Result<(), Error> {
        if self.backend() == Backend::Postgres {
            return Err(Error::Unsupported(
                "settled does not copy a PostgreSQL database; use pg_dump or a base backup".into(),
            ));
        }
        let (inner, to) = (self.0.clone(), to.to_owned());
        let copy = tokio::task::spawn_blocking(move || match &inner.engine {
            Engine::Sqlite(engine) => engine.backup(&to),
            Engine::Postgres(_) => unreachable!("a PostgreSQL database was refused above"),
        });
        copy.await.map_err(|e| Error::Unavailable(format!("the backup ended early: {e}")))?
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({:?})", self.backend())
    }
}

/// A row that the current transaction has locked. Only functions of stores whose names start with `lock_` create one.
#[derive(Debug)]
pub struct Locked<T>(T);

impl<T> Locked<T> {
    /// Marks `row` as locked. Only stores may call this function, after they have locked the row.
    pub fn new(row: T) -> Locked<T> {
        Locked(row)
    }

    /// Returns the row as a plain value. The row stays locked until the end of the transaction.
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

/// Compares the number of rows that a statement changed with the number that the caller expected.
///
/// # Errors
/// [`Error::UnexpectedRowCount`] when they differ: the rows were not in the state that the caller relied on.
pub fn expect_changed(found: u64, expected: u64) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::UnexpectedRowCount { expected, found }) }
}
