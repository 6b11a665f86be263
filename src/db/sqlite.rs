//! SQLite: one writer thread that commits in groups, and reader threads that see what is committed.
//!
//! Whatever waits for the writer shares one durable commit; a SAVEPOINT keeps one command's refusal from the others.
//! Nobody is answered before the commit. There is no artificial delay: the running commit is the collecting window.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ffi};
use tokio::sync::{mpsc, oneshot};

use crate::db::attempt::{Body, attempt};
use crate::db::error::Constraint;
use crate::db::tx::{Hook, Link, Tally, run_hooks};
use crate::db::{Bind, Error, Row, Tx};

/// Older versions lose commits when two connections write and checkpoint at once.
const OLDEST_VERSION: i32 = 3_051_003;
const GROUP_MAX: usize = 256;
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
}

enum Message {
    Run(Box<dyn Command>),
    Close(oneshot::Sender<()>),
}

/// A transaction with its types erased: run by a thread, answered when its group is stored.
trait Command: Send {
    fn name(&self) -> &'static str;
    /// Whether the closure succeeded; its answer is kept until [`Command::answer`].
    fn run(&mut self, tx: &mut Tx) -> bool;
    fn answer(self: Box<Self>, group: Result<(), Error>);
}

impl Engine {
    pub fn open(path: &Path, readers: u32, tally: &Arc<Tally>) -> Result<Engine, Error> {
        check_version(rusqlite::version_number())?;
        create_private(path).map_err(|e| Error::Unavailable(format!("cannot create {}: {e}", path.display())))?;
        let (writes, write_queue) = mpsc::channel(QUEUE_MAX);
        let (reads, read_queue) = mpsc::channel(QUEUE_MAX);
        let engine = Engine { path: path.to_owned(), readers: readers.max(1), writes, reads };

        let writer = Tx::new(Link::Sqlite(open_writer(path)?), tally.clone());
        let writer_tally = tally.clone();
        spawn("db-writer".to_owned(), move || {
            Writer { tx: writer, tally: writer_tally, halted: None }.run(write_queue)
        })?;

        let read_queue = Arc::new(Mutex::new(read_queue));
        for number in 1..=engine.readers {
            let reader = Tx::new(Link::Sqlite(open_reader(path)?), tally.clone());
            let (tally, queue) = (tally.clone(), read_queue.clone());
            spawn(format!("db-reader-{number}"), move || read_loop(reader, &tally, &queue))?;
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

    /// What was submitted before is done first; what comes later is refused.
    pub async fn close(&self) {
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

struct Job<T, E, F> {
    name: &'static str,
    body: Option<F>,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

async fn submit<T, E, F>(queue: &mpsc::Sender<Message>, name: &'static str, body: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    F: Body<T, E>,
{
    let closed = || E::from(Error::Unavailable("it is closed".into()));
    let (reply, answer) = oneshot::channel();
    let job = Box::new(Job { name, body: Some(body), outcome: None, reply });
    queue.send(Message::Run(job)).await.map_err(|_| closed())?;
    answer.await.unwrap_or_else(|_| Err(closed()))
}

impl<T, E, F> Command for Job<T, E, F>
where
    T: Send,
    E: From<Error> + Send,
    F: Body<T, E>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, tx: &mut Tx) -> bool {
        let Some(body) = self.body.take() else { return false };
        // A statement never waits here, so a closure that is pending waits for something that is not its database.
        let outcome = attempt(self.name, tx, body).now_or_never();
        let outcome = outcome.unwrap_or_else(|| Err(Error::Suspended { name: self.name }.into()));
        let stored = outcome.is_ok();
        self.outcome = Some(outcome);
        stored
    }

    fn answer(self: Box<Self>, group: Result<(), Error>) {
        let outcome = match (group, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(Error::Unavailable("the transaction was not run".into()).into()),
            (Err(error), _) => Err(error.into()),
        };
        // A caller that went away is not told; what it asked for is done.
        let _gone = self.reply.send(outcome);
    }
}

struct Writer {
    tx: Tx,
    tally: Arc<Tally>,
    /// Why nothing is written any more: after a failed sync nobody knows what the disk holds until SQLite recovers.
    halted: Option<Error>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(GROUP_MAX);
        while queue.blocking_recv_many(&mut messages, GROUP_MAX) > 0 {
            let mut group = Vec::with_capacity(messages.len());
            let mut close = None;
            for message in messages.drain(..) {
                match message {
                    Message::Run(command) => group.push(command),
                    Message::Close(end) => {
                        close = Some(end);
                        break;
                    }
                }
            }
            while !group.is_empty() {
                self.store(&mut group);
            }
            if let Some(end) = close {
                drop(queue);
                self.finish();
                // The one who closes may have gone.
                let _gone = end.send(());
                return;
            }
        }
    }

    /// Runs the commands from the front in one transaction, removes and answers them. Usually all; when SQLite gave up
    /// the whole transaction on the way (disk full), those that ran.
    fn store(&mut self, group: &mut Vec<Box<dyn Command>>) {
        let start = Instant::now();
        if let Some(error) = &self.halted {
            return answer_all(group.drain(..), &Err(error.clone()));
        }
        if let Err(error) = self.control("begin immediate") {
            return answer_all(group.drain(..), &Err(error));
        }
        let alone = group.len() == 1;
        let (mut ran, mut changed, mut hooks) = (0, false, Vec::new());
        let mut result = Ok(());
        for command in group.iter_mut() {
            ran += 1;
            self.tally.count_transaction();
            result = self.run_one(command.as_mut(), alone, &mut changed, &mut hooks);
            if result.is_err() {
                break;
            }
        }
        result = match result {
            Ok(()) => self.commit(changed),
            Err(error) => {
                self.abandon();
                Err(error)
            }
        };
        if result.is_ok() {
            run_hooks(hooks);
        }
        let name = group.first().map_or("", |command| command.name());
        tracing::debug!(
            name,
            commands = ran,
            elapsed_us = start.elapsed().as_micros(),
            "a group of transactions ended"
        );
        answer_all(group.drain(..ran), &result);
    }

    /// An error here means that the whole transaction is gone, not that the command was refused.
    fn run_one(
        &mut self,
        command: &mut dyn Command,
        alone: bool,
        changed: &mut bool,
        hooks: &mut Vec<Hook>,
    ) -> Result<(), Error> {
        if !alone {
            self.control("savepoint command")?;
        }
        let kept = command.run(&mut self.tx);
        let failure = self.tx.failure();
        let traces = self.tx.take_traces();
        if self.connection().is_autocommit() {
            return Err(failure.unwrap_or_else(|| Error::Unavailable("SQLite gave up the transaction".into())));
        }
        if kept {
            *changed |= traces.changed;
            hooks.extend(traces.hooks);
        } else {
            self.control(if alone { "rollback" } else { "rollback to command" })?;
        }
        if alone { Ok(()) } else { self.control("release command") }
    }

    fn commit(&mut self, changed: bool) -> Result<(), Error> {
        if self.connection().is_autocommit() {
            // The only command was refused and rolled back.
            return Ok(());
        }
        let Err(error) = self.connection().prepare_cached("commit").and_then(|mut commit| commit.raw_execute()) else {
            if changed {
                self.tally.count_commit();
            }
            return Ok(());
        };
        let failed_disk = error.sqlite_error_code() == Some(ffi::ErrorCode::SystemIoFailure);
        if failed_disk {
            let halted = Error::CommitUnknown(format!("{error}; the daemon must be started again"));
            tracing::error!(
                "a commit failed on the disk: {error}; nothing more is written until the daemon starts again"
            );
            self.halted = Some(Error::Unavailable(format!("an earlier commit failed on the disk: {error}")));
            return Err(halted);
        }
        self.abandon();
        Err(error_of(&error))
    }

    fn abandon(&mut self) {
        if self.connection().is_autocommit() {
            return;
        }
        if let Err(error) = self.control("rollback") {
            tracing::error!(
                "a transaction could not be rolled back: {error}; nothing more is written until the daemon starts again"
            );
            self.halted = Some(Error::Unavailable(format!("an earlier transaction could not be rolled back: {error}")));
        }
    }

    fn control(&self, sql: &'static str) -> Result<(), Error> {
        let run = || self.connection().prepare_cached(sql)?.raw_execute();
        run().map(drop).map_err(|e| error_of(&e))
    }

    fn connection(&self) -> &Connection {
        connection(&self.tx)
    }

    fn finish(self) {
        if self.halted.is_none() {
            let checkpoint = self.connection().query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
            if let Err(error) = checkpoint {
                tracing::warn!("the write-ahead log could not be folded in at the end: {error}");
            }
        }
    }
}

fn answer_all(commands: impl Iterator<Item = Box<dyn Command>>, group: &Result<(), Error>) {
    for command in commands {
        command.answer(group.clone());
    }
}

fn read_loop(mut tx: Tx, tally: &Tally, queue: &Mutex<mpsc::Receiver<Message>>) {
    loop {
        // The lock is held while waiting: one idle reader takes the next message, the others queue behind it.
        let message = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match message {
            Some(Message::Run(command)) => read_one(&mut tx, tally, command),
            Some(Message::Close(end)) => {
                drop(tx);
                // The one who closes may have gone.
                let _gone = end.send(());
                return;
            }
            None => return,
        }
    }
}

fn read_one(tx: &mut Tx, tally: &Tally, mut command: Box<dyn Command>) {
    let start = Instant::now();
    tally.count_transaction();
    let control = |tx: &Tx, sql| {
        let run = || connection(tx).prepare_cached(sql)?.raw_execute();
        run().map(drop).map_err(|e| error_of(&e))
    };
    let mut result = control(tx, "begin");
    if result.is_ok() {
        let kept = command.run(tx);
        let traces = tx.take_traces();
        if !connection(tx).is_autocommit() {
            result = control(tx, "rollback");
        }
        if kept && result.is_ok() {
            run_hooks(traces.hooks);
        }
    }
    tracing::debug!(name = command.name(), elapsed_us = start.elapsed().as_micros(), "a reading transaction ended");
    command.answer(result);
}

fn connection(tx: &Tx) -> &Connection {
    match &tx.link {
        Link::Sqlite(connection) => connection,
        Link::Postgres(_) => unreachable!("a thread of SQLite holds a connection of SQLite"),
    }
}

pub(super) fn execute(connection: &Connection, sql: &str, binds: &[Bind]) -> Result<u64, Error> {
    let run = || {
        let mut statement = prepare(connection, sql, binds)?;
        let before = connection.total_changes();
        statement.raw_execute().map_err(|e| error_of(&e))?;
        // `changes` would repeat the number of an earlier statement when this one is not a change of rows.
        Ok(if connection.total_changes() == before { 0 } else { connection.changes() })
    };
    run()
}

pub(super) fn rows(connection: &Connection, sql: &str, binds: &[Bind]) -> Result<Vec<Row>, Error> {
    let mut statement = prepare(connection, sql, binds)?;
    let width = statement.column_count();
    let columns: Arc<[Box<str>]> = statement.column_names().into_iter().map(Box::from).collect();
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(|e| error_of(&e))? {
        let value = |place| row.get_ref(place).map_err(|e| error_of(&e)).and_then(|value| read(value, &columns, place));
        let values = (0..width).map(value).collect::<Result<_, Error>>()?;
        found.push(Row::new(columns.clone(), values));
    }
    Ok(found)
}

pub(super) fn batch(connection: &Connection, sql: &str) -> Result<(), Error> {
    connection.execute_batch(sql).map_err(|e| error_of(&e))
}

/// SQLite numbers `$3` by where it first stands, PostgreSQL by its name; the name holds here as well.
fn prepare<'c>(connection: &'c Connection, sql: &str, binds: &[Bind]) -> Result<rusqlite::CachedStatement<'c>, Error> {
    let mut statement = if sql.contains("for update") {
        connection.prepare_cached(&sql.replace("for update skip locked", "").replace("for update", ""))
    } else {
        connection.prepare_cached(sql)
    }
    .map_err(|e| error_of(&e))?;
    let wanted = statement.parameter_count();
    if wanted != binds.len() {
        return Err(Error::Statement(format!("{} values for {wanted} places in: {sql}", binds.len())));
    }
    for place in 1..=wanted {
        let number = statement.parameter_name(place).and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
        let bind = number.and_then(|number| binds.get(number.checked_sub(1)?));
        let bind = bind.ok_or_else(|| Error::Statement(format!("place {place} is not $1 to ${wanted} in: {sql}")))?;
        let value = match bind {
            Bind::Null => ValueRef::Null,
            Bind::Int(value) => ValueRef::Integer(*value),
            Bind::Text(value) => ValueRef::Text(value.as_bytes()),
            Bind::Blob(value) => ValueRef::Blob(value),
            Bind::TooLarge(_) => return Err(Error::Statement("an integer above 2^63 was bound".into())),
        };
        statement.raw_bind_parameter(place, ToSqlOutput::Borrowed(value)).map_err(|e| error_of(&e))?;
    }
    Ok(statement)
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

fn error_of(error: &rusqlite::Error) -> Error {
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
