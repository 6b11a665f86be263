//! SQLite: one writer thread that commits transactions in groups, and reader threads that see the committed data.

mod command;
mod direct_readers;
mod log_size;
mod reader;
pub(super) mod statement;
mod writer;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use crate::transaction_body::TransactionBody;
use crate::tx::{DbConnection, Stats};
use crate::{Error, Tx};
use command::{Message, submit_command};
use direct_readers::DirectReaders;
use statement::to_error;
use writer::Writer;

/// The oldest usable version of SQLite. Older ones can lose commits when two connections write and checkpoint at the
/// same time.
const OLDEST_VERSION: i32 = 3_051_003;
/// Transactions that may wait for a thread; further callers wait before they are queued.
const QUEUE_MAX: usize = 4096;
const STATEMENT_CACHE: usize = 512;
const WRITER_CACHE_KIB: i64 = 65_536;
const READER_CACHE_KIB: i64 = 16_384;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// An open SQLite file and its threads.
pub(super) struct Engine {
    path: PathBuf,
    readers: u32,
    writes: mpsc::Sender<Message>,
    reads: mpsc::Sender<Message>,
    direct_readers: DirectReaders,
}

impl Engine {
    /// Opens the file, or creates it, and starts the writer thread and `readers` reader threads, at least one.
    pub fn open(path: &Path, readers: u32, stats: &Arc<Stats>) -> Result<Engine, Error> {
        check_version(rusqlite::version_number())?;
        create_private_file(path).map_err(|e| Error::Unavailable(format!("cannot create {}: {e}", path.display())))?;
        let (writes, write_queue) = mpsc::channel(QUEUE_MAX);
        let (reads, read_queue) = mpsc::channel(QUEUE_MAX);
        let writer = Tx::new(DbConnection::Sqlite(open_writer_connection(path)?), stats.clone());
        let direct_readers = DirectReaders::open(path, readers.max(1), stats)?;
        let engine = Engine { path: path.to_owned(), readers: readers.max(1), writes, reads, direct_readers };
        let writer_stats = stats.clone();
        spawn_thread("db-writer".to_owned(), move || Writer::new(writer, writer_stats).run_writer_thread(write_queue))?;

        let read_queue = Arc::new(Mutex::new(read_queue));
        for number in 1..=engine.readers {
            let reader = Tx::new(DbConnection::Sqlite(open_reader_connection(path)?), stats.clone());
            let (stats, queue) = (stats.clone(), read_queue.clone());
            spawn_thread(format!("db-reader-{number}"), move || reader::run_reader_thread(reader, &stats, &queue))?;
        }
        Ok(engine)
    }

    /// Returns the path of the database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `body` on the writer thread and returns when its changes are durable.
    pub async fn write<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: TransactionBody<T, E>,
    {
        submit_command(&self.writes, name, body).await
    }

    /// Runs `body` on a reader thread, on a snapshot of the committed data.
    pub async fn read<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: TransactionBody<T, E>,
    {
        submit_command(&self.reads, name, body).await
    }

    /// Runs on the thread of the caller, for some microseconds, or on a reader thread when all direct readers are in
    /// use.
    pub async fn select_one<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: TransactionBody<T, E>,
    {
        match self.direct_readers.take_idle_connection() {
            Some(tx) => self.direct_readers.run_select(name, tx, body),
            None => submit_command(&self.reads, name, body).await,
        }
    }

    /// Waits for the transactions that were submitted before, then refuses new ones.
    pub async fn close(&self) {
        self.direct_readers.close();
        let mut threads = Vec::new();
        for _ in 0..self.readers {
            let (closed, is_closed) = oneshot::channel();
            threads.extend(self.reads.send(Message::Close(closed)).await.is_ok().then_some(is_closed));
        }
        for is_closed in threads {
            // An error means that the thread has ended already.
            let _ended = is_closed.await;
        }
        let (closed, is_closed) = oneshot::channel();
        if self.writes.send(Message::Close(closed)).await.is_ok() {
            let _ended = is_closed.await;
        }
    }

    /// Copies the database while transactions go on. The target appears complete and synced to the disk, or not at all.
    pub fn backup(&self, to: &Path) -> Result<(), Error> {
        let failed = |step: &str, e: &dyn std::fmt::Display| Error::Unavailable(format!("backup: {step}: {e}"));
        if to.try_exists().map_err(|e| failed("cannot access the target", &e))? {
            return Err(Error::Unsupported(format!(
                "{} exists already; a backup never overwrites a file",
                to.display()
            )));
        }
        let mut part = to.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // `vacuum into` fills an existing empty file and keeps its permissions.
        create_empty_private_file(&part).map_err(|e| failed("cannot create the target", &e))?;
        let text =
            part.to_str().ok_or_else(|| Error::Unsupported("the path of the backup is not valid UTF-8".into()))?;
        open_connection(&self.path)?.execute("vacuum into ?1", [text]).map_err(|e| to_error(&e))?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(&part).and_then(|file| file.sync_all()).map_err(|e| failed("cannot sync the copy", &e))?;
        fs::rename(&part, to).map_err(|e| failed("cannot rename the copy", &e))?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| failed("cannot sync the folder of the copy", &e))
    }
}

/// Refuses a version (3.51.3 is 3051003) that can lose commits.
pub(super) fn check_version(version: i32) -> Result<(), Error> {
    if version >= OLDEST_VERSION {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "this program is linked with SQLite {}, which can lose commits; build it with 3.51.3 or newer",
        rusqlite::version()
    )))
}

/// Creates the file readable by its owner only, because it holds secrets. The log and index files inherit its
/// permissions.
fn create_private_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

fn create_empty_private_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path).map(drop)
}

fn spawn_thread(name: String, f: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name(name).spawn(f);
    thread.map(drop).map_err(|e| Error::Unavailable(format!("cannot start a database thread: {e}")))
}

fn open_connection(path: &Path) -> Result<Connection, Error> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        // A text in double quotes is a name, as on PostgreSQL, and never a string.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // Keeps SQLite from planning a statement by its bound values, which would compile it again for other values.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(connection)
    };
    open().map_err(|e| to_error(&e))
}

fn open_writer_connection(path: &Path) -> Result<Connection, Error> {
    let connection = open_connection(path)?;
    let configure = || {
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        Ok(mode)
    };
    let mode = configure().map_err(|e| to_error(&e))?;
    log_size::bound_log_by_database(&connection)?;
    if mode != "wal" {
        return Err(Error::Unsupported(format!(
            "{} cannot use a write-ahead log (its journal mode is {mode}); put it on a local file system",
            path.display()
        )));
    }
    Ok(connection)
}

fn open_reader_connection(path: &Path) -> Result<Connection, Error> {
    let connection = open_connection(path)?;
    let configure = || {
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)
    };
    configure().map_err(|e| to_error(&e))?;
    Ok(connection)
}

/// Returns the connection of a transaction of SQLite.
fn sqlite_connection(tx: &Tx) -> &Connection {
    match &tx.connection {
        DbConnection::Sqlite(connection) => connection,
        DbConnection::Postgres(_) => unreachable!("the threads of SQLite hold connections of SQLite only"),
    }
}
