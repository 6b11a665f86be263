//! PostgreSQL: every transaction on a task of its own, with a connection that nobody else has.
//!
//! The pool is ours because a connection is only ever lost or given back here: between two transactions there is no
//! ping, and one that broke is dropped. A transaction begins on an idle connection or, when that turns out dead, on the next.

use std::cell::RefCell;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgConnectOptions, PgRow, PgTypeInfo, PgValueRef};
use sqlx::{
    Arguments, AssertSqlSafe, Column, ConnectOptions, Connection, Decode, Executor, PgConnection, Postgres, Row as _,
    SqlSafeStr, SqlStr, Type,
};
use sqlx::{TypeInfo, ValueRef};
use tokio::sync::{Semaphore, oneshot};

use crate::attempt::{Body, attempt};
use crate::batch_rows::{BatchRows, Kind, for_postgres, is_given, push};
use crate::error::Constraint;
use crate::instance_lock;
use crate::lease::Epoch;
use crate::tx::{DbConnection, Scope, Stats, Waiting, run_hooks};
use crate::{Bind, Error, FromValue, Row, Tx, expect_changed};

const OLDEST_VERSION: i64 = 140_000;
const STATEMENT_CACHE: usize = 512;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Above every limit of the server: only a connection that went silent meets it.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(120);
const SESSION: [(&str, &str); 3] =
    [("idle_in_transaction_session_timeout", "15s"), ("lock_timeout", "5s"), ("statement_timeout", "30s")];

/// How long a transaction may take.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    Usual,
    /// A migration may rewrite a table, and an audit reads all of them.
    None,
}

pub(super) struct Engine(Arc<Pool>);

pub(super) struct Pool {
    options: PgConnectOptions,
    idle: Mutex<Idle>,
    permits: Arc<Semaphore>,
    size: u32,
    stats: Arc<Stats>,
}

struct Idle {
    connections: Vec<PgConnection>,
    fence: FenceState,
}

/// Under which right connections are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FenceState {
    /// Any number of processes may: commands that read, or write what nobody keeps in memory.
    Open,
    /// Under the claim with this epoch.
    Fenced(Epoch),
    /// Under one that was lost: not at all.
    Lost,
}

impl Engine {
    pub async fn open(url: &str, size: u32, stats: Arc<Stats>) -> Result<Engine, Error> {
        // The error of a URL is not shown: it may quote the password.
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| Error::Unsupported("the database's URL is not one of PostgreSQL".into()))?
            .application_name("settled")
            .statement_cache_capacity(STATEMENT_CACHE)
            .options(SESSION)
            .disable_statement_logging();
        let size = size.max(1);
        let permits = usize::try_from(size).map_err(|_| Error::Unsupported("the pool is too large".into()))?;
        let permits = Arc::new(Semaphore::new(permits));
        let idle = Mutex::new(Idle { connections: Vec::new(), fence: FenceState::Open });
        let pool = Pool { options, idle, permits, size, stats };
        let mut connection = pool.connect().await?;
        check(&mut connection).await?;
        pool.give_back(connection);
        Ok(Engine(Arc::new(pool)))
    }

    pub fn pool(&self) -> Arc<Pool> {
        self.0.clone()
    }

    pub async fn write<T, E, F>(&self, name: &'static str, limit: Limit, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Body<T, E>,
    {
        self.submit(name, limit, |pool| async move { pool.run(name, Access::Write, body).await }).await
    }

    pub async fn read<T, E, F>(&self, name: &'static str, limit: Limit, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Body<T, E>,
    {
        self.submit(name, limit, |pool| async move { pool.run(name, Access::Read, body).await }).await
    }

    pub async fn select_one<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Body<T, E>,
    {
        self.submit(name, Limit::Usual, |pool| async move { pool.select_one(name, body).await }).await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a transaction outlives a caller that goes away; its panics are caught"
    )]
    async fn submit<T, E, R>(&self, name: &'static str, limit: Limit, run: impl FnOnce(Arc<Pool>) -> R) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        R: Future<Output = Result<T, E>> + Send + 'static,
    {
        // A caller that goes away while it waits here has begun nothing.
        let permit = self.0.permits.clone().acquire_owned().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let run = run(self.0.clone());
        tokio::spawn(async move {
            let start = Instant::now();
            let outcome = match limit {
                Limit::None => run.await,
                Limit::Usual => tokio::time::timeout(TRANSACTION_TIMEOUT, run).await.unwrap_or_else(|_| {
                    Err(Error::CommitUnknown("the server was silent for two minutes".into()).into())
                }),
            };
            drop(permit);
            tracing::debug!(name, elapsed_us = start.elapsed().as_micros(), "a transaction ended");
            // A caller that went away is not told; what it asked for is done.
            let _gone = reply.send(outcome);
        });
        answer.await.unwrap_or_else(|_| Err(closed().into()))
    }

    /// Waits for the transactions that run, then refuses new ones.
    pub async fn close(&self) {
        if let Ok(all) = self.0.permits.acquire_many(self.0.size).await {
            self.0.permits.close();
            drop(all);
        }
        let idle = std::mem::take(&mut self.0.idle().connections);
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::debug!("a connection ended with {error}");
            }
        }
    }
}

fn closed() -> Error {
    Error::Unavailable("it is closed".into())
}

#[derive(Clone, Copy)]
enum Access {
    Write,
    Read,
}

impl Access {
    const fn begin(self) -> &'static str {
        match self {
            Access::Write => "begin isolation level read committed",
            Access::Read => "begin isolation level repeatable read read only",
        }
    }
}

impl Pool {
    async fn run<T, E, F>(&self, name: &'static str, access: Access, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Body<T, E>,
    {
        let connection = self.begin(access).await?;
        self.stats.count_transaction();
        let mut tx = Tx::new(DbConnection::Postgres(connection), self.stats.clone());
        let outcome = attempt(name, &mut tx, body).await;
        let traces = tx.take_traces();
        let DbConnection::Postgres(mut connection) = tx.link else { return outcome };
        if outcome.is_err() {
            // A connection that cannot even roll back is dropped, and the server rolls back.
            if control(&mut connection, "rollback").await.is_ok() {
                self.give_back(connection);
            }
            return outcome;
        }
        match control(&mut connection, "commit").await {
            Ok(()) => {}
            Err(sqlx::Error::Database(refusal)) => {
                let error = error_of(&sqlx::Error::Database(refusal));
                self.give_back(connection);
                return Err(error.into());
            }
            Err(lost) => return Err(Error::CommitUnknown(lost.to_string()).into()),
        }
        if traces.changed && matches!(access, Access::Write) {
            self.stats.count_commit();
        }
        self.give_back(connection);
        run_hooks(traces.hooks);
        outcome
    }

    async fn select_one<T, E, F>(self: Arc<Self>, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Body<T, E>,
    {
        let connection = match self.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        self.stats.count_transaction();
        let mut tx = Tx::new(DbConnection::Postgres(connection), self.stats.clone());
        tx.set_scope(Scope::SelectOne { spare: Some(self.clone()), looked: false });
        let outcome = attempt(name, &mut tx, body).await;
        let (failure, traces) = (tx.failure(), tx.take_traces());
        if let (DbConnection::Postgres(connection), None) = (tx.link, failure) {
            self.give_back(connection);
        }
        if outcome.is_ok() {
            run_hooks(traces.hooks);
        }
        outcome
    }

    /// Once more on another connection when this one died while it was idle: what only looks may be asked twice.
    pub(super) async fn look(
        &self,
        connection: &mut PgConnection,
        sql: &'static str,
        binds: Vec<Bind>,
    ) -> Result<Vec<Row>, Error> {
        loop {
            match rows(connection, sql, Vec::new(), binds.clone()).await {
                Err(Error::Unavailable(why)) => tracing::debug!("an idle connection was dead: {why}"),
                answer => return answer,
            }
            match self.take() {
                Some(idle) => *connection = idle,
                None => {
                    *connection = self.connect().await?;
                    return rows(connection, sql, Vec::new(), binds).await;
                }
            }
        }
    }

    async fn begin(&self, access: Access) -> Result<PgConnection, Error> {
        loop {
            let Some(mut connection) = self.take() else { break };
            match control(&mut connection, access.begin()).await {
                Ok(()) => return Ok(connection),
                // It died while it was idle, perhaps with the server; the next one may live.
                Err(error) => tracing::debug!("an idle connection was dead: {error}"),
            }
        }
        let mut connection = self.connect().await?;
        control(&mut connection, access.begin()).await.map_err(|e| error_of(&e))?;
        Ok(connection)
    }

    fn take(&self) -> Option<PgConnection> {
        self.idle().connections.pop()
    }

    fn give_back(&self, connection: PgConnection) {
        let mut idle = self.idle();
        if idle.fence != FenceState::Lost {
            idle.connections.push(connection);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Connections that were opened before and are idle are dropped: they belong to no claim, or to one that was lost.
    pub fn set_fence(&self, fence: FenceState) {
        let mut idle = self.idle();
        idle.fence = fence;
        idle.connections.clear();
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        let fence = self.idle().fence;
        if fence == FenceState::Lost {
            return Err(Error::Unavailable("another daemon has claimed the database".into()));
        }
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, self.options.connect()).await;
        let connection = connection.map_err(|_| Error::Unavailable("the server does not answer".into()))?;
        let mut connection = connection.map_err(|e| error_of(&e))?;
        if let FenceState::Fenced(epoch) = fence {
            instance_lock::enter(&mut connection, epoch).await?;
        }
        Ok(connection)
    }
}

async fn control(connection: &mut PgConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(sql)).await.map(drop)
}

async fn check(connection: &mut PgConnection) -> Result<(), Error> {
    let sql = "select cast(current_setting('server_version_num') as bigint) as version,
        current_setting('synchronous_commit') as durable, current_setting('server_encoding') as encoding";
    let found = rows(connection, sql, Vec::new(), Vec::new()).await?;
    let row = found.first().ok_or_else(|| Error::Statement("the server tells no version".into()))?;
    let version: i64 = row.get("version")?;
    if version < OLDEST_VERSION {
        return Err(Error::Unsupported(format!("PostgreSQL 14 or newer is needed, not {}", version / 10_000)));
    }
    if row.get::<String>("durable")? == "off" {
        return Err(Error::Unsupported("`synchronous_commit` is off: the server would lose what it confirmed".into()));
    }
    let encoding: String = row.get("encoding")?;
    if encoding != "UTF8" {
        return Err(Error::Unsupported(format!("the database's encoding is {encoding}, not UTF8")));
    }
    Ok(())
}

pub(super) async fn execute(
    connection: &mut PgConnection,
    sql: &'static str,
    given: BatchRows,
    binds: Vec<Bind>,
) -> Result<u64, Error> {
    let (text, arguments) = prepare(sql, given, binds)?;
    let query = sqlx::query_with(text, arguments);
    let done = query.execute(connection).await.map_err(|e| error_of(&e))?;
    Ok(done.rows_affected())
}

/// One statement that makes all these changes, each counted; returns how many rows they changed together.
pub(super) async fn execute_all(connection: &mut PgConnection, waiting: Vec<Waiting>) -> Result<u64, Error> {
    let (mut text, mut arguments) = (String::new(), PgArguments::default());
    for (number, change) in waiting.iter().enumerate() {
        let (one, kinds) = for_postgres(change.sql, change.binds.len(), arguments.len())?;
        // What the change before this one in the line returned.
        let one = one.replace("changed_before", &format!("c{}", number.saturating_sub(1)));
        let returning = if one.contains(" returning ") { "" } else { " returning 1" };
        push(&mut text, format_args!("{} c{number} as ({one}{returning})", if number > 0 { "," } else { "with" }));
        add(&mut arguments, change.binds.clone(), kinds, change.given.clone())?;
    }
    for number in 0..waiting.len() {
        let next = if number > 0 { "," } else { " select" };
        push(&mut text, format_args!("{next} (select count(*) from c{number})"));
    }
    let query = sqlx::query_with(AssertSqlSafe(text), arguments);
    let counts = query.fetch_one(connection).await.map_err(|e| error_of(&e))?;
    let mut changed = 0;
    for (place, change) in waiting.iter().enumerate() {
        let found = Bind::Int(counts.try_get(place).map_err(|e| error_of(&e))?);
        let found = u64::from_value(&found).unwrap_or_default();
        change.expected.map_or(Ok(()), |expected| expect_changed(found, expected))?;
        changed += found;
    }
    Ok(changed)
}

pub(super) async fn rows(
    connection: &mut PgConnection,
    sql: &'static str,
    given: BatchRows,
    binds: Vec<Bind>,
) -> Result<Vec<Row>, Error> {
    let (text, arguments) = prepare(sql, given, binds)?;
    let found = sqlx::query_with(text, arguments).fetch_all(connection).await.map_err(|e| error_of(&e))?;
    let Some(first) = found.first() else { return Ok(Vec::new()) };
    let columns = columns_of(sql, first);
    found.iter().map(|row| Ok(Row::new(columns.clone(), values(row)?))).collect()
}

/// The one row of a statement that was put together, whose columns are read by their places.
pub(super) async fn only_row(connection: &mut PgConnection, sql: String, binds: Vec<Bind>) -> Result<Row, Error> {
    let mut arguments = PgArguments::default();
    add(&mut arguments, binds, Vec::new(), Vec::new())?;
    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
    let found = query.fetch_one(connection).await.map_err(|e| error_of(&e))?;
    Ok(Row::new(Arc::default(), values(&found)?))
}

fn values(row: &PgRow) -> Result<Box<[Bind]>, Error> {
    (0..row.len()).map(|place| read(row, place)).collect()
}

/// A statement without given rows is sent as it stands.
fn prepare(sql: &'static str, given: BatchRows, binds: Vec<Bind>) -> Result<(SqlStr, PgArguments), Error> {
    let mut arguments = PgArguments::default();
    if !is_given(sql) {
        add(&mut arguments, binds, Vec::new(), given)?;
        return Ok((sql.into_sql_str(), arguments));
    }
    let (text, kinds) = for_postgres(sql, binds.len(), 0)?;
    add(&mut arguments, binds, kinds, given)?;
    Ok((AssertSqlSafe(text).into_sql_str(), arguments))
}

/// The names of a statement's columns, by where its text stands, which is there as long as the process.
type Columns = HashMap<(*const u8, usize), Arc<[Box<str>]>>;

thread_local! {
    static COLUMNS: RefCell<Columns> = RefCell::default();
}

fn columns_of(sql: &'static str, row: &PgRow) -> Arc<[Box<str>]> {
    COLUMNS.with_borrow_mut(|columns| {
        let read = || row.columns().iter().map(|column| Box::from(column.name())).collect();
        columns.entry((sql.as_ptr(), sql.len())).or_insert_with(read).clone()
    })
}

pub(super) async fn batch(connection: &mut PgConnection, sql: &'static str) -> Result<(), Error> {
    control(connection, sql).await.map_err(|e| error_of(&e))
}

fn add(arguments: &mut PgArguments, binds: Vec<Bind>, kinds: Vec<Kind>, given: BatchRows) -> Result<(), Error> {
    for bind in binds {
        arguments.add(bind).map_err(|e| Error::Statement(e.to_string()))?;
    }
    let (width, mut rows) = (kinds.len(), given);
    if rows.iter().any(|row| row.len() != width) {
        return Err(Error::Statement("the given rows do not have the columns of the statement".into()));
    }
    for (place, kind) in kinds.into_iter().enumerate() {
        let column =
            rows.iter_mut().filter_map(|row| row.get_mut(place)).map(|bind| std::mem::replace(bind, Bind::Null));
        let added = match kind {
            Kind::Int => arguments.add(column.map(|bind| read_given(&bind)).collect::<Result<Vec<Option<i64>>, _>>()?),
            Kind::Text => {
                arguments.add(column.map(|bind| read_given(&bind)).collect::<Result<Vec<Option<String>>, _>>()?)
            }
            Kind::Blob => {
                arguments.add(column.map(|bind| read_given(&bind)).collect::<Result<Vec<Option<Vec<u8>>>, _>>()?)
            }
        };
        added.map_err(|e| Error::Statement(e.to_string()))?;
    }
    Ok(())
}

fn read_given<T: FromValue>(bind: &Bind) -> Result<T, Error> {
    T::from_value(bind).ok_or_else(|| Error::Statement(format!("{} is not what its column is given", bind.kind())))
}

impl Type<Postgres> for Bind {
    /// Of a null, whose type the server infers from where it stands.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(UNKNOWN)
    }
}

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

fn read(row: &PgRow, place: usize) -> Result<Bind, Error> {
    let value = row.try_get_raw(place).map_err(|e| error_of(&e))?;
    if value.is_null() {
        return Ok(Bind::Null);
    }
    let decode: fn(PgValueRef<'_>) -> Result<Bind, BoxDynError> = match value.type_info().name() {
        "INT8" | "INT4" | "INT2" => |value| i64::decode(value).map(Bind::Int),
        "BOOL" => |value| bool::decode(value).map(Bind::from),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" => |value| String::decode(value).map(Bind::Text),
        "BYTEA" => |value| Vec::<u8>::decode(value).map(Bind::Blob),
        "VOID" => |_| Ok(Bind::Null),
        _ => |value| Err(format!("{} is not read; cast it to bigint, text or bytea", value.type_info().name()).into()),
    };
    let refused =
        |error: BoxDynError| Error::Value { column: row.column(place).name().to_owned(), reason: error.to_string() };
    decode(value).map_err(refused)
}

fn error_of(error: &sqlx::Error) -> Error {
    if let Some(refusal) = error.as_database_error() {
        let code = refusal.code().unwrap_or_default();
        return error_of_code(&code, refusal.message());
    }
    let of_statement = matches!(
        error,
        sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
    );
    if of_statement { Error::Statement(error.to_string()) } else { Error::Unavailable(error.to_string()) }
}

/// SQLSTATE, PostgreSQL's appendix A.
fn error_of_code(code: &str, message: &str) -> Error {
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
        // Connections, authorization, resources, administrators, the system.
        "57014" | "25P03" => Error::Unavailable(message),
        _ if ["08", "28", "3D", "53", "57P", "58", "XX"].iter().any(|class| code.starts_with(class)) => {
            Error::Unavailable(message)
        }
        _ => Error::Statement(message),
    }
}
