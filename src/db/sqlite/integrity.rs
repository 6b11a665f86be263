//! The integrity checks of SQLite.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::Error;
use crate::sqlite::statement::to_error;

/// Returns the damages that `integrity_check` and `foreign_key_check` find: at most 100 of each check.
pub fn find_damages(connection: &Connection) -> Result<Vec<String>, Error> {
    match run_integrity_pragmas(connection) {
        Ok(damages) => Ok(damages),
        // A database can be damaged so much that the checks themselves fail.
        Err(error) if is_damage(&error) => Ok(vec![error.to_string()]),
        Err(error) => Err(to_error(&error)),
    }
}

/// Returns the damages of a file that no other program uses, such as a backup. The file is opened for reading and
/// writing, because SQLite does not check the constraints of rows on a read-only connection; `query_only` prevents
/// changes.
pub fn find_damages_of_unused_file(file: &Path) -> Result<Vec<String>, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(file, flags)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    match open() {
        Ok(connection) => find_damages(&connection),
        Err(error) if is_damage(&error) => Ok(vec![error.to_string()]),
        Err(error) => Err(to_error(&error)),
    }
}

fn run_integrity_pragmas(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut integrity = connection.prepare("pragma integrity_check(100)")?;
    let lines: Vec<String> = integrity.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut damages: Vec<String> = lines.into_iter().filter(|line| line != "ok").collect();
    let mut references = connection.prepare("pragma foreign_key_check")?;
    let rows = references.query_map([], |row| {
        let (table, id, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(format!("row {} of {table} references a row of {parent} that does not exist", id.unwrap_or_default()))
    })?;
    damages.extend(rows.take(100).collect::<rusqlite::Result<Vec<_>>>()?);
    Ok(damages)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
