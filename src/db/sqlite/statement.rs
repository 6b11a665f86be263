//! Statements, rows and errors of SQLite.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ffi};

use crate::batch_rows::{RUN_ONCE, build_sqlite_sql_for_one_row};
use crate::error::Constraint;
use crate::queued_statements::ReturnedRows;
use crate::{Bind, Error, Row};

/// Runs a statement once for each given row and returns the number of rows that all runs changed.
pub fn execute_statement(
    connection: &Connection,
    sql: &'static str,
    given: &[Vec<Bind>],
    binds: &[Bind],
) -> Result<u64, Error> {
    let mut prepared =
        PreparedStatement::prepare_and_check_value_count(connection, sql, given, binds, ResultKind::Rows)?;
    let mut changed = 0;
    for row in given {
        prepared.bind_values(binds, row)?;
        let before = connection.total_changes();
        prepared.statement.raw_execute().map_err(|e| to_error(&e))?;
        // When this statement changes no rows, `changes` still returns the number of an earlier statement.
        changed += if connection.total_changes() == before { 0 } else { connection.changes() };
    }
    record_steps_for_tests(&prepared, given.len());
    Ok(changed)
}

/// Runs a statement once for each given row and returns the rows of all runs, one run after the other.
pub fn execute_returning_rows(
    connection: &Connection,
    sql: &'static str,
    given: &[Vec<Bind>],
    binds: &[Bind],
) -> Result<Vec<Row>, Error> {
    let mut prepared =
        PreparedStatement::prepare_and_check_value_count(connection, sql, given, binds, ResultKind::Rows)?;
    let columns = prepared.plan.columns.clone();
    let mut found = Vec::new();
    for row in given {
        prepared.bind_values(binds, row)?;
        let mut rows = prepared.statement.raw_query();
        while let Some(row) = rows.next().map_err(|e| to_error(&e))? {
            let value = |index| {
                row.get_ref(index).map_err(|e| to_error(&e)).and_then(|value| decode_value(value, &columns, index))
            };
            let values = (0..columns.len()).map(value).collect::<Result<_, Error>>()?;
            found.push(Row::new(columns.clone(), values));
        }
    }
    record_steps_for_tests(&prepared, given.len());
    Ok(found)
}

/// Runs a statement that returns a column `id`. Returns the number of returned ids and the smallest of them.
pub fn execute_returning_least_id(
    connection: &Connection,
    sql: &'static str,
    binds: &[Bind],
) -> Result<ReturnedRows, Error> {
    let mut prepared =
        PreparedStatement::prepare_and_check_value_count(connection, sql, RUN_ONCE, binds, ResultKind::Ids)?;
    prepared.bind_values(binds, &[])?;
    if prepared.plan.inserts_one {
        let before = connection.total_changes();
        prepared.statement.raw_execute().map_err(|e| to_error(&e))?;
        let inserted = connection.total_changes() != before;
        return Ok(ReturnedRows {
            count: u64::from(inserted),
            least_id: inserted.then(|| connection.last_insert_rowid()),
        });
    }
    let mut rows = prepared.statement.raw_query();
    let mut ids = ReturnedRows::default();
    while let Some(row) = rows.next().map_err(|e| to_error(&e))? {
        let id = row.get(0).map_err(|e| to_error(&e))?;
        ids =
            ReturnedRows { count: ids.count + 1, least_id: Some(ids.least_id.map_or(id, |least: i64| least.min(id))) };
    }
    drop(rows);
    record_steps_for_tests(&prepared, RUN_ONCE.len());
    Ok(ids)
}

/// Records how many steps a statement took that ran once, for tests that compare its work with the size of the tables.
#[cfg(feature = "testing")]
fn record_steps_for_tests(prepared: &PreparedStatement<'_>, runs: usize) {
    let steps = prepared.statement.reset_status(rusqlite::StatementStatus::VmStep);
    if runs == 1 {
        crate::testing::record_sqlite_steps(&prepared.plan.text, u32::try_from(steps).unwrap_or(u32::MAX));
    }
}

/// Does nothing outside tests.
#[cfg(not(feature = "testing"))]
fn record_steps_for_tests(_: &PreparedStatement<'_>, _: usize) {}

/// Runs several statements without bound values, such as those of a migration.
pub fn run_sql_script(connection: &Connection, sql: &str) -> Result<(), Error> {
    connection.execute_batch(sql).map_err(|e| to_error(&e))
}

/// A prepared statement, with the properties that are the same for every run.
struct PreparedStatement<'c> {
    statement: CachedStatement<'c>,
    plan: Arc<StatementPlan>,
}

/// The properties of a statement that are the same for every run. They are computed once, because a statement may run
/// thousands of times a second.
struct StatementPlan {
    /// The SQL text that SQLite runs. The rows of a batch statement are written out as placeholders.
    text: String,
    /// For each parameter of SQLite, the index of its value in the list of shared values followed by the values of the
    /// given row. SQLite numbers parameters in the order of their first places in the text. This list restores the
    /// meaning that they have on PostgreSQL: `$3` is the third value.
    value_indices: Vec<usize>,
    /// The names of the columns that the statement returns.
    columns: Arc<[Box<str>]>,
    /// True for an insert of at most one row whose id SQLite reports even without `returning`. Then `returning` is left
    /// out, because it would cost a temporary table at each run.
    inserts_one: bool,
}

/// The kind of result that the caller needs from a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ResultKind {
    /// The rows that the statement returns, or the number of rows that it changed.
    Rows,
    /// The ids that the statement returns.
    Ids,
}

/// The plans of statements. The key contains the address and the length of the SQL text, which is static, the number of
/// values that are not from a given row, and the kind of the result.
type StatementPlans = HashMap<(*const u8, usize, usize, ResultKind), Arc<StatementPlan>>;

thread_local! {
    static PLANS: RefCell<StatementPlans> = RefCell::default();
}

impl StatementPlan {
    /// Returns the plan of a statement from the cache of this thread, or creates it.
    fn find_or_create_plan(
        connection: &Connection,
        sql: &'static str,
        binds: usize,
        kind: ResultKind,
    ) -> Result<Arc<StatementPlan>, Error> {
        let key = (sql.as_ptr(), sql.len(), binds, kind);
        if let Some(known) = PLANS.with_borrow(|plans| plans.get(&key).cloned()) {
            return Ok(known);
        }
        let plan = Arc::new(StatementPlan::adapt_statement_to_sqlite(connection, sql, binds, kind)?);
        PLANS.with_borrow_mut(|plans| plans.insert(key, plan.clone()));
        Ok(plan)
    }

    fn adapt_statement_to_sqlite(
        connection: &Connection,
        sql: &str,
        binds: usize,
        kind: ResultKind,
    ) -> Result<StatementPlan, Error> {
        let mut text = build_sqlite_sql_for_one_row(sql, binds)?;
        let insert = if kind == ResultKind::Ids { strip_returning_if_id_is_rowid(connection, &text) } else { None };
        let inserts_one = insert.is_some();
        text = insert.unwrap_or(text);
        if text.contains("for update") {
            text = text.replace("for update skip locked", "").replace("for update", "");
        }
        let statement = connection.prepare_cached(&text).map_err(|e| to_error(&e))?;
        let count = statement.parameter_count();
        let value_index = |parameter| {
            let name = statement.parameter_name(parameter);
            let number = name.and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
            let index = number.and_then(|number| number.checked_sub(1)).filter(|index| *index < count);
            index.ok_or_else(|| Error::Statement(format!("parameter {parameter} is not $1 to ${count} in: {sql}")))
        };
        let value_indices = (1..=count).map(value_index).collect::<Result<_, Error>>()?;
        let columns = statement.column_names().into_iter().map(Box::from).collect();
        drop(statement);
        Ok(StatementPlan { text, value_indices, columns, inserts_one })
    }
}

/// Returns `insert into t (…) values (…) returning id` without `returning id`, if that id is the rowid of the table,
/// because SQLite reports the rowid anyway. `None` for any other statement.
fn strip_returning_if_id_is_rowid(connection: &Connection, text: &str) -> Option<String> {
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

impl PreparedStatement<'_> {
    fn prepare_and_check_value_count<'c>(
        connection: &'c Connection,
        sql: &'static str,
        given: &[Vec<Bind>],
        binds: &[Bind],
        kind: ResultKind,
    ) -> Result<PreparedStatement<'c>, Error> {
        let plan = StatementPlan::find_or_create_plan(connection, sql, binds.len(), kind)?;
        let (count, values) = (plan.value_indices.len(), binds.len() + given.first().map_or(0, Vec::len));
        if count != values {
            return Err(Error::Statement(format!("{values} values for {count} parameters in: {sql}")));
        }
        let statement = connection.prepare_cached(&plan.text).map_err(|e| to_error(&e))?;
        Ok(PreparedStatement { statement, plan })
    }

    /// Binds the values that all runs share and the values of one given row.
    fn bind_values(&mut self, binds: &[Bind], row: &[Bind]) -> Result<(), Error> {
        for (parameter, index) in (1..).zip(&self.plan.value_indices) {
            let bind = binds.get(*index).or_else(|| row.get(index.checked_sub(binds.len())?));
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
            self.statement.raw_bind_parameter(parameter, ToSqlOutput::Borrowed(value)).map_err(|e| to_error(&e))?;
        }
        Ok(())
    }
}

/// Converts a value of SQLite to the value type of this crate. Refuses floating-point numbers and texts that are not
/// UTF-8.
fn decode_value(value: ValueRef<'_>, columns: &[Box<str>], index: usize) -> Result<Bind, Error> {
    let invalid = |reason: &str| {
        let column = columns.get(index).map(ToString::to_string).unwrap_or_default();
        Error::Value { column, reason: reason.to_owned() }
    };
    match value {
        ValueRef::Null => Ok(Bind::Null),
        ValueRef::Integer(value) => Ok(Bind::Int(value)),
        ValueRef::Text(value) => {
            String::from_utf8(value.to_vec()).map(Bind::Text).map_err(|_| invalid("it is not valid UTF-8"))
        }
        ValueRef::Blob(value) => Ok(Bind::Blob(value.to_vec())),
        ValueRef::Real(_) => Err(invalid("it is a floating-point number")),
    }
}

/// Converts an error of rusqlite to the error type of this crate, which both databases use.
pub fn to_error(error: &rusqlite::Error) -> Error {
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
    // The lowest byte of an extended error code is the primary error code.
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
