//! SQLite: one writer thread that commits transactions in groups, and reader threads that see the committed data.

mod command;
pub(super) mod connections;
mod direct_readers;
mod log_size;
mod integrity;
mod reader;
pub(super) mod statement;
mod writer;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use crate::stats::Stats;
use crate::transaction_body::TransactionBody;
use crate::tx::DbConnection;
use crate::{Error, Tx};
use command::{Message, run_on_database_thread};
use connections::{
    create_empty_private_file, create_private_file_if_absent, open_connection, open_reader_connection,
    open_writer_connection, refuse_unsafe_version,
};
use direct_readers::DirectReaders;
use statement::to_error;
use writer::Writer;

/// The maximum number of transactions that wait for a thread. Further callers wait until the queue has room.
const QUEUE_MAX: usize = 4096;

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
        refuse_unsafe_version(rusqlite::version_number())?;
        create_private_file_if_absent(path)
            .map_err(|e| Error::Unavailable(format!("cannot create {}: {e}", path.display())))?;
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
        run_on_database_thread(&self.writes, name, body).await
    }

    /// Runs `body` on a reader thread, on a snapshot of the committed data.
    pub async fn read<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: TransactionBody<T, E>,
    {
        run_on_database_thread(&self.reads, name, body).await
    }

    /// Runs a body of exactly one `select` on the thread of the caller, which takes some microseconds, or on a reader
    /// thread when all direct readers are in use.
    pub async fn run_body_as_select_with_fallback<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: TransactionBody<T, E>,
    {
        match self.direct_readers.take_idle_connection() {
            Some(tx) => self.direct_readers.run_select(name, tx, body),
            None => run_on_database_thread(&self.reads, name, body).await,
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
            // An error means that the thread has already ended.
            let _ended = is_closed.await;
        }
        let (closed, is_closed) = oneshot::channel();
        if self.writes.send(Message::Close(closed)).await.is_ok() {
            let _ended = is_closed.await;
        }
    }

    /// Returns the damages that the integrity checks of SQLite find, on a connection of its own.
    pub fn check_integrity(&self) -> Result<Vec<String>, Error> {
        integrity::find_damages(&open_reader_connection(&self.path)?)
    }

    /// Copies the database while transactions go on, and runs the integrity checks on the copy. The target appears
    /// complete, sound and synced to the disk, or not at all.
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
        let damages = integrity::find_damages_of_unused_file(&part)?;
        if let Some(first) = damages.first() {
            return Err(Error::Unsupported(format!(
                "the copy is damaged and was not kept ({} findings, such as: {first}); run `settled audit --database`: when \
                 it finds the same, the database itself is damaged, otherwise the disk of {}",
                damages.len(),
                folder.display()
            )));
        }
        fs::rename(&part, to).map_err(|e| failed("cannot rename the copy", &e))?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| failed("cannot sync the folder of the copy", &e))
    }
}

fn spawn_thread(name: String, f: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name(name).spawn(f);
    thread.map(drop).map_err(|e| Error::Unavailable(format!("cannot start a database thread: {e}")))
}
