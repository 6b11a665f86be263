//! Statements, rows and errors in SQLite's own words.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ffi};

use crate::batch::Ids;
use crate::batch_rows::{ONCE, for_sqlite};
use crate::error::Constraint;
use crate::{Bind, Error, Row};

/// Runs once for each given row; the rows changed by all runs are counted.
pub fn execute(connection: &Connection, sql: &'static str, given: &[Vec<Bind>], binds: &[Bind]) -> Result<u64, Error> {
    let mut prepared = Prepared::new(connection, sql, given, binds, Answer::Rows)?;
    let mut changed = 0;
    for row in given {
        prepared.bind(binds, row)?;
        let before = connection.total_changes();
        prepared.statement.raw_execute().map_err(|e| error_of(&e))?;
        // `changes` would repeat the number of an earlier statement when this one is not a change of rows.
        changed += if connection.total_changes() == before { 0 } else { connection.changes() };
    }
    Ok(changed)
}

/// Runs once for each given row; the rows of all runs follow each other.
pub fn rows(
    connection: &Connection,
    sql: &'static str,
    given: &[Vec<Bind>],
    binds: &[Bind],
) -> Result<Vec<Row>, Error> {
    let mut prepared = Prepared::new(connection, sql, given, binds, Answer::Rows)?;
    let columns = prepared.plan.columns.clone();
    let mut found = Vec::new();
    for row in given {
        prepared.bind(binds, row)?;
        let mut rows = prepared.statement.raw_query();
        while let Some(row) = rows.next().map_err(|e| error_of(&e))? {
            let value =
                |place| row.get_ref(place).map_err(|e| error_of(&e)).and_then(|value| read(value, &columns, place));
            let values = (0..columns.len()).map(value).collect::<Result<_, Error>>()?;
            found.push(Row::new(columns.clone(), values));
        }
    }
    Ok(found)
}

/// Of a statement that returns ids: how many, and the least.
pub fn ids(connection: &Connection, sql: &'static str, binds: &[Bind]) -> Result<Ids, Error> {
    let mut prepared = Prepared::new(connection, sql, ONCE, binds, Answer::Ids)?;
    prepared.bind(binds, &[])?;
    if prepared.plan.inserts_one {
        let before = connection.total_changes();
        prepared.statement.raw_execute().map_err(|e| error_of(&e))?;
        let inserted = connection.total_changes() != before;
        return Ok(Ids { rows: u64::from(inserted), first: inserted.then(|| connection.last_insert_rowid()) });
    }
    let mut rows = prepared.statement.raw_query();
    let mut ids = Ids::default();
    while let Some(row) = rows.next().map_err(|e| error_of(&e))? {
        let id = row.get(0).map_err(|e| error_of(&e))?;
        ids = Ids { rows: ids.rows + 1, first: Some(ids.first.map_or(id, |first: i64| first.min(id))) };
    }
    Ok(ids)
}

pub fn batch(connection: &Connection, sql: &str) -> Result<(), Error> {
    connection.execute_batch(sql).map_err(|e| error_of(&e))
}

struct Prepared<'c> {
    statement: CachedStatement<'c>,
    plan: Arc<Plan>,
}

/// What is the same for every run of a statement, worked out once: a statement is run thousands of times a second.
struct Plan {
    /// As SQLite understands it.
    text: String,
    /// Which of the binds and, behind them, of the row's values stands at each place. SQLite numbers `$3` by where it
    /// first stands, PostgreSQL by its name; the name holds here as well.
    places: Vec<usize>,
    columns: Arc<[Box<str>]>,
    /// It inserts one row at most and tells its id otherwise than by `returning`, for which SQLite makes a table each time.
    inserts_one: bool,
}

/// What is wanted of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    /// Its rows, or how many it changed.
    Rows,
    /// The ids of what it inserts.
    Ids,
}

/// By where the text stands, which is there as long as the process, and how many values precede those of a row.
type Plans = HashMap<(*const u8, usize, usize, Answer), Arc<Plan>>;

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::default();
}

impl Plan {
    fn of(connection: &Connection, sql: &'static str, binds: usize, answer: Answer) -> Result<Arc<Plan>, Error> {
        let key = (sql.as_ptr(), sql.len(), binds, answer);
        if let Some(known) = PLANS.with_borrow(|plans| plans.get(&key).cloned()) {
            return Ok(known);
        }
        let plan = Arc::new(Plan::new(connection, sql, binds, answer)?);
        PLANS.with_borrow_mut(|plans| plans.insert(key, plan.clone()));
        Ok(plan)
    }

    fn new(connection: &Connection, sql: &str, binds: usize, answer: Answer) -> Result<Plan, Error> {
        let mut text = for_sqlite(sql, binds)?;
        let insert = if answer == Answer::Ids { insert_of_one(connection, &text) } else { None };
        let inserts_one = insert.is_some();
        text = insert.unwrap_or(text);
        if text.contains("for update") {
            text = text.replace("for update skip locked", "").replace("for update", "");
        }
        let statement = connection.prepare_cached(&text).map_err(|e| error_of(&e))?;
        let wanted = statement.parameter_count();
        let place = |place| {
            let number = statement.parameter_name(place).and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
            let value = number.and_then(|number| number.checked_sub(1)).filter(|value| *value < wanted);
            value.ok_or_else(|| Error::Statement(format!("place {place} is not $1 to ${wanted} in: {sql}")))
        };
        let places = (1..=wanted).map(place).collect::<Result<_, Error>>()?;
        let columns = statement.column_names().into_iter().map(Box::from).collect();
        drop(statement);
        Ok(Plan { text, places, columns, inserts_one })
    }
}

/// `insert into t (…) values (…) returning id` without its end, where that id is the number by which SQLite itself knows the
/// row.
fn insert_of_one(connection: &Connection, text: &str) -> Option<String> {
    let (insert, returned) = text.rsplit_once("returning ")?;
    let (table, rest) = insert.trim_start().strip_prefix("insert into ")?.split_once(' ')?;
    if !rest.contains(" values (") || rest.contains("), (") || rest.contains("select") {
        return None;
    }
    let column = returned.split_whitespace().next()?;
    let (kind, _, _, is_key, _) = connection.column_metadata(None, table, column).ok()?;
    let is_number = kind.is_some_and(|kind| kind.to_bytes().eq_ignore_ascii_case(b"integer"));
    (is_number && is_key).then(|| insert.to_owned())
}

impl Prepared<'_> {
    fn new<'c>(
        connection: &'c Connection,
        sql: &'static str,
        given: &[Vec<Bind>],
        binds: &[Bind],
        answer: Answer,
    ) -> Result<Prepared<'c>, Error> {
        let plan = Plan::of(connection, sql, binds.len(), answer)?;
        let (wanted, values) = (plan.places.len(), binds.len() + given.first().map_or(0, Vec::len));
        if wanted != values {
            return Err(Error::Statement(format!("{values} values for {wanted} places in: {sql}")));
        }
        let statement = connection.prepare_cached(&plan.text).map_err(|e| error_of(&e))?;
        Ok(Prepared { statement, plan })
    }

    fn bind(&mut self, binds: &[Bind], row: &[Bind]) -> Result<(), Error> {
        for (place, value) in (1..).zip(&self.plan.places) {
            let bind = binds.get(*value).or_else(|| row.get(value.checked_sub(binds.len())?));
            let bind = bind.ok_or_else(|| Error::Statement("the given rows differ in length".into()))?;
            let value = match bind {
                Bind::Null => ValueRef::Null,
                Bind::Int(value) => ValueRef::Integer(*value),
                Bind::Text(value) => ValueRef::Text(value.as_bytes()),
                Bind::Blob(value) => ValueRef::Blob(value),
                Bind::TooLarge(_) | Bind::ResultRef(_) => {
                    return Err(Error::Statement(format!("{} was bound", bind.kind())));
                }
            };
            self.statement.raw_bind_parameter(place, ToSqlOutput::Borrowed(value)).map_err(|e| error_of(&e))?;
        }
        Ok(())
    }
}

fn read(value: ValueRef<'_>, columns: &[Box<str>], place: usize) -> Result<Bind, Error> {
    let refused = |reason: &str| {
        let column = columns.get(place).map(ToString::to_string).unwrap_or_default();
        Error::Value { column, reason: reason.to_owned() }
    };
    match value {
        ValueRef::Null => Ok(Bind::Null),
        ValueRef::Integer(value) => Ok(Bind::Int(value)),
        ValueRef::Text(value) => String::from_utf8(value.to_vec()).map(Bind::Text).map_err(|_| refused("not UTF-8")),
        ValueRef::Blob(value) => Ok(Bind::Blob(value.to_vec())),
        ValueRef::Real(_) => Err(refused("a floating-point number")),
    }
}

pub fn error_of(error: &rusqlite::Error) -> Error {
    let Some(code) = error.sqlite_error() else { return Error::Statement(error.to_string()) };
    let kind = match code.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            Some(Constraint::Unique)
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Some(Constraint::ForeignKey),
        ffi::SQLITE_CONSTRAINT_CHECK => Some(Constraint::Check),
        ffi::SQLITE_CONSTRAINT_NOTNULL => Some(Constraint::NotNull),
        ffi::SQLITE_CONSTRAINT_TRIGGER => Some(Constraint::Trigger),
        _ => None,
    };
    if let Some(kind) = kind {
        return Error::Constraint { kind, detail: error.to_string() };
    }
    // The primary code stands in the low byte.
    match code.extended_code & 0xff {
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => Error::Conflict(error.to_string()),
        ffi::SQLITE_IOERR
        | ffi::SQLITE_FULL
        | ffi::SQLITE_CANTOPEN
        | ffi::SQLITE_NOMEM
        | ffi::SQLITE_CORRUPT
        | ffi::SQLITE_NOTADB
        | ffi::SQLITE_INTERRUPT
        | ffi::SQLITE_PERM
        | ffi::SQLITE_AUTH => Error::Unavailable(error.to_string()),
        _ => Error::Statement(error.to_string()),
    }
}
