//! Statements, rows and errors of PostgreSQL.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, PgValueRef};
use sqlx::{
    Arguments, AssertSqlSafe, Column, Decode, Executor, PgConnection, Postgres, Row as _, SqlSafeStr, SqlStr, Type,
};
use sqlx::{TypeInfo, ValueRef};

use crate::batch_rows::{BatchRows, ColumnType, append_formatted, build_postgres_sql_for_all_rows, has_given_rows};
use crate::deferred_statements::DeferredStatement;
use crate::error::Constraint;
use crate::{Bind, Error, FromValue, Row, expect_changed};

/// Runs a statement without bound values, such as `commit`.
pub async fn run_control_statement(connection: &mut PgConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(sql)).await.map(drop)
}

/// Runs several statements without bound values, such as those of a migration.
pub async fn run_sql_script(connection: &mut PgConnection, sql: &'static str) -> Result<(), Error> {
    run_control_statement(connection, sql).await.map_err(|e| to_error(&e))
}

/// Runs a statement and returns the number of rows that it changed.
pub async fn execute_statement(
    connection: &mut PgConnection,
    sql: &'static str,
    given: BatchRows,
    binds: Vec<Bind>,
) -> Result<u64, Error> {
    let (text, arguments) = build_sql_and_arguments(sql, given, binds)?;
    let query = sqlx::query_with(text, arguments);
    let done = query.execute(connection).await.map_err(|e| to_error(&e))?;
    Ok(done.rows_affected())
}

/// Runs several deferred statements as one statement, checks the number of rows that each of them changed, and returns
/// the sum of these numbers.
pub async fn execute_deferred_statements(
    connection: &mut PgConnection,
    deferred: Vec<DeferredStatement>,
) -> Result<u64, Error> {
    let (mut text, mut arguments) = (String::new(), PgArguments::default());
    for (number, statement) in deferred.iter().enumerate() {
        let (sql, types) = build_postgres_sql_for_all_rows(statement.sql, statement.binds.len(), arguments.len())?;
        let sql = sql.replace("changed_before", &format!("c{}", number.saturating_sub(1)));
        let returning = if sql.contains(" returning ") { "" } else { " returning 1" };
        append_formatted(
            &mut text,
            format_args!("{} c{number} as ({sql}{returning})", if number > 0 { "," } else { "with" }),
        );
        add_arguments(&mut arguments, statement.binds.clone(), types, statement.given.clone())?;
    }
    for number in 0..deferred.len() {
        let separator = if number > 0 { "," } else { " select" };
        append_formatted(&mut text, format_args!("{separator} (select count(*) from c{number})"));
    }
    let query = sqlx::query_with(AssertSqlSafe(text), arguments);
    let counts = query.fetch_one(connection).await.map_err(|e| to_error(&e))?;
    let mut changed = 0;
    for (number, statement) in deferred.iter().enumerate() {
        let found = Bind::Int(counts.try_get(number).map_err(|e| to_error(&e))?);
        let found = u64::from_value(&found).unwrap_or_default();
        statement.expected.map_or(Ok(()), |expected| expect_changed(found, expected))?;
        changed += found;
    }
    Ok(changed)
}

/// Runs a statement and returns its rows.
pub async fn execute_returning_rows(
    connection: &mut PgConnection,
    sql: &'static str,
    given: BatchRows,
    binds: Vec<Bind>,
) -> Result<Vec<Row>, Error> {
    let (text, arguments) = build_sql_and_arguments(sql, given, binds)?;
    let found = sqlx::query_with(text, arguments).fetch_all(connection).await.map_err(|e| to_error(&e))?;
    let Some(first) = found.first() else { return Ok(Vec::new()) };
    let columns = cached_column_names(sql, first);
    found.iter().map(|row| Ok(Row::new(columns.clone(), decode_row(row)?))).collect()
}

/// Runs a statement that was built at run time and returns its only row. The columns of the row have no names and are
/// read by index.
pub async fn execute_returning_one_row(
    connection: &mut PgConnection,
    sql: String,
    binds: Vec<Bind>,
) -> Result<Row, Error> {
    let mut arguments = PgArguments::default();
    add_arguments(&mut arguments, binds, Vec::new(), Vec::new())?;
    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
    let found = query.fetch_one(connection).await.map_err(|e| to_error(&e))?;
    Ok(Row::new(Arc::default(), decode_row(&found)?))
}

fn decode_row(row: &PgRow) -> Result<Box<[Bind]>, Error> {
    (0..row.len()).map(|index| decode_value(row, index)).collect()
}

/// Returns the SQL text to send and the values of its placeholders. A statement without given rows is sent unchanged.
fn build_sql_and_arguments(
    sql: &'static str,
    given: BatchRows,
    binds: Vec<Bind>,
) -> Result<(SqlStr, PgArguments), Error> {
    let mut arguments = PgArguments::default();
    if !has_given_rows(sql) {
        add_arguments(&mut arguments, binds, Vec::new(), given)?;
        return Ok((sql.into_sql_str(), arguments));
    }
    let (text, types) = build_postgres_sql_for_all_rows(sql, binds.len(), 0)?;
    add_arguments(&mut arguments, binds, types, given)?;
    Ok((AssertSqlSafe(text).into_sql_str(), arguments))
}

/// The names of the columns that each statement returns. The key is the address and the length of the SQL text, which
/// is static.
type Columns = HashMap<(*const u8, usize), Arc<[Box<str>]>>;

thread_local! {
    static COLUMNS: RefCell<Columns> = RefCell::default();
}

/// Returns the names of the columns of a statement from a cache, because building the names for each run is slow.
fn cached_column_names(sql: &'static str, row: &PgRow) -> Arc<[Box<str>]> {
    COLUMNS.with_borrow_mut(|columns| {
        let names = || row.columns().iter().map(|column| Box::from(column.name())).collect();
        columns.entry((sql.as_ptr(), sql.len())).or_insert_with(names).clone()
    })
}

/// Adds the values that are the same for all given rows, then each column of the given rows as an array. Fails when a
/// given row does not have one value for each of `types`.
fn add_arguments(
    arguments: &mut PgArguments,
    binds: Vec<Bind>,
    types: Vec<ColumnType>,
    given: BatchRows,
) -> Result<(), Error> {
    for bind in binds {
        arguments.add(bind).map_err(|e| Error::Statement(e.to_string()))?;
    }
    let (width, mut rows) = (types.len(), given);
    if rows.iter().any(|row| row.len() != width) {
        return Err(Error::Statement("the given rows do not have the columns of the statement".into()));
    }
    for (index, column_type) in types.into_iter().enumerate() {
        let column =
            rows.iter_mut().filter_map(|row| row.get_mut(index)).map(|bind| std::mem::replace(bind, Bind::Null));
        let added = match column_type {
            ColumnType::Int => arguments.add(to_column_array::<i64>(column)?),
            ColumnType::Text => arguments.add(to_column_array::<String>(column)?),
            ColumnType::Blob => arguments.add(to_column_array::<Vec<u8>>(column)?),
        };
        added.map_err(|e| Error::Statement(e.to_string()))?;
    }
    Ok(())
}

/// Converts one column of the given rows to an array. A null value becomes `None`. Fails when a value is not of type
/// `T`.
fn to_column_array<T: FromValue>(column: impl Iterator<Item = Bind>) -> Result<Vec<Option<T>>, Error> {
    let value = |bind: Bind| {
        let invalid = || Error::Statement(format!("{} is not of the type of its given column", bind.kind()));
        Option::<T>::from_value(&bind).ok_or_else(invalid)
    };
    column.map(value).collect()
}

impl Type<Postgres> for Bind {
    /// Returns the type that a null value is sent with. The server infers the real type from the place of the value in
    /// the statement.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(UNKNOWN)
    }
}

/// The number of PostgreSQL's pseudo-type `unknown`.
const UNKNOWN: sqlx::postgres::types::Oid = sqlx::postgres::types::Oid(705);

impl Encode<'_, Postgres> for Bind {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match self {
            Bind::Null => Ok(IsNull::Yes),
            Bind::Int(value) => value.encode_by_ref(buffer),
            Bind::Text(value) => value.encode_by_ref(buffer),
            Bind::Blob(value) => value.encode_by_ref(buffer),
            Bind::TooLarge(_) | Bind::ResultRef(_) => Err(format!("{} was bound", self.kind()).into()),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        match self {
            Bind::Null | Bind::TooLarge(_) | Bind::ResultRef(_) => None,
            Bind::Int(_) => Some(<i64 as Type<Postgres>>::type_info()),
            Bind::Text(_) => Some(<String as Type<Postgres>>::type_info()),
            Bind::Blob(_) => Some(<Vec<u8> as Type<Postgres>>::type_info()),
        }
    }
}

/// Converts one value of a row. Fails for a type that is not an integer, a boolean, text or bytes.
fn decode_value(row: &PgRow, index: usize) -> Result<Bind, Error> {
    let value = row.try_get_raw(index).map_err(|e| to_error(&e))?;
    if value.is_null() {
        return Ok(Bind::Null);
    }
    let decode: fn(PgValueRef<'_>) -> Result<Bind, BoxDynError> = match value.type_info().name() {
        "INT8" | "INT4" | "INT2" => |value| i64::decode(value).map(Bind::Int),
        "BOOL" => |value| bool::decode(value).map(Bind::from),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" => |value| String::decode(value).map(Bind::Text),
        "BYTEA" => |value| Vec::<u8>::decode(value).map(Bind::Blob),
        "VOID" => |_| Ok(Bind::Null),
        _ => |value| {
            let name = value.type_info().name().to_owned();
            Err(format!("type {name} is not supported; cast it to bigint, text or bytea").into())
        },
    };
    let invalid =
        |error: BoxDynError| Error::Value { column: row.column(index).name().to_owned(), reason: error.to_string() };
    decode(value).map_err(invalid)
}

/// Converts an error of sqlx to the error type of this crate, which both databases use.
pub fn to_error(error: &sqlx::Error) -> Error {
    if let Some(rejection) = error.as_database_error() {
        let code = rejection.code().unwrap_or_default();
        return error_for_sqlstate(&code, rejection.message());
    }
    let is_of_statement = matches!(
        error,
        sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
    );
    if is_of_statement { Error::Statement(error.to_string()) } else { Error::Unavailable(error.to_string()) }
}

/// Returns the error for an SQLSTATE, a code of five characters that appendix A of PostgreSQL's manual lists.
fn error_for_sqlstate(code: &str, message: &str) -> Error {
    let kind = match code {
        "23505" | "23P01" => Some(Constraint::Unique),
        "23503" | "23001" => Some(Constraint::ForeignKey),
        "23514" => Some(Constraint::Check),
        "23502" => Some(Constraint::NotNull),
        "P0001" => Some(Constraint::Trigger),
        _ => None,
    };
    if let Some(kind) = kind {
        return Error::Constraint { kind, detail: message.to_owned() };
    }
    let message = format!("{message} ({code})");
    match code {
        "40001" | "40P01" | "55P03" => Error::Conflict(message),
        // A statement was cancelled, or the server ended a session that was idle.
        "57014" | "25P03" => Error::Unavailable(message),
        // The first characters of a code are its class. In this order, the classes below mean: connection,
        // authorization, unknown database, resources, operator intervention, system, internal error.
        _ if ["08", "28", "3D", "53", "57P", "58", "XX"].iter().any(|class| code.starts_with(class)) => {
            Error::Unavailable(message)
        }
        _ => Error::Statement(message),
    }
}
