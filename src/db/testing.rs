//! Fresh databases for tests, of this crate and of `tests/it`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, postgres::PgConnectOptions};
use url::Url;

use crate::{Backend, Config, Db, migrations};

/// The server that tests share: the one of SETTLED_TEST_POSTGRES, or one that is provided.
///
/// # Panics
/// When there is none: a test of PostgreSQL that cannot run must not look as if it had passed.
pub fn postgres_url() -> String {
    provision::postgres::url().expect("a PostgreSQL server can be provided")
}

/// An open, migrated database of its own, gone with its last handle.
///
/// # Panics
/// When there can be none.
pub async fn fresh(backend: Backend) -> Db {
    let scratch = Scratch::new(backend).await;
    let config = scratch.config();
    let db = Db::open_keeping(&config, Some(Box::new(scratch))).await.expect("a fresh database opens");
    db.migrate().await.expect("a fresh database migrates");
    db
}

/// The place of a database of its own, for whoever opens it himself or more than once. On PostgreSQL it is migrated.
pub struct Scratch {
    url: String,
    folder: Option<PathBuf>,
    /// Its session holds the lock on the database's name.
    _session: Option<PgConnection>,
}

impl Scratch {
    /// # Panics
    /// When the place cannot be made.
    pub async fn new(backend: Backend) -> Scratch {
        match backend {
            Backend::Sqlite => Scratch::sqlite(),
            Backend::Postgres => Scratch::postgres(&postgres_url()).await,
        }
    }

    /// # Panics
    /// When the folder cannot be made.
    pub fn sqlite() -> Scratch {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("settled-test-{}-{number}", std::process::id()));
        // A process with the same number may have left one.
        let _absent = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder for a test's database can be made");
        Scratch { url: format!("sqlite:{}", folder.join("settled.db").display()), folder: Some(folder), _session: None }
    }

    /// The first name on this server that nobody uses: there are as many databases as tests run at once, also after a
    /// killed test. The role of the URL must be allowed to create databases.
    ///
    /// # Panics
    /// When the database cannot be made.
    pub async fn postgres(server: &str) -> Scratch {
        let mut session = connect(server).await;
        let template = template(&mut session, server).await;
        let mut number = 0_i32;
        while !bool_of(&mut session, "select pg_try_advisory_lock(7362, $1)", number).await {
            number += 1;
        }
        let name = format!("settled_test_{number}");
        run(&mut session, format!("drop database if exists {name} with (force)")).await;
        run(&mut session, format!("create database {name} template {template}")).await;
        Scratch { url: with_database(server, &name), folder: None, _session: Some(session) }
    }

    pub fn config(&self) -> Config {
        Config { readers: 2, pg_pool: 8, ..Config::new(self.url.clone()) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // What is left lies in the folder for temporary files.
            let _left = std::fs::remove_dir_all(folder);
        }
    }
}

/// A migrated database to copy, made once for each set of migrations.
async fn template(session: &mut PgConnection, server: &str) -> String {
    let texts: Vec<u8> = migrations::ALL.iter().flat_map(|migration| migration.postgres.bytes()).collect();
    let digest = const_hex::encode(&Sha256::digest(texts)[..8]);
    let name = format!("settled_template_{digest}");
    run(session, "select pg_advisory_lock(7363)".to_owned()).await;
    let exists =
        "select exists (select 1 from pg_database where datname = 'settled_template_' || $1 and datallowconn = false)";
    let exists: bool =
        sqlx::query_scalar(exists).bind(digest).fetch_one(&mut *session).await.expect("a name is looked up");
    if !exists {
        run(session, format!("drop database if exists {name} with (force)")).await;
        run(session, format!("create database {name} template template0 encoding 'UTF8'")).await;
        let db = Db::open(&Config::new(with_database(server, &name))).await.expect("a template opens");
        db.migrate().await.expect("a template migrates");
        db.close().await;
        // The mark that it is complete; it also keeps it free of sessions, which would forbid copies.
        run(session, format!("alter database {name} with allow_connections false")).await;
    }
    run(session, "select pg_advisory_unlock(7363)".to_owned()).await;
    name
}

fn with_database(server: &str, name: &str) -> String {
    let mut url = Url::parse(server).expect("SETTLED_TEST_POSTGRES is a URL");
    url.set_path(name);
    url.into()
}

async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("SETTLED_TEST_POSTGRES is a URL of PostgreSQL");
    let connected = options.disable_statement_logging().connect().await;
    connected.expect("the server of SETTLED_TEST_POSTGRES answers")
}

async fn run(session: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(session).await.expect("a test's database can be made");
}

async fn bool_of(session: &mut PgConnection, sql: &'static str, number: i32) -> bool {
    sqlx::query_scalar(sql).bind(number).fetch_one(session).await.expect("a lock can be asked for")
}

/// Makes two tests, `name::sqlite` and `name::postgres`, of one body that gets a fresh database.
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
                body($crate::testing::fresh($crate::Backend::Sqlite).await).await;
            }

            #[tokio::test]
            async fn postgres() {
                body($crate::testing::fresh($crate::Backend::Postgres).await).await;
            }
        }
    )+};
}
