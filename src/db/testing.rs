//! Databases for tests, of this crate and of others. Each test gets a database of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, postgres::PgConnectOptions};
use url::Url;

use crate::{Backend, Config, Db, migrations};

/// Returns the URL of the PostgreSQL server that the tests share: `SETTLED_TEST_POSTGRES`, or one that is started.
///
/// # Panics
/// When there is no server: a test of PostgreSQL that cannot run must not pass.
pub fn provision_postgres_url() -> String {
    provision::postgres::start_shared_cluster().expect("the tests need a PostgreSQL server")
}

/// Opens a new, migrated database, which is deleted with its last handle.
///
/// # Panics
/// When it cannot be created.
pub async fn open_migrated(backend: Backend) -> Db {
    let database = TestDatabase::new(backend).await;
    let config = database.config();
    let db = Db::open_with_owned(&config, Some(Box::new(database))).await.expect("a new database opens");
    db.migrate().await.expect("a new database migrates");
    db
}

/// A database that is deleted when this is dropped, for a test that opens it itself or more than once. On PostgreSQL it
/// is migrated; on SQLite it does not exist yet.
pub struct TestDatabase {
    url: String,
    /// On SQLite: the folder of the file.
    folder: Option<PathBuf>,
    /// On PostgreSQL: the session that holds the advisory lock on the name of the database.
    _session: Option<PgConnection>,
}

impl TestDatabase {
    /// Returns a database of this kind, which its caller opens.
    ///
    /// # Panics
    /// When the database cannot be created.
    pub async fn new(backend: Backend) -> TestDatabase {
        match backend {
            Backend::Sqlite => TestDatabase::create_sqlite(),
            Backend::Postgres => TestDatabase::create_postgres(&provision_postgres_url()).await,
        }
    }

    /// Makes a folder for a database file.
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

    /// Creates a database under the first name that no other test uses now. So there are only as many databases as
    /// tests that run at the same time, even when some were killed. The role of the URL must be allowed to create
    /// databases.
    ///
    /// # Panics
    /// When the database cannot be created.
    pub async fn create_postgres(server: &str) -> TestDatabase {
        let mut session = connect_to_server(server).await;
        let template = create_template_if_absent(&mut session, server).await;
        let mut number = 0_i32;
        while !try_advisory_lock(&mut session, "select pg_try_advisory_lock(7362, $1)", number).await {
            number += 1;
        }
        let name = format!("settled_test_{number}");
        run_statement(&mut session, format!("drop database if exists {name} with (force)")).await;
        run_statement(&mut session, format!("create database {name} template {template}")).await;
        TestDatabase { url: url_with_database(server, &name), folder: None, _session: Some(session) }
    }

    /// Returns a configuration with few connections.
    pub fn config(&self) -> Config {
        Config { readers: 2, pg_pool: 8, ..Config::new(self.url.clone()) }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // Files that cannot be deleted stay in the folder for temporary files.
            let _left = std::fs::remove_dir_all(folder);
        }
    }
}

/// Returns the name of a migrated database to copy, which is created once for each set of migrations.
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
        // Marks the template as complete, and keeps sessions away, which would prevent copies.
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

/// Makes two tests, `name::sqlite` and `name::postgres`, of one body that gets a new database.
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
