//! The connections to an SQLite file: their settings, and the version of SQLite that they need.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::sqlite::log_size::limit_log_size_by_database_size;
use crate::sqlite::statement::to_error;
use crate::tx::DbConnection;
use crate::{Error, Tx};

/// The oldest usable version of SQLite, 3.51.3 as SQLite numbers it. Older versions can lose commits when one
/// connection writes while another makes a checkpoint.
const OLDEST_VERSION: i32 = 3_051_003;
/// Number of prepared statements that a connection keeps.
const STATEMENT_CACHE: usize = 512;
/// Size of the page cache of the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 65_536;
/// Size of the page cache of each reader, in KiB.
const READER_CACHE_KIB: i64 = 16_384;
/// Maximum time to wait while another connection has the file locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Refuses a version of SQLite that can lose commits. `version` is its number: 3051003 for 3.51.3.
pub fn refuse_unsafe_version(version: i32) -> Result<(), Error> {
    if version >= OLDEST_VERSION {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "this program is linked with SQLite {}, which can lose commits; build it with 3.51.3 or newer",
        rusqlite::version()
    )))
}

/// Creates the database file, unless it exists, so that only its owner can read it, because it contains secrets. The
/// files of the write-ahead log (`-wal` and `-shm`) get the same permissions.
pub(super) fn create_private_file_if_absent(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

/// Creates an empty file that only its owner can read. An existing file is emptied and keeps its permissions.
pub(super) fn create_empty_private_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path).map(drop)
}

/// Opens the file for reading and writing, with the settings that all connections share.
pub(super) fn open_connection(path: &Path) -> Result<Connection, Error> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        // A text in double quotes is a name of a column or table, as on PostgreSQL, and never a string.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // Keeps SQLite from planning a statement by its bound values, which would compile it again for other values.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(connection)
    };
    open().map_err(|e| to_error(&e))
}

/// Opens the connection of the writer. Fails when the file cannot have a write-ahead log.
pub(super) fn open_writer_connection(path: &Path) -> Result<Connection, Error> {
    let connection = open_connection(path)?;
    let configure = || {
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        Ok(mode)
    };
    let mode = configure().map_err(|e| to_error(&e))?;
    limit_log_size_by_database_size(&connection)?;
    if mode != "wal" {
        return Err(Error::Unsupported(format!(
            "{} cannot use a write-ahead log (its journal mode is {mode}); put it on a local file system",
            path.display()
        )));
    }
    Ok(connection)
}

/// Opens a connection that can only read.
pub(super) fn open_reader_connection(path: &Path) -> Result<Connection, Error> {
    let connection = open_connection(path)?;
    let configure = || {
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)
    };
    configure().map_err(|e| to_error(&e))?;
    Ok(connection)
}

/// Returns the SQLite connection of a transaction. The transaction must run on SQLite.
pub(super) fn sqlite_connection(tx: &Tx) -> &Connection {
    match &tx.connection {
        DbConnection::Sqlite(connection) => connection,
        DbConnection::Postgres(_) => unreachable!("the threads of SQLite hold connections of SQLite only"),
    }
}
