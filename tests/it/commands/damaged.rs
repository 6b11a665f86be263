//! Databases that are damaged below their rows: `settled audit --database` finds the damage, and `settled backup` gives
//! out no damaged copy.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use db::Db;
use db::testing::TestDatabase;
use envelope::Envelope;
use rusqlite::Connection;

use crate::commands::daemon::on_postgres;
use crate::commands::program::{install_migrated, run};

/// Overwrites the root page of a table with zeros, as a disk that lost the page does.
fn damage_root_page(database: &Path, table: &str) {
    let db = Connection::open(database).unwrap();
    let root: u64 = db
        .query_row("select rootpage from sqlite_schema where name = ?1", [table], |row| row.get::<_, i64>(0))
        .unwrap()
        .try_into()
        .unwrap();
    let size: u64 = db.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap();
    drop(db);
    let mut file = std::fs::OpenOptions::new().write(true).open(database).unwrap();
    file.seek(SeekFrom::Start((root - 1) * size)).unwrap();
    file.write_all(&vec![0; usize::try_from(size).unwrap()]).unwrap();
    file.sync_all().unwrap();
}

#[tokio::test]
async fn the_audit_of_the_database_finds_a_damaged_page() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_migrated(folder.path()).await;
    run(&["admin", "merchant", "create", "shop", "--config", &config]).await.done();
    let said = run(&["audit", "--database", "--config", &config]).await.done();
    assert!(said.contains("database: no damage was found by SQLite's integrity_check"), "{said}");

    damage_root_page(&folder.path().join("data/settled.db"), "reviews");
    run(&["audit", "--config", &config]).await.done();
    let found = run(&["audit", "--database", "--config", &config]).await;
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.out.contains("  WRONG: database: ") && found.out.contains("database: DAMAGED ("), "{found:?}");
    assert!(found.out.contains("restore a backup"), "{found:?}");
}

#[tokio::test]
async fn a_backup_with_a_damaged_row_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_migrated(folder.path()).await;
    run(&["admin", "merchant", "create", "shop", "--config", &config]).await.done();
    let copy = folder.path().join("copy.db");
    let said = run(&["backup", copy.to_str().unwrap(), "--config", &config]).await.done();
    assert!(said.contains("is a complete copy of the database and was verified"), "{said}");

    let db = Connection::open(folder.path().join("data/settled.db")).unwrap();
    db.pragma_update(None, "ignore_check_constraints", true).unwrap();
    let damage = "insert into reviews (kind, subject, detail, amount, opened_at) values ('a', 'b', 'c', x'00', 0)";
    assert_eq!(db.execute(damage, []).unwrap(), 1);
    drop(db);
    let second = folder.path().join("second.db");
    let refused = run(&["backup", second.to_str().unwrap(), "--config", &config]).await;
    assert!(refused.code == 1 && refused.err.contains("the copy is damaged and was not kept"), "{refused:?}");
    assert!(refused.err.contains("CHECK constraint failed in reviews"), "{refused:?}");
    assert!(refused.err.contains("run `settled audit --database`"), "{refused:?}");
    assert!(!second.exists() && !folder.path().join("second.db.part").exists());
    let found = run(&["audit", "--database", "--config", &config]).await;
    assert!(found.code == 1 && found.out.contains("CHECK constraint failed in reviews"), "{found:?}");
}

async fn execute_all(db: &Db, statements: &'static [&'static str]) {
    for sql in statements {
        let done = db.write("damage", move |tx| Box::pin(async move { tx.execute(sql, Vec::new()).await })).await;
        done.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_of_a_postgresql_database_finds_unreadable_rows_and_wrong_indices() {
    let server = tokio::task::block_in_place(provision::postgres::start_shared_cluster).unwrap();
    let scratch = TestDatabase::create_postgres(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, data) = (on_postgres(folder.path(), &scratch), folder.path().join("data"));
    std::fs::create_dir_all(&data).unwrap();
    Envelope::load_key_file_or_create_if_none(&data).unwrap();
    run(&["migrate", "--config", &config]).await.done();
    let audit = ["audit", "--database", "--config", &config];
    let said = run(&audit).await.done();
    assert!(said.contains("database: no damage was found by reading every row of every table"), "{said}");
    assert!(said.contains("NOT CHECKED: database: indices were not compared with their tables"), "{said}");

    // A row whose value no longer exists in the catalog cannot be read.
    let db = Db::open(&scratch.config()).await.unwrap();
    execute_all(
        &db,
        &[
            "create type mood as enum ('sad')",
            "create table unreadable (mood mood)",
            "insert into unreadable values ('sad')",
            "delete from pg_enum where enumtypid = 'mood'::regtype",
        ],
    )
    .await;
    let found = run(&audit).await;
    assert!(found.code == 1 && found.out.contains("WRONG: database: table unreadable: "), "{found:?}");
    assert!(found.out.contains("database: DAMAGED (1 findings)"), "{found:?}");

    let available = "select 1 as one from pg_available_extensions where name = 'amcheck'";
    let found = db.read("look", move |tx| Box::pin(async move { tx.row(available, Vec::new()).await })).await;
    if found.unwrap().is_none() {
        eprintln!("this server has no amcheck: the comparison of indices was NOT checked");
        return db.close().await;
    }
    // The order of the index is that of a function whose results have changed.
    execute_all(
        &db,
        &[
            "drop table unreadable",
            "create extension amcheck",
            "create function sign(bigint) returns bigint immutable language sql as 'select $1'",
            "create table misordered as select n::bigint from generate_series(1, 100) n",
            "create index misordered_index on misordered (public.sign(n))",
        ],
    )
    .await;
    let said = run(&audit).await.done();
    assert!(said.contains("by reading every row of every table and by amcheck on every table and index"), "{said}");
    execute_all(
        &db,
        &["create or replace function sign(bigint) returns bigint immutable language sql as 'select -$1'"],
    )
    .await;
    let found = run(&audit).await;
    assert!(found.code == 1 && found.out.contains("WRONG: database: index misordered_index: "), "{found:?}");
    db.close().await;
}
