//! SQLite: one writer thread that commits in groups, and reader threads that see what is committed.

mod command;
mod select_one;
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

use crate::attempt::Body;
use crate::tx::{DbConnection, Stats};
use crate::{Error, Tx};
use command::{Message, submit};
use select_one::SelectOnes;
use statement::error_of;
use writer::Writer;

/// Older versions lose commits when two connections write and checkpoint at once.
const OLDEST_VERSION: i32 = 3_051_003;
const QUEUE_MAX: usize = 4096;
const STATEMENT_CACHE: usize = 512;
/// 64 MiB of write-ahead log between checkpoints, which only the writer makes.
const CHECKPOINT_PAGES: i64 = 16_384;
const WRITER_CACHE_KIB: i64 = 65_536;
const READER_CACHE_KIB: i64 = 16_384;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Engine {
    path: PathBuf,
    readers: u32,
    writes: mpsc::Sender<Message>,
    reads: mpsc::Sender<Message>,
    glances: SelectOnes,
}

impl Engine {
    pub fn open(path: &Path, readers: u32, stats: &Arc<Stats>) -> Result<Engine, Error> {
        check_version(rusqlite::version_number())?;
        create_private(path).map_err(|e| Error::Unavailable(format!("cannot create {}: {e}", path.display())))?;
        let (writes, write_queue) = mpsc::channel(QUEUE_MAX);
        let (reads, read_queue) = mpsc::channel(QUEUE_MAX);
        let writer = Tx::new(DbConnection::Sqlite(open_writer(path)?), stats.clone());
        let glances = SelectOnes::open(path, readers.max(1), stats)?;
        let engine = Engine { path: path.to_owned(), readers: readers.max(1), writes, reads, glances };
        let writer_tally = stats.clone();
        spawn("db-writer".to_owned(), move || Writer::new(writer, writer_tally).run(write_queue))?;

        let read_queue = Arc::new(Mutex::new(read_queue));
        for number in 1..=engine.readers {
            let reader = Tx::new(DbConnection::Sqlite(open_reader(path)?), stats.clone());
            let (stats, queue) = (stats.clone(), read_queue.clone());
            spawn(format!("db-reader-{number}"), move || reader::run(reader, &stats, &queue))?;
        }
        Ok(engine)
    }

    pub async fn write<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Body<T, E>,
    {
        submit(&self.writes, name, body).await
    }

    pub async fn read<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Body<T, E>,
    {
        submit(&self.reads, name, body).await
    }

    /// On the thread of the caller, for some microseconds; it queues with the others only when all connections are in use.
    pub async fn select_one<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Body<T, E>,
    {
        match self.glances.take() {
            Some(tx) => self.glances.run(name, tx, body),
            None => submit(&self.reads, name, body).await,
        }
    }

    /// What was submitted before is done first; what comes later is refused.
    pub async fn close(&self) {
        self.glances.close();
        let mut ends = Vec::new();
        for _ in 0..self.readers {
            let (end, ended) = oneshot::channel();
            ends.extend(self.reads.send(Message::Close(end)).await.is_ok().then_some(ended));
        }
        for ended in ends {
            // A reader that is gone already dropped its end.
            let _gone = ended.await;
        }
        let (end, ended) = oneshot::channel();
        if self.writes.send(Message::Close(end)).await.is_ok() {
            let _gone = ended.await;
        }
    }

    /// A consistent copy while writers go on; the target appears complete and synced, or not at all.
    pub fn backup(&self, to: &Path) -> Result<(), Error> {
        let failed = |what: &str, e: &dyn std::fmt::Display| Error::Unavailable(format!("backup: {what}: {e}"));
        if to.try_exists().map_err(|e| failed("cannot look at the target", &e))? {
            return Err(Error::Unsupported(format!("{} exists already; a backup never overwrites", to.display())));
        }
        let mut part = to.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // SQLite fills an empty file and keeps its mode.
        create_empty(&part).map_err(|e| failed("cannot create the target", &e))?;
        let text = part.to_str().ok_or_else(|| Error::Unsupported("the backup's path is not UTF-8".into()))?;
        connect(&self.path)?.execute("vacuum into ?1", [text]).map_err(|e| error_of(&e))?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(&part).and_then(|file| file.sync_all()).map_err(|e| failed("cannot sync the copy", &e))?;
        fs::rename(&part, to).map_err(|e| failed("cannot name the copy", &e))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed("cannot sync its folder", &e))
    }
}

pub(super) fn check_version(version: i32) -> Result<(), Error> {
    if version >= OLDEST_VERSION {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "this program is linked with SQLite {}, which can lose commits; 3.51.3 or newer is needed",
        rusqlite::version()
    )))
}

/// The database holds secrets: nobody else may read it, nor the log and index files that inherit its mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

fn create_empty(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path).map(drop)
}

fn spawn(name: String, f: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name(name).spawn(f);
    thread.map(drop).map_err(|e| Error::Unavailable(format!("cannot start a database thread: {e}")))
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        // "text" in double quotes is a name, as on PostgreSQL, never a string.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // Otherwise a statement that chose a partial index by a bound value is compiled again for every other value.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(connection)
    };
    open().map_err(|e| error_of(&e))
}

fn open_writer(path: &Path) -> Result<Connection, Error> {
    let connection = connect(path)?;
    let configure = || {
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        Ok(mode)
    };
    let mode = configure().map_err(|e| error_of(&e))?;
    if mode != "wal" {
        return Err(Error::Unsupported(format!("{} cannot keep a write-ahead log ({mode})", path.display())));
    }
    Ok(connection)
}

fn open_reader(path: &Path) -> Result<Connection, Error> {
    let connection = connect(path)?;
    let configure = || {
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)
    };
    configure().map_err(|e| error_of(&e))?;
    Ok(connection)
}

fn connection(tx: &Tx) -> &Connection {
    match &tx.link {
        DbConnection::Sqlite(connection) => connection,
        DbConnection::Postgres(_) => unreachable!("a thread of SQLite holds a connection of SQLite"),
    }
}
