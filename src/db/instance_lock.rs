//! Ensures that only one daemon serves a database. A daemon loads the watched addresses when it starts, so it would not
//! watch addresses that a second daemon issues. On SQLite the lock is on a file beside the database; on PostgreSQL a
//! session of its own holds an advisory lock.
//!
//! A session can die while its daemon lives, and the lock alone would let the next daemon start beside it. So the lock
//! must also stop the old daemon. Every connection that the daemon opens holds a shared advisory lock and is opened
//! only while the epoch in the database is the daemon's own. The next daemon raises the epoch, so that the old one
//! cannot open further connections, and waits until the last of them is closed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::file_lock::{FileLock, FileLockError};
use crate::lease::{self, Epoch};
use crate::postgres::{Connections, FenceState, execute_returning_rows};
use crate::{Db, Engine, Error};

/// The name of the lease that every daemon takes over at its start. The epoch of the lease identifies the newest
/// daemon.
const LEASE: &str = "daemon";
/// The maximum time to wait for the lock, so that a daemon that is just shutting down can release it.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum time to wait until the connections of the previous daemon are closed. It is longer than any statement
/// may take.
const PREVIOUS_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two attempts to take a lock.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Time between two checks that the lock is still held.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum time to wait for an answer of the server.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of the owner's name, in characters: PostgreSQL allows 63 bytes, `settled: ` included.
const OWNER_LENGTH_MAX: usize = 54;
/// Settings of the session that holds the lock. With these settings the server ends the session within half a minute
/// after the daemon's machine disappears, but never because the session is idle.
const KEEPALIVE_SETTINGS: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("idle_session_timeout", "0"),
];

/// The reason why this process must not serve the database.
#[derive(Debug, thiserror::Error)]
pub enum InstanceLockError {
    /// Another daemon holds the lock. `holder` names its process and, on PostgreSQL, its address and start.
    #[error("the database is served by another daemon already: {holder}")]
    Held { holder: String },
    /// The previous daemon has lost the lock, but some of its connections are still open and could change data.
    #[error("connections of the daemon that served the database before are still at work: {holder}")]
    Draining { holder: String },
    /// The file beside an SQLite database cannot be opened, locked or written.
    #[error("cannot lock {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// The database returned an error.
    #[error(transparent)]
    Db(#[from] Error),
}

/// The right of this process to serve a database, which no other process has at the same time.
pub struct InstanceLock {
    db: Db,
    holder: Holder,
}

/// The object that holds the lock: a file on SQLite, a session on PostgreSQL.
enum Holder {
    /// On SQLite: a lock on a file beside the database.
    Sqlite(FileLock),
    /// On PostgreSQL: a session that holds an advisory lock.
    Postgres(Session),
}

/// The session that holds the lock on PostgreSQL.
struct Session {
    /// The connections of this daemon to the database. They are opened only while the epoch in the database is the
    /// epoch of this daemon.
    connections: Arc<Connections>,
    /// The name of this process, for messages to people.
    owner: String,
    /// The connection of the session that holds the lock.
    connection: PgConnection,
    /// The epoch of this daemon; `None` before [`InstanceLock::fence_out_previous_daemon`] was called.
    epoch: Option<Epoch>,
}

impl InstanceLock {
    /// Acquires the lock; on PostgreSQL, waits up to three seconds for a daemon that is just ending. `owner` names this
    /// process for people, such as `process 7 on shop-1`.
    ///
    /// # Errors
    /// [`InstanceLockError::Held`] while another daemon has the lock.
    pub async fn acquire_instance_lock(db: &Db, owner: &str) -> Result<InstanceLock, InstanceLockError> {
        let holder = match &db.0.engine {
            Engine::Sqlite(engine) => Holder::Sqlite(lock_file_beside_database(engine.path(), owner)?),
            Engine::Postgres(engine) => {
                Holder::Postgres(Session::connect_and_wait_for_lock(engine.connections(), owner).await?)
            }
        };
        Ok(InstanceLock { db: db.clone(), holder })
    }

    /// Makes the connections of the previous daemon unusable, because that daemon may have lost the lock without
    /// knowing it. The schema must exist. After this call, every connection of this daemon works only while this lock
    /// is held.
    ///
    /// # Errors
    /// [`InstanceLockError::Draining`] when connections of the previous daemon still work after a minute.
    pub async fn fence_out_previous_daemon(&mut self) -> Result<(), InstanceLockError> {
        let Holder::Postgres(session) = &mut self.holder else { return Ok(()) };
        let owner = session.owner.clone();
        let raise = self.db.write("take_over_lease", move |tx| {
            Box::pin(async move { lease::take_over_lease(tx, LEASE, &owner).await })
        });
        let epoch: Epoch = raise.await?;
        session.connections.set_fence_and_drop_idle(FenceState::Fenced(epoch));
        session.epoch = Some(epoch);
        session.wait_until_previous_disconnects().await
    }

    /// Checks the lock every two seconds. Returns the reason when the lock is lost permanently; after that, this
    /// process cannot use the database any more. When only the session died and no other daemon has taken the lock, the
    /// session is opened again. Never returns on SQLite, where the kernel keeps the lock for as long as the process
    /// lives.
    pub async fn keep_lock_until_lost(&mut self) -> String {
        let Holder::Postgres(session) = &mut self.holder else { return std::future::pending().await };
        loop {
            sleep(CHECK_INTERVAL).await;
            if let Err(reason) = session.verify_lock_or_keep_reconnecting().await {
                session.connections.set_fence_and_drop_idle(FenceState::Lost);
                error!("the instance lock on the database is lost: {reason}");
                return reason;
            }
        }
    }

    /// Releases the lock, so that another daemon can start at once.
    pub async fn release(self) {
        match self.holder {
            Holder::Sqlite(file) => drop(file),
            Holder::Postgres(session) => {
                if let Err(error) = session.connection.close().await {
                    info!("the session that held the instance lock closed with an error: {error}");
                }
            }
        }
    }
}

/// Locks the file `NAME.lock` beside the database `NAME`.
fn lock_file_beside_database(database: &std::path::Path, owner: &str) -> Result<FileLock, InstanceLockError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    FileLock::lock_file(&path, owner).map_err(|error| match error {
        FileLockError::Held { holder } => InstanceLockError::Held { holder },
        FileLockError::Io(source) => InstanceLockError::Io { path, source },
    })
}

impl Session {
    /// Opens a session and takes the lock in it. While another daemon has the lock, waits for it up to three seconds.
    async fn connect_and_wait_for_lock(
        connections: Arc<Connections>,
        owner: &str,
    ) -> Result<Session, InstanceLockError> {
        let owner: String = owner.chars().filter(char::is_ascii).take(OWNER_LENGTH_MAX).collect();
        let start = Instant::now();
        loop {
            let mut connection = connect_named_session(&connections, &owner).await?;
            if try_instance_lock(&mut connection).await? {
                return Ok(Session { connections, owner, connection, epoch: None });
            }
            if start.elapsed() > ACQUIRE_TIMEOUT {
                return Err(InstanceLockError::Held {
                    holder: find_and_describe_session(&mut connection, LOCK_HOLDER).await?,
                });
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// Waits up to a minute until the previous daemon has no open connection: every connection of a daemon holds a
    /// shared lock, so the exclusive lock can be taken only when all are closed.
    async fn wait_until_previous_disconnects(&mut self) -> Result<(), InstanceLockError> {
        let start = Instant::now();
        while !select_bool(&mut self.connection, "select pg_try_advisory_lock(7364, 2) as result").await? {
            if start.elapsed() > PREVIOUS_TIMEOUT {
                return Err(InstanceLockError::Draining {
                    holder: find_and_describe_session(&mut self.connection, FENCE_HOLDER).await?,
                });
            }
            sleep(RETRY_INTERVAL).await;
        }
        select_bool(&mut self.connection, "select pg_advisory_unlock(7364, 2) as result").await?;
        Ok(())
    }

    /// Checks that the lock is still held. When the session has died, tries every two seconds to open it again and to
    /// take the lock, until that succeeds or the lock is lost to another daemon. The error is the reason why the lock
    /// is lost.
    async fn verify_lock_or_keep_reconnecting(&mut self) -> Result<(), String> {
        let problem = match timeout(SERVER_TIMEOUT, find_newest_daemon_epoch(&mut self.connection)).await {
            Ok(Ok(epoch)) => return self.verify_epoch(epoch),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "the server does not answer".to_owned(),
        };
        warn!("the session that holds the instance lock on the database has died and is opened again: {problem}");
        loop {
            match timeout(SERVER_TIMEOUT, self.try_reconnect_and_retake_lock()).await {
                Ok(Ok(outcome)) => return outcome,
                // It is safe to try again later. If another daemon has taken the lock meanwhile, that daemon does not
                // start before all connections of this daemon are closed; and once that daemon has raised the epoch,
                // this daemon opens no new connections.
                Ok(Err(error)) => warn!("the instance lock on the database cannot be renewed yet: {error}"),
                Err(_elapsed) => {
                    warn!("the instance lock on the database cannot be renewed yet: the server does not answer");
                }
            }
            sleep(CHECK_INTERVAL).await;
        }
    }

    /// Opens a new session and takes the lock in it. The outer error means that the caller may try again; the inner
    /// error is the reason why the lock is lost.
    async fn try_reconnect_and_retake_lock(&mut self) -> Result<Result<(), String>, Error> {
        let mut connection = connect_named_session(&self.connections, &self.owner).await?;
        let found = find_newest_daemon_epoch(&mut connection).await?;
        if let Err(reason) = self.verify_epoch(found) {
            return Ok(Err(reason));
        }
        if try_instance_lock(&mut connection).await? {
            // Another daemon may have started and ended between two steps: after the epoch was read, and before the
            // lock was taken.
            let found = find_newest_daemon_epoch(&mut connection).await?;
            self.connection = connection;
            return Ok(self.verify_epoch(found).inspect(|()| info!("the instance lock on the database was renewed")));
        }
        let holder = find_and_describe_session(&mut connection, LOCK_HOLDER).await?;
        if holder.contains(&self.owner) {
            return Err(Error::Unavailable("the server has not noticed the end of the old session".into()));
        }
        Ok(Err(format!("another daemon has taken it: {holder}")))
    }

    /// Compares the epoch in the database with the epoch of this daemon. The error is the reason why the lock is lost.
    fn verify_epoch(&self, found: Option<Epoch>) -> Result<(), String> {
        if found == self.epoch { Ok(()) } else { Err("another daemon has taken it".to_owned()) }
    }
}

/// Prepares a new connection of a daemon: takes the shared lock, then compares the epoch. This order matters, because
/// the next daemon raises the epoch first and then waits for the shared locks.
///
/// # Errors
/// [`Error::Unavailable`] when another daemon has taken over.
pub(super) async fn take_shared_lock_if_epoch_matches(
    connection: &mut PgConnection,
    expected: Epoch,
) -> Result<(), Error> {
    let lost = || Error::Unavailable("another daemon has taken over the database".into());
    if !select_bool(connection, "select pg_try_advisory_lock_shared(7364, 2) as result").await? {
        return Err(lost());
    }
    if find_newest_daemon_epoch(connection).await? == Some(expected) { Ok(()) } else { Err(lost()) }
}

/// Opens a session for the lock. Its name shows `owner` to an administrator of the server.
async fn connect_named_session(connections: &Connections, owner: &str) -> Result<PgConnection, Error> {
    let name = format!("settled: {owner}");
    let options = connections.options().clone().application_name(&name).options(KEEPALIVE_SETTINGS);
    let connected = timeout(SERVER_TIMEOUT, options.connect()).await;
    let connected = connected.map_err(|_elapsed| Error::Unavailable("the server does not answer".into()))?;
    connected.map_err(|e| Error::Unavailable(e.to_string()))
}

/// Tries to take the instance lock for this session, without waiting. Returns true when the session has the lock.
async fn try_instance_lock(connection: &mut PgConnection) -> Result<bool, Error> {
    select_bool(connection, "select pg_try_advisory_lock(7364, 1) as result").await
}

/// Runs a `select` of one boolean column `result`; false when there is no row.
async fn select_bool(connection: &mut PgConnection, sql: &'static str) -> Result<bool, Error> {
    let found = execute_returning_rows(connection, sql, Vec::new(), Vec::new()).await?;
    found.first().map_or(Ok(false), |row| row.get("result"))
}

/// Returns the epoch of the newest daemon; `None` when no daemon has ever served this database.
async fn find_newest_daemon_epoch(connection: &mut PgConnection) -> Result<Option<Epoch>, Error> {
    let found =
        execute_returning_rows(connection, "select epoch from leases where name = 'daemon'", Vec::new(), Vec::new())
            .await?;
    found.first().map(|row| row.get("epoch")).transpose()
}

/// SQL that selects the name, the address and the start of the session that holds the instance lock.
const LOCK_HOLDER: &str = "select a.application_name as name, host(a.client_addr) as address,
    to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as started
    from pg_locks l left join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.classid = 7364 and l.objid = 1 and l.objsubid = 2 and l.granted
    and l.database = (select oid from pg_database where datname = current_database()) limit 1";
/// SQL that selects the name, the address and the start of one session that holds the shared lock, which every
/// connection of a daemon holds.
const FENCE_HOLDER: &str = "select a.application_name as name, host(a.client_addr) as address,
    to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as started
    from pg_locks l left join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.classid = 7364 and l.objid = 2 and l.objsubid = 2 and l.granted
    and l.database = (select oid from pg_database where datname = current_database()) limit 1";

/// Returns a text for people with the name, the address and the start of the session that `sql` selects. The server
/// hides these from roles that may not see the session; the text says so.
async fn find_and_describe_session(connection: &mut PgConnection, sql: &'static str) -> Result<String, Error> {
    let found = execute_returning_rows(connection, sql, Vec::new(), Vec::new()).await?;
    let Some(row) = found.first() else { return Ok("a session that has just ended".into()) };
    let name = row.get::<Option<String>>("name")?.filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| "a session of another role".into());
    let address = row.get::<Option<String>>("address")?;
    let address = address.map_or_else(String::new, |address| format!(" from {address}"));
    let started = row.get::<Option<String>>("started")?;
    let started = started.map_or_else(String::new, |started| format!(", since {started} UTC"));
    Ok(format!("{}{address}{started}", name.trim_start_matches("settled: ")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::oneshot;

    use super::*;
    use crate::testing::TestDatabase;
    use crate::{Backend, execute, row};

    async fn open_migrated_db(database: &TestDatabase) -> Db {
        let db = Db::open(&database.config()).await.unwrap();
        db.migrate().await.unwrap();
        db
    }

    async fn acquire_and_fence(db: &Db, owner: &str) -> InstanceLock {
        let mut lock = InstanceLock::acquire_instance_lock(db, owner).await.unwrap();
        lock.fence_out_previous_daemon().await.unwrap();
        lock
    }

    /// Ends the session that holds the lock, as an administrator or a broken network could do.
    async fn end_session(db: &Db, owner: &str) {
        let name = format!("settled: {owner}");
        let ended = db.write("end_session", move |tx| {
            Box::pin(async move {
                row!(
                    tx,
                    "select pg_terminate_backend(pid) as ended from pg_stat_activity
                     where application_name = $1 and datname = current_database()",
                    name
                )
            })
        });
        assert!(ended.await.unwrap().unwrap().get::<bool>("ended").unwrap());
    }

    /// Returns the process id of the session that holds the lock.
    async fn find_session_pid(db: &Db) -> Option<i64> {
        let found: Result<_, Error> = db
            .read("session_pid", |tx| {
                Box::pin(async move {
                    row!(
                        tx,
                        "select cast(pid as bigint) as pid from pg_locks where locktype = 'advisory' and classid = 7364
                         and objid = 1 and granted
                         and database = (select oid from pg_database where datname = current_database())"
                    )
                })
            })
            .await;
        found.unwrap().map(|row| row.get("pid").unwrap())
    }

    async fn insert_fact(db: &Db) -> Result<u64, Error> {
        db.write("write", |tx| {
            Box::pin(async move {
                execute!(
                    tx,
                    "insert into immutable_facts (name, value, recorded_at) values ('a', 'b', 0) on conflict do nothing"
                )
            })
        })
        .await
    }

    async fn a_second_daemon_is_refused_and_told_which_process_serves(backend: Backend) {
        let database = TestDatabase::new(backend).await;
        let (first, second) = (open_migrated_db(&database).await, open_migrated_db(&database).await);
        let lock = acquire_and_fence(&first, "process 1 on a").await;
        for _ in 0..2 {
            let Err(InstanceLockError::Held { holder }) =
                InstanceLock::acquire_instance_lock(&second, "process 2 on b").await
            else {
                panic!("the lock was acquired twice");
            };
            assert!(holder.starts_with("process 1 on a"), "{holder}");
            assert!(backend == Backend::Sqlite || holder.contains(" UTC"), "{holder}");
        }
        insert_fact(&first).await.expect("the refused attempts do not disturb the daemon");
        insert_fact(&second).await.expect("commands work beside the daemon");
        first.close().await;
        lock.release().await;
        let _second_lock = acquire_and_fence(&second, "process 2 on b").await;
        insert_fact(&second).await.unwrap();
        let Err(InstanceLockError::Held { holder }) =
            InstanceLock::acquire_instance_lock(&second, "process 3 on c").await
        else {
            panic!("the lock was acquired twice");
        };
        assert!(holder.starts_with("process 2 on b"), "{holder}");
    }

    #[tokio::test]
    async fn a_second_daemon_is_refused_on_sqlite() {
        a_second_daemon_is_refused_and_told_which_process_serves(Backend::Sqlite).await;
    }

    #[tokio::test]
    async fn a_second_daemon_is_refused_on_postgres() {
        a_second_daemon_is_refused_and_told_which_process_serves(Backend::Postgres).await;
    }

    #[tokio::test]
    async fn of_two_daemons_that_start_at_once_one_is_refused() {
        for backend in [Backend::Sqlite, Backend::Postgres] {
            let database = TestDatabase::new(backend).await;
            let (first, second) = (open_migrated_db(&database).await, open_migrated_db(&database).await);
            let outcomes = tokio::join!(
                InstanceLock::acquire_instance_lock(&first, "process 1 on a"),
                InstanceLock::acquire_instance_lock(&second, "process 2 on b")
            );
            let (winner, refusal) = match outcomes {
                (Ok(_lock), Err(refusal)) => ("process 1 on a", refusal),
                (Err(refusal), Ok(_lock)) => ("process 2 on b", refusal),
                (Ok(_), Ok(_)) => panic!("both daemons hold the lock on {backend:?}"),
                (Err(first), Err(second)) => panic!("no daemon holds the lock on {backend:?}: {first}, {second}"),
            };
            assert!(matches!(&refusal, InstanceLockError::Held { holder } if holder.starts_with(winner)), "{refusal}");
        }
    }

    #[tokio::test]
    async fn a_daemon_that_lost_the_lock_is_shut_out_before_the_next_one_starts() {
        let database = TestDatabase::new(Backend::Postgres).await;
        let (first, second) = (open_migrated_db(&database).await, open_migrated_db(&database).await);
        let mut old = acquire_and_fence(&first, "process 1 on a").await;
        let has_started = Arc::new(AtomicBool::new(false));
        let ((begin, has_begun), (end, may_end)) = (oneshot::channel(), oneshot::channel::<()>());
        let next_has_started = has_started.clone();
        let running = first.write("running", move |tx| {
            Box::pin(async move {
                row!(tx, "select 1 as one")?;
                begin.send(()).unwrap();
                may_end.await.unwrap();
                assert!(!next_has_started.load(Ordering::SeqCst), "the next daemon started during a transaction");
                execute!(tx, "insert into immutable_facts (name, value, recorded_at) values ('last', 'b', 0)")
            })
        });
        let takeover = async {
            has_begun.await.unwrap();
            end_session(&second, "process 1 on a").await;
            let mut new = InstanceLock::acquire_instance_lock(&second, "process 2 on b").await.unwrap();
            let fence = async {
                new.fence_out_previous_daemon().await.unwrap();
                has_started.store(true, Ordering::SeqCst);
            };
            let lose = async {
                let reason = old.keep_lock_until_lost().await;
                assert!(reason.contains("another daemon"), "{reason}");
                let refusal = insert_fact(&first).await.unwrap_err();
                assert!(matches!(refusal, Error::Unavailable(_)), "{refusal}");
                end.send(()).unwrap();
            };
            tokio::join!(fence, lose);
            new
        };
        let (stored, new) = tokio::join!(running, takeover);
        assert_eq!(stored, Ok(1), "a transaction that began under the old lock ends before the next daemon starts");
        assert!(insert_fact(&first).await.is_err(), "the old daemon cannot write any more");
        insert_fact(&second).await.unwrap();
        new.release().await;
    }

    #[tokio::test]
    async fn a_session_that_dies_is_opened_again() {
        let database = TestDatabase::new(Backend::Postgres).await;
        let (db, observer) = (open_migrated_db(&database).await, open_migrated_db(&database).await);
        let mut lock = acquire_and_fence(&db, "process 1 on a").await;
        let old_pid = find_session_pid(&observer).await;
        end_session(&observer, "process 1 on a").await;
        let renewed = async {
            while find_session_pid(&observer).await.is_none_or(|pid| Some(pid) == old_pid) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            reason = lock.keep_lock_until_lost() => panic!("the lock was lost although no other daemon started: {reason}"),
            () = renewed => {}
        }
        insert_fact(&db).await.unwrap();
    }
}
