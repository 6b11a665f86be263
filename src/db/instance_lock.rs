//! One daemon per database: watch sets are filled at its start, so a second one would hand out addresses that the first
//! does not watch. On SQLite the lock on the data folder says who it is; on PostgreSQL a session of its own does.
//!
//! A session can die while its daemon lives, and a lock alone would let the next one begin beside it. So the claim is a
//! fence too: every connection opened under it holds a shared lock and was opened under its epoch. Whoever comes next
//! raises the epoch, so that no further connection of the old one is let in, and waits until the last of them is gone.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::lease::{self, Epoch};
use crate::postgres::{FenceState, Pool, rows};
use crate::{Db, Engine, Error};

/// Whose lease carries the epoch.
const NAME: &str = "daemon";
/// How long a daemon that has just ended may take to be gone.
const TAKE_LIMIT: Duration = Duration::from_secs(3);
/// How long connections of the one before may go on: longer than any statement may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(100);
/// Between two looks at the claim.
const BEAT: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// What a session may be called, less `settled: `.
const OWNER_LENGTH_MAX: usize = 54;
/// The server notices within half a minute that the machine of a session is gone.
const KEEPALIVE: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("idle_session_timeout", "0"),
];

#[derive(Debug, thiserror::Error)]
pub enum InstanceLockError {
    #[error("the database is served by another daemon already: {holder}")]
    Held { holder: String },
    #[error("connections of the daemon that served the database before are still at work: {holder}")]
    Draining { holder: String },
    #[error(transparent)]
    Db(#[from] Error),
}

/// The right to be the daemon of a database.
pub struct InstanceLock {
    db: Db,
    /// None on SQLite.
    session: Option<Session>,
}

struct Session {
    pool: Arc<Pool>,
    owner: String,
    connection: PgConnection,
    epoch: Option<Epoch>,
}

impl InstanceLock {
    /// `owner` says to people who it is, such as `process 7 on shop-1`. Waits a moment for one that is just ending.
    pub async fn take(db: &Db, owner: &str) -> Result<InstanceLock, InstanceLockError> {
        let session = match &db.0.engine {
            Engine::Sqlite(_) => None,
            Engine::Postgres(engine) => Some(Session::open(engine.pool(), owner).await?),
        };
        Ok(InstanceLock { db: db.clone(), session })
    }

    /// Shuts out whatever the daemon before left behind; needs the schema. From here on every connection of the database
    /// belongs to the claim.
    pub async fn fence(&mut self) -> Result<(), InstanceLockError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let owner = session.owner.clone();
        let raise = self.db.write("claim", move |tx| Box::pin(async move { lease::take(tx, NAME, &owner).await }));
        let epoch: Epoch = raise.await?;
        session.pool.set_fence(FenceState::Fenced(epoch));
        session.epoch = Some(epoch);
        session.drain().await
    }

    /// Returns when the claim is lost for good, with the reason; nothing of this process reaches the database any more
    /// then. A session that died is opened again, as long as nobody else has come.
    pub async fn keep(&mut self) -> String {
        let Some(session) = &mut self.session else { return std::future::pending().await };
        loop {
            sleep(BEAT).await;
            if let Err(why) = session.beat().await {
                session.pool.set_fence(FenceState::Lost);
                error!("the claim on the database is lost: {why}");
                return why;
            }
        }
    }

    /// Lets another daemon follow at once.
    pub async fn release(self) {
        if let Some(session) = self.session
            && let Err(error) = session.connection.close().await
        {
            info!("the session of the claim ended with {error}");
        }
    }
}

impl Session {
    async fn open(pool: Arc<Pool>, owner: &str) -> Result<Session, InstanceLockError> {
        let owner: String = owner.chars().filter(char::is_ascii).take(OWNER_LENGTH_MAX).collect();
        let began = Instant::now();
        loop {
            let mut connection = dial(&pool, &owner).await?;
            if is_taken(&mut connection).await? {
                return Ok(Session { pool, owner, connection, epoch: None });
            }
            if began.elapsed() > TAKE_LIMIT {
                return Err(InstanceLockError::Held { holder: holder(&mut connection, HOLDS).await? });
            }
            sleep(RETRY).await;
        }
    }

    async fn drain(&mut self) -> Result<(), InstanceLockError> {
        let began = Instant::now();
        while !ask(&mut self.connection, "select pg_try_advisory_lock(7364, 2) as yes").await? {
            if began.elapsed() > DRAIN_LIMIT {
                return Err(InstanceLockError::Draining { holder: holder(&mut self.connection, STAYS).await? });
            }
            sleep(RETRY).await;
        }
        ask(&mut self.connection, "select pg_advisory_unlock(7364, 2) as yes").await?;
        Ok(())
    }

    /// An error is the end of the claim.
    async fn beat(&mut self) -> Result<(), String> {
        let trouble = match timeout(ANSWER_LIMIT, epoch(&mut self.connection)).await {
            Ok(Ok(epoch)) => return self.compare(epoch),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "the server does not answer".to_owned(),
        };
        warn!("the session that holds the claim on the database has died and is opened again: {trouble}");
        loop {
            match timeout(ANSWER_LIMIT, self.reopen()).await {
                Ok(Ok(outcome)) => return outcome,
                // Whoever holds the lock now cannot begin while connections of this claim are open; none is opened anew
                // after the epoch was raised. So there is time to find out.
                Ok(Err(error)) => warn!("the claim on the database cannot be renewed yet: {error}"),
                Err(_elapsed) => warn!("the claim on the database cannot be renewed yet: the server does not answer"),
            }
            sleep(BEAT).await;
        }
    }

    /// The inner error is the end of the claim.
    async fn reopen(&mut self) -> Result<Result<(), String>, Error> {
        let mut connection = dial(&self.pool, &self.owner).await?;
        let found = epoch(&mut connection).await?;
        if let Err(why) = self.compare(found) {
            return Ok(Err(why));
        }
        if is_taken(&mut connection).await? {
            // Between the look at the epoch and the lock somebody may have come and gone.
            let found = epoch(&mut connection).await?;
            self.connection = connection;
            return Ok(self.compare(found).inspect(|()| info!("the claim on the database was renewed")));
        }
        let holder = holder(&mut connection, HOLDS).await?;
        if holder.contains(&self.owner) {
            return Err(Error::Unavailable("the server has not noticed the end of the old session".into()));
        }
        Ok(Err(format!("another daemon has taken it: {holder}")))
    }

    fn compare(&self, found: Option<Epoch>) -> Result<(), String> {
        if found == self.epoch { Ok(()) } else { Err("another daemon has taken it".to_owned()) }
    }
}

/// For a connection that is opened under a claim. The lock comes first: who raises the epoch after it waits for its end.
pub(super) async fn enter(connection: &mut PgConnection, under: Epoch) -> Result<(), Error> {
    let lost = || Error::Unavailable("another daemon has claimed the database".into());
    if !ask(connection, "select pg_try_advisory_lock_shared(7364, 2) as yes").await? {
        return Err(lost());
    }
    if epoch(connection).await? == Some(under) { Ok(()) } else { Err(lost()) }
}

async fn dial(pool: &Pool, owner: &str) -> Result<PgConnection, Error> {
    let name = format!("settled: {owner}");
    let options = pool.options().clone().application_name(&name).options(KEEPALIVE);
    let connected = timeout(ANSWER_LIMIT, options.connect()).await;
    let connected = connected.map_err(|_elapsed| Error::Unavailable("the server does not answer".into()))?;
    connected.map_err(|e| Error::Unavailable(e.to_string()))
}

async fn is_taken(connection: &mut PgConnection) -> Result<bool, Error> {
    ask(connection, "select pg_try_advisory_lock(7364, 1) as yes").await
}

async fn ask(connection: &mut PgConnection, sql: &'static str) -> Result<bool, Error> {
    let found = rows(connection, sql, Vec::new(), Vec::new()).await?;
    found.first().map_or(Ok(false), |row| row.get("yes"))
}

async fn epoch(connection: &mut PgConnection) -> Result<Option<Epoch>, Error> {
    let found = rows(connection, "select epoch from leases where name = 'daemon'", Vec::new(), Vec::new()).await?;
    found.first().map(|row| row.get("epoch")).transpose()
}

const HOLDS: &str = "select a.application_name as name, host(a.client_addr) as address,
    to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as since
    from pg_locks l left join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.classid = 7364 and l.objid = 1 and l.objsubid = 2 and l.granted
    and l.database = (select oid from pg_database where datname = current_database()) limit 1";
const STAYS: &str = "select a.application_name as name, host(a.client_addr) as address,
    to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as since
    from pg_locks l left join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.classid = 7364 and l.objid = 2 and l.objsubid = 2 and l.granted
    and l.database = (select oid from pg_database where datname = current_database()) limit 1";

/// In words; sessions of another role do not show who they are.
async fn holder(connection: &mut PgConnection, sql: &'static str) -> Result<String, Error> {
    let found = rows(connection, sql, Vec::new(), Vec::new()).await?;
    let Some(row) = found.first() else { return Ok("a session that has just ended".into()) };
    let name = row.get::<Option<String>>("name")?.filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| "a session of another role".into());
    let address = row.get::<Option<String>>("address")?.map_or_else(String::new, |at| format!(" from {at}"));
    let since = row.get::<Option<String>>("since")?.map_or_else(String::new, |at| format!(", since {at} UTC"));
    Ok(format!("{}{address}{since}", name.trim_start_matches("settled: ")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::oneshot;

    use super::*;
    use crate::testing::Scratch;
    use crate::{Backend, execute, row};

    async fn open(scratch: &Scratch) -> Db {
        Db::open(&scratch.config()).await.unwrap()
    }

    async fn claimed(db: &Db, owner: &str) -> InstanceLock {
        let mut claim = InstanceLock::take(db, owner).await.unwrap();
        claim.fence().await.unwrap();
        claim
    }

    /// As an administrator or a broken network ends it.
    async fn end_session(db: &Db, owner: &str) {
        let name = format!("settled: {owner}");
        let ended = db.write("end_session", move |tx| {
            Box::pin(async move {
                row!(
                    tx,
                    "select pg_terminate_backend(pid) as yes from pg_stat_activity
                     where application_name = $1 and datname = current_database()",
                    name
                )
            })
        });
        assert!(ended.await.unwrap().unwrap().get::<bool>("yes").unwrap());
    }

    async fn holder_of(db: &Db) -> Option<i64> {
        let found: Result<_, Error> = db
            .read("holder", |tx| {
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

    async fn write(db: &Db) -> Result<u64, Error> {
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

    #[tokio::test]
    async fn the_second_is_refused_and_told_who_the_first_is() {
        let scratch = Scratch::new(Backend::Postgres).await;
        let (first, second) = (open(&scratch).await, open(&scratch).await);
        let claim = claimed(&first, "process 1 on a").await;
        let Err(InstanceLockError::Held { holder }) = InstanceLock::take(&second, "process 2 on b").await else {
            panic!("there is one already");
        };
        assert!(holder.starts_with("process 1 on a") && holder.contains(" UTC"), "{holder}");
        write(&first).await.unwrap();
        write(&second).await.expect("commands work beside the daemon");
        first.close().await;
        claim.release().await;
        claimed(&second, "process 2 on b").await;
        write(&second).await.unwrap();
    }

    #[tokio::test]
    async fn who_lost_it_is_out_before_another_begins() {
        let scratch = Scratch::new(Backend::Postgres).await;
        let (first, second) = (open(&scratch).await, open(&scratch).await);
        let mut old = claimed(&first, "process 1 on a").await;
        let begun = Arc::new(AtomicBool::new(false));
        let ((started, has_started), (end, may_end)) = (oneshot::channel(), oneshot::channel::<()>());
        let seen = begun.clone();
        let running = first.write("running", move |tx| {
            Box::pin(async move {
                row!(tx, "select 1 as one")?;
                started.send(()).unwrap();
                may_end.await.unwrap();
                assert!(!seen.load(Ordering::SeqCst), "another began while a transaction ran");
                execute!(tx, "insert into immutable_facts (name, value, recorded_at) values ('last', 'b', 0)")
            })
        });
        let follow = async {
            has_started.await.unwrap();
            end_session(&second, "process 1 on a").await;
            let mut new = InstanceLock::take(&second, "process 2 on b").await.unwrap();
            let fence = async {
                new.fence().await.unwrap();
                begun.store(true, Ordering::SeqCst);
            };
            let lose = async {
                let why = old.keep().await;
                assert!(why.contains("another daemon"), "{why}");
                let refused = write(&first).await.unwrap_err();
                assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
                end.send(()).unwrap();
            };
            tokio::join!(fence, lose);
            new
        };
        let (stored, new) = tokio::join!(running, follow);
        assert_eq!(stored, Ok(1), "what was begun under the claim is stored before the next one begins");
        assert!(write(&first).await.is_err(), "nothing comes after");
        write(&second).await.unwrap();
        new.release().await;
    }

    #[tokio::test]
    async fn a_session_that_dies_is_opened_again() {
        let scratch = Scratch::new(Backend::Postgres).await;
        let (db, beside) = (open(&scratch).await, open(&scratch).await);
        let mut claim = claimed(&db, "process 1 on a").await;
        let before = holder_of(&beside).await;
        end_session(&beside, "process 1 on a").await;
        let renewed = async {
            while holder_of(&beside).await.is_none_or(|now| Some(now) == before) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            why = claim.keep() => panic!("nobody else came: {why}"),
            () = renewed => {}
        }
        write(&db).await.unwrap();
    }

    #[tokio::test]
    async fn the_folder_is_the_claim_on_sqlite() {
        let scratch = Scratch::new(Backend::Sqlite).await;
        let db = open(&scratch).await;
        db.migrate().await.unwrap();
        let claim = claimed(&db, "process 1 on a").await;
        write(&db).await.unwrap();
        claim.release().await;
    }
}
