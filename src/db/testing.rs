//! Databases for the tests of this crate and of other crates. Each test gets its own database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, postgres::PgConnectOptions};
use url::Url;

use crate::{Backend, Config, Db, Error, Row, migrations};

/// Returns the URL of the PostgreSQL server that the tests share: `SETTLED_TEST_POSTGRES`, or a server that this
/// function starts.
///
/// # Panics
/// When there is no server: a test of PostgreSQL that cannot run must not pass.
pub fn provision_postgres_url() -> String {
    provision::postgres::start_shared_cluster().expect("the tests need a PostgreSQL server")
}

/// Opens a new database with all migrations applied. The database is deleted when the last handle is dropped.
///
/// # Panics
/// When it cannot be created.
pub async fn open_migrated(backend: Backend) -> Db {
    let database = TestDatabase::new(backend).await;
    let config = database.config();
    let db = Db::open_with_value_to_drop(&config, Some(Box::new(database))).await.expect("a new database opens");
    db.migrate().await.expect("a new database migrates");
    db
}

/// A database that is deleted when this value is dropped. It is for tests that open the database themselves or more
/// than once. On PostgreSQL the migrations are already applied; on SQLite the file does not exist yet.
pub struct TestDatabase {
    url: String,
    /// On SQLite: the folder that contains the database file.
    folder: Option<PathBuf>,
    /// On PostgreSQL: the session that holds the advisory lock on the name of the database.
    _session: Option<PgConnection>,
}

impl TestDatabase {
    /// Returns a database of this kind that is not open yet.
    ///
    /// # Panics
    /// When the database cannot be created.
    pub async fn new(backend: Backend) -> TestDatabase {
        match backend {
            Backend::Sqlite => TestDatabase::create_sqlite(),
            Backend::Postgres => TestDatabase::create_postgres(&provision_postgres_url()).await,
        }
    }

    /// Creates a temporary folder for an SQLite file. The file does not exist yet.
    ///
    /// # Panics
    /// When the folder cannot be created.
    pub fn create_sqlite() -> TestDatabase {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("settled-test-{}-{number}", std::process::id()));
        // An earlier process with the same id may have left its folder.
        let _absent = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the folder for a test database is created");
        let url = format!("sqlite:{}", folder.join("settled.db").display());
        TestDatabase { url, folder: Some(folder), _session: None }
    }

    /// Creates a database under the first name that no other test uses now. Names are used again, so killed tests do
    /// not leave more and more databases behind. The role of the URL must be allowed to create databases.
    ///
    /// # Panics
    /// When the database cannot be created.
    pub async fn create_postgres(server: &str) -> TestDatabase {
        let mut session = connect_to_server(server).await;
        let template = create_template_if_absent(&mut session, server).await;
        TestDatabase::create_from_template(session, server, &template).await
    }

    /// Returns a copy of this database, as a backup has it. On PostgreSQL all connections to this database are closed.
    ///
    /// # Panics
    /// When the copy cannot be made.
    pub async fn create_copy(&self) -> TestDatabase {
        if self.folder.is_some() {
            let copy = TestDatabase::create_sqlite();
            let file = PathBuf::from(copy.url.trim_start_matches("sqlite:"));
            let db = Db::open(&self.config()).await.expect("the database opens");
            db.backup(&file).await.expect("the database is copied");
            db.close().await;
            return copy;
        }
        let server = provision_postgres_url();
        let name = Url::parse(&self.url).expect("it was made from a URL").path().trim_start_matches('/').to_owned();
        let mut session = connect_to_server(&server).await;
        // A daemon that was dropped may still have connections.
        let end = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
        run_statement(&mut session, end).await;
        TestDatabase::create_from_template(session, &server, &name).await
    }

    async fn create_from_template(mut session: PgConnection, server: &str, template: &str) -> TestDatabase {
        let mut number = 0_i32;
        while !try_advisory_lock(&mut session, "select pg_try_advisory_lock(7362, $1)", number).await {
            number += 1;
        }
        let name = format!("settled_test_{number}");
        run_statement(&mut session, format!("drop database if exists {name} with (force)")).await;
        run_statement(&mut session, format!("create database {name} template {template}")).await;
        TestDatabase { url: url_with_database(server, &name), folder: None, _session: Some(session) }
    }

    /// Returns a configuration to open this database with few connections.
    pub fn config(&self) -> Config {
        Config { readers: 2, pg_pool: 8, ..Config::new(self.url.clone()) }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // If files cannot be deleted, they stay in the folder for temporary files.
            let _left = std::fs::remove_dir_all(folder);
        }
    }
}

/// Returns the name of a migrated database that tests copy. It is created once for each set of migrations.
async fn create_template_if_absent(session: &mut PgConnection, server: &str) -> String {
    let texts: Vec<u8> = migrations::ALL.iter().flat_map(|migration| migration.postgres.bytes()).collect();
    let digest = const_hex::encode(&Sha256::digest(texts)[..8]);
    let name = format!("settled_template_{digest}");
    run_statement(session, "select pg_advisory_lock(7363)".to_owned()).await;
    let exists =
        "select exists (select 1 from pg_database where datname = 'settled_template_' || $1 and datallowconn = false)";
    let exists: bool =
        sqlx::query_scalar(exists).bind(digest).fetch_one(&mut *session).await.expect("the server lists its databases");
    if !exists {
        run_statement(session, format!("drop database if exists {name} with (force)")).await;
        run_statement(session, format!("create database {name} template template0 encoding 'UTF8'")).await;
        let db = Db::open(&Config::new(url_with_database(server, &name))).await.expect("the template opens");
        db.migrate().await.expect("the template migrates");
        db.close().await;
        // This marks the template as complete. It also prevents sessions in the template, because a database with
        // sessions cannot be copied.
        run_statement(session, format!("alter database {name} with allow_connections false")).await;
    }
    run_statement(session, "select pg_advisory_unlock(7363)".to_owned()).await;
    name
}

/// Returns the URL of another database on the same server.
fn url_with_database(server: &str, name: &str) -> String {
    let mut url = Url::parse(server).expect("SETTLED_TEST_POSTGRES is a URL");
    url.set_path(name);
    url.into()
}

async fn connect_to_server(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("SETTLED_TEST_POSTGRES is a URL of PostgreSQL");
    let connected = options.disable_statement_logging().connect().await;
    connected.expect("the server of SETTLED_TEST_POSTGRES answers")
}

/// Runs one statement without a result.
///
/// # Panics
/// When the statement fails.
async fn run_statement(session: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(session).await.expect("the statement succeeds");
}

async fn try_advisory_lock(session: &mut PgConnection, sql: &'static str, number: i32) -> bool {
    sqlx::query_scalar(sql).bind(number).fetch_one(session).await.expect("the statement succeeds")
}

/// The largest number of steps that each statement of this process has taken on SQLite.
static SQLITE_STEPS: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

/// Records the steps of one run of a statement.
pub(crate) fn record_sqlite_steps(sql: &str, steps: u32) {
    let mut recorded = SQLITE_STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    match recorded.get_mut(sql) {
        Some(largest) => *largest = steps.max(*largest),
        None => drop(recorded.insert(sql.to_owned(), steps)),
    }
}

/// Returns the statements that ran on SQLite since the last call, each with the largest number of virtual machine steps of
/// one run. A row that a statement reads takes several steps. Statements for several given rows are not recorded. Other
/// tests of the process count too.
pub fn take_sqlite_steps() -> BTreeMap<String, u32> {
    std::mem::take(&mut *SQLITE_STEPS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Returns the number of rows and index entries that PostgreSQL has read since the database was created, by table. All work
/// must have been done through `db`, whose pool must have only one connection: each connection reports its own work.
///
/// # Panics
/// When the database is no PostgreSQL database.
pub async fn count_postgres_rows_read(db: &Db) -> BTreeMap<String, i64> {
    let flush = "select 1 as done from (select pg_stat_force_next_flush()) as flushed";
    let flushed = db.write("flush_statistics", move |tx| Box::pin(async move { tx.rows(flush, Vec::new()).await }));
    let _done: Vec<Row> = flushed.await.map_err(|e: Error| e).expect("PostgreSQL 15 or newer reports its statistics");
    let read = "select t.relname::text as name, (t.seq_tup_read + coalesce(sum(i.idx_tup_read), 0))::bigint as n
        from pg_stat_user_tables t left join pg_stat_user_indexes i on i.relid = t.relid
        group by t.relname, t.seq_tup_read";
    let rows = db.read("read_statistics", move |tx| Box::pin(async move { tx.rows(read, Vec::new()).await }));
    let rows: Vec<Row> = rows.await.map_err(|e: Error| e).expect("the statistics are read");
    let pair = |row: &Row| (row.get("name").expect("a name"), row.get("n").expect("a number"));
    rows.iter().map(pair).collect()
}

/// Makes two tests from one body, `name::sqlite` and `name::postgres`. The body gets a new database.
#[macro_export]
#[doc(hidden)]
macro_rules! both {
    ($($(#[$attribute:meta])* async fn $name:ident($db:ident: Db) $body:block)+) => {$(
        $(#[$attribute])*
        mod $name {
            use super::*;

            async fn body($db: $crate::Db) $body

            #[tokio::test]
            async fn sqlite() {
                body($crate::testing::open_migrated($crate::Backend::Sqlite).await).await;
            }

            #[tokio::test]
            async fn postgres() {
                body($crate::testing::open_migrated($crate::Backend::Postgres).await).await;
            }
        }
    )+};
}
