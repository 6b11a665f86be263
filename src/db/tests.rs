//! Tests of the behaviour that both databases share, and of what is special to one of them.

use std::path::Path;
use std::sync::{Arc, Mutex};

use chain::Amount;
use proptest::prelude::*;
use tokio::sync::oneshot;

use crate::both;
use crate::file_lock::{DataFolderLock, DataFolderLockError};
use crate::migrations::{self, Migration};
use crate::testing::{TestDatabase, open_migrated};
use crate::*;
use clock::Instant;

async fn run_sql_script(db: &Db, sql: &'static str) {
    db.write("run_script", move |tx| Box::pin(async move { tx.run_script(sql).await })).await.unwrap();
}

async fn create_items_table(db: &Db) -> Db {
    run_sql_script(
        db,
        "create table items (id bigint primary key, note text not null, amount bigint not null check (amount >= 0))",
    )
    .await;
    db.clone()
}

async fn insert_item(db: &Db, id: i64, amount: i64) -> Result<(), Error> {
    db.write("insert", move |tx| {
        Box::pin(async move {
            let n = execute!(tx, "insert into items (id, note, amount) values ($1, $2, $3)", id, "note", amount)?;
            expect_changed(n, 1)
        })
    })
    .await
}

async fn list_item_ids(db: &Db) -> Vec<i64> {
    db.read("ids", |tx| {
        Box::pin(async move {
            let rows = rows!(tx, "select id from items order by id")?;
            rows.iter().map(|row| row.get("id")).collect::<Result<Vec<i64>, Error>>()
        })
    })
    .await
    .unwrap()
}

both! {
    async fn many_writers_share_commits_and_one_failure_does_not_affect_the_others(db: Db) {
        let db = create_items_table(&db).await;
        let before = db.counters();
        let writes = (0..200).map(|id| {
            let db = db.clone();
            async move { insert_item(&db, id, if id == 77 { -1 } else { id }).await }
        });
        let results = futures_util::future::join_all(writes).await;
        for (id, result) in results.iter().enumerate() {
            if id == 77 {
                assert!(matches!(result, Err(Error::Constraint { kind: Constraint::Check, .. })), "{result:?}");
            } else {
                assert_eq!(result, &Ok(()));
            }
        }
        let expected: Vec<i64> = (0..200).filter(|id| *id != 77).collect();
        assert_eq!(list_item_ids(&db).await, expected);
        let after = db.counters();
        assert_eq!(after.transactions - before.transactions, 201);
        assert_eq!(after.sql_statements - before.sql_statements, 201);
        match db.backend() {
            Backend::Sqlite => assert!(after.commits - before.commits < 199, "{} commits", after.commits - before.commits),
            Backend::Postgres => assert_eq!(after.commits - before.commits, 199),
        }
    }

    async fn a_panic_of_one_transaction_is_its_error_only(db: Db) {
        let db = create_items_table(&db).await;
        let panics = |id: i64| {
            let db = db.clone();
            async move {
                db.write::<(), Error, _>("panics", move |tx| {
                    Box::pin(async move {
                        execute!(tx, "insert into items (id, note, amount) values ($1, 'x', 1)", id)?;
                        panic!("on purpose");
                    })
                })
                .await
            }
        };
        let (first, kept, second) = tokio::join!(panics(1), insert_item(&db, 2, 2), panics(3));
        let expected = Error::Panicked { name: "panics", message: "on purpose".into() };
        assert_eq!((first, kept, second), (Err(expected.clone()), Ok(()), Err(expected)));
        assert_eq!(list_item_ids(&db).await, [2]);
    }

    async fn a_cancelled_caller_leaves_no_transaction_open(db: Db) {
        let db = create_items_table(&db).await;
        let (stored, is_stored) = oneshot::channel();
        let write = db.write::<(), Error, _>("cancelled", move |tx| {
            Box::pin(async move {
                execute!(tx, "insert into items (id, note, amount) values (1, 'x', 1)")?;
                tx.after_commit(move || stored.send(()).unwrap());
                Ok(())
            })
        });
        let mut write = Box::pin(write);
        assert!(futures_util::poll!(&mut write).is_pending());
        drop(write);
        is_stored.await.unwrap();
        assert_eq!(list_item_ids(&db).await, [1]);
        insert_item(&db, 2, 2).await.unwrap();
        assert_eq!(list_item_ids(&db).await, [1, 2]);
    }

    async fn both_databases_report_the_same_constraints(db: Db) {
        run_sql_script(&db, "create table parents (id bigint primary key, code text not null unique)").await;
        run_sql_script(&db, "create table children (id bigint primary key, parent bigint not null references parents (id))").await;
        let run = |sql: &'static str| {
            let db = db.clone();
            async move { db.write("change", move |tx| Box::pin(async move { execute!(tx, sql) })).await }
        };
        assert_eq!(run("insert into parents values (1, 'a')").await, Ok(1));
        let kinds = [
            ("insert into parents values (1, 'b')", Constraint::Unique),
            ("insert into parents values (2, 'a')", Constraint::Unique),
            ("insert into parents values (2, null)", Constraint::NotNull),
            ("insert into children values (1, 9)", Constraint::ForeignKey),
        ];
        for (sql, expected) in kinds {
            let error = run(sql).await.unwrap_err();
            assert!(matches!(&error, Error::Constraint { kind, .. } if *kind == expected), "{sql}: {error:?}");
            assert_eq!(error.is_unique(), expected == Constraint::Unique);
        }
        assert_eq!(run("insert into children values (1, 1)").await, Ok(1));
        let error = run("delete from parents").await.unwrap_err();
        assert!(matches!(error, Error::Constraint { kind: Constraint::ForeignKey, .. }), "{error:?}");
        let error = run("insert into nowhere values (1)").await.unwrap_err();
        assert!(matches!(error, Error::Statement(_)), "{error:?}");
    }

    async fn a_failed_statement_ends_its_transaction(db: Db) {
        let db = create_items_table(&db).await;
        insert_item(&db, 1, 1).await.unwrap();
        let result = db
            .write::<(), Error, _>("continues", |tx| {
                Box::pin(async move {
                    execute!(tx, "insert into items (id, note, amount) values (2, 'x', 1)")?;
                    let twice = execute!(tx, "insert into items (id, note, amount) values (1, 'x', 1)");
                    assert!(twice.as_ref().is_err_and(Error::is_unique));
                    assert_eq!(execute!(tx, "update items set amount = 5"), twice);
                    Ok(())
                })
            })
            .await;
        assert!(result.is_err_and(|error| error.is_unique()));
        assert_eq!(list_item_ids(&db).await, [1]);
    }

    async fn hooks_run_once_and_only_after_a_commit(db: Db) {
        let db = create_items_table(&db).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let write = |id: i64, refuse: bool| {
            let (db, seen) = (db.clone(), seen.clone());
            async move {
                db.write::<(), Error, _>("hooked", move |tx| {
                    Box::pin(async move {
                        tx.after_commit(move || seen.lock().unwrap().push(id));
                        tx.after_commit(|| panic!("on purpose"));
                        execute!(tx, "insert into items (id, note, amount) values ($1, 'x', 1)", id)?;
                        if refuse { Err(Error::UnexpectedRowCount { expected: 1, found: 0 }) } else { Ok(()) }
                    })
                })
                .await
            }
        };
        let results = tokio::join!(write(1, false), write(2, true), write(3, false), write(3, false));
        assert!(results.0.is_ok() && results.1.is_err() && (results.2.is_ok() != results.3.is_ok()), "{results:?}");
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, [1, 3]);
    }

    async fn stored_values_are_read_back_unchanged(db: Db) {
        run_sql_script(&db, match db.backend() {
            Backend::Sqlite => "create table kinds (id bigint primary key, n bigint, t text, b blob, f bigint)",
            Backend::Postgres => "create table kinds (id bigint primary key, n bigint, t text, b bytea, f bigint)",
        }).await;
        let amount = Amount::from_units(u128::MAX);
        // The first row has nulls: PostgreSQL infers the types of the prepared statement from them.
        type Case = (Option<i64>, Option<String>, Option<Vec<u8>>, bool);
        let cases: Vec<Case> = vec![
            (None, None, None, false),
            (Some(i64::MIN), Some("ünï'\"$1 \u{1f4b0}".into()), Some(vec![0, 255, 0]), true),
            (Some(i64::MAX), Some(String::new()), Some(vec![]), false),
            (Some(0), Some("x".repeat(100_000)), Some(amount.to_be_bytes().to_vec()), true),
        ];
        for (id, (n, t, b, f)) in (0_i64..).zip(cases) {
            let expected = (n, t.clone(), b.clone(), f);
            let found = db.write::<_, Error, _>("round_trip", move |tx| Box::pin(async move {
                // `$n` refers to its value by its number, in any order and any number of times.
                let sql = "insert into kinds (t, id, f, b, n) values ($3, $1, $5, $4, $2) returning n, t, b, f";
                row!(tx, sql, id, n, t, b, f)?;
                let row = row!(tx, "select n, t, b, f, count(*) over () as c from kinds where id = $1 and $1 >= 0", id)?.unwrap();
                assert_eq!(row.get::<u64>("c")?, 1);
                assert_eq!(row.get::<i64>("c")?, row.get_at::<i64>(4)?);
                Ok((row.get("n")?, row.get("t")?, row.get("b")?, row.get("f")?))
            })).await.unwrap();
            assert_eq!(found, expected);
        }
        db.read::<_, Error, _>("wrong_types", move |tx| Box::pin(async move {
            let row = row!(tx, "select n, t, b, f from kinds where id = 3")?.unwrap();
            assert_eq!(row.get::<Amount>("b")?, amount);
            assert_eq!(row.get::<[u8; 32]>("b")?, amount.to_be_bytes());
            assert_eq!(row.get::<Instant>("n")?, Instant(0));
            assert_eq!(row.get::<u8>("n")?, 0);
            for error in [row.get::<i64>("t").err(), row.get::<[u8; 20]>("b").err(), row.get::<String>("n").err(), row.get::<i64>("z").err(), row.get_at::<i64>(4).err()] {
                assert!(matches!(error, Some(Error::Value { .. })), "{error:?}");
            }
            assert!(row.get::<i64>("t").unwrap_err().to_string().contains("column `t`"));
            assert!(matches!(row!(tx, "select id from kinds order by id"), Err(Error::TooManyRows { found: 4 })));
            let too_large = execute!(tx, "select $1", u64::MAX);
            assert!(matches!(too_large, Err(Error::Statement(_))), "{too_large:?}");
            Ok(())
        })).await.unwrap();
    }

    async fn a_reader_sees_one_snapshot_of_the_committed_rows(db: Db) {
        let db = create_items_table(&db).await;
        insert_item(&db, 1, 1).await.unwrap();
        let writer = db.clone();
        // A writer commits while a reader holds its snapshot. Neither waits for the other.
        let seen = {
            let (reading, is_reading) = std::sync::mpsc::channel();
            let (written, is_written) = std::sync::mpsc::channel();
            let read = std::thread::spawn({
                let db = db.clone();
                move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(db.read::<_, Error, _>("snapshot", move |tx| Box::pin(async move {
                        let first = rows!(tx, "select id from items")?.len();
                        reading.send(()).unwrap();
                        is_written.recv().unwrap();
                        Ok((first, rows!(tx, "select id from items")?.len()))
                    })))
                }
            });
            tokio::task::spawn_blocking(move || is_reading.recv().unwrap()).await.unwrap();
            insert_item(&writer, 2, 2).await.unwrap();
            written.send(()).unwrap();
            tokio::task::spawn_blocking(move || read.join().unwrap()).await.unwrap().unwrap()
        };
        assert_eq!(seen, (1, 1));
        assert_eq!(list_item_ids(&db).await, [1, 2]);
    }

    async fn a_reader_cannot_change_anything(db: Db) {
        let db = create_items_table(&db).await;
        let result = db.read("writes", |tx| Box::pin(async move { execute!(tx, "delete from items") })).await;
        assert!(matches!(result, Err(Error::Statement(_))), "{result:?}");
        insert_item(&db, 1, 1).await.unwrap();
        assert_eq!(list_item_ids(&db).await, [1]);
    }

    async fn select_one_runs_exactly_one_select(db: Db) {
        let db = create_items_table(&db).await;
        insert_item(&db, 1, 1).await.unwrap();
        let before = db.counters();
        let selects = (0..50).map(|_| db.run_body_as_select_with_fallback::<_, Error, _>("select", |tx| Box::pin(async move {
            row!(tx, "select amount from items where id = $1", 1_i64)?.unwrap().get::<i64>("amount")
        })));
        assert_eq!(futures_util::future::join_all(selects).await, vec![Ok(1); 50]);
        let after = db.counters();
        assert_eq!(after.sql_statements - before.sql_statements, 50);
        assert_eq!((after.transactions - before.transactions, after.commits), (50, before.commits));
        let twice = db.run_body_as_select_with_fallback("twice", |tx| Box::pin(async move {
            rows!(tx, "select id from items")?;
            rows!(tx, "select id from items")
        })).await;
        assert!(matches!(&twice, Err(Error::Statement(_))), "{twice:?}");
        let changes = db.run_body_as_select_with_fallback("changes", |tx| Box::pin(async move { execute!(tx, "delete from items") })).await;
        assert!(matches!(&changes, Err(Error::Statement(_))), "{changes:?}");
        let panics = db.run_body_as_select_with_fallback::<(), Error, _>("panics", |_| Box::pin(async { panic!("on purpose") })).await;
        assert!(matches!(&panics, Err(Error::Panicked { .. })), "{panics:?}");
        assert_eq!(list_item_ids(&db).await, [1]);
        db.close().await;
        let late = db.run_body_as_select_with_fallback("late", |tx| Box::pin(async move { row!(tx, "select 1") })).await;
        assert!(matches!(late.map(drop), Err(Error::Unavailable(_))));
    }

    async fn queued_statements_bind_ids_that_earlier_ones_returned(db: Db) {
        run_sql_script(&db, match db.backend() {
            Backend::Sqlite => "create table parents (id integer primary key autoincrement, code text not null unique)",
            Backend::Postgres => "create table parents (id bigint generated always as identity primary key, code text not null unique)",
        }).await;
        run_sql_script(&db, "create table children (id bigint primary key, parent bigint not null references parents (id), note text)").await;
        let run = |code: &'static str, first: i64| db.write::<_, Error, _>("batch", move |tx| Box::pin(async move {
            let parent: ResultRef<i64> = queued!(tx, "insert into parents (code) values ($1) returning id", code);
            for id in first..first + 2 {
                let _child: ResultRef<i64> = queued!(
                    tx,
                    "insert into children (id, note, parent) values ($2, $3, $1) returning id",
                    parent,
                    id,
                    Option::<String>::None
                );
            }
            let many: ResultRef<i64> = queued!(tx, "update children set note = $1 where id < $2 returning id", "x", first);
            let none: ResultRef<i64> = queued!(tx, "update children set note = $1 where id < 0 returning id", "x");
            let after: ResultRef<i64> = queued!(tx, "update children set note = 'y' where id = $1 returning id", none);
            tx.run_queued().await?;
            assert_eq!((tx.row_count_of(parent), tx.row_count_of(none), tx.row_count_of(after)), (1, 0, 0));
            assert!(matches!(tx.id_of::<i64>(none), Err(Error::UnexpectedRowCount { expected: 1, found: 0 })));
            Ok((tx.id_of(parent)?, tx.row_count_of(many)))
        }));
        let (first, none) = run("a", 10).await.unwrap();
        let before = db.counters();
        let (second, two) = run("b", 12).await.unwrap();
        assert_eq!((none, two), (0, 2));
        let after = db.counters();
        let statements = match db.backend() {
            Backend::Sqlite => 6,
            Backend::Postgres => 1,
        };
        assert_eq!((after.sql_statements - before.sql_statements, after.commits - before.commits), (statements, 1));
        assert!(run("a", 20).await.unwrap_err().is_unique());
        let found = db.read::<_, Error, _>("children", |tx| Box::pin(async move {
            let rows = rows!(tx, "select id, parent, note from children order by id")?;
            rows.iter().map(|row| Ok((row.get("id")?, row.get("parent")?, row.get("note")?))).collect::<Result<Vec<_>, Error>>()
        })).await.unwrap();
        let x = || Some("x".to_owned());
        let expected: Vec<(i64, i64, Option<String>)> =
            vec![(10, first, x()), (11, first, x()), (12, second, None), (13, second, None)];
        assert_eq!(found, expected);
    }

    async fn only_changes_count_as_commits(db: Db) {
        let db = create_items_table(&db).await;
        insert_item(&db, 1, 1).await.unwrap();
        let before = db.counters();
        list_item_ids(&db).await;
        let none = db.write("nothing", |tx| Box::pin(async move { execute!(tx, "update items set amount = 2 where id = 9") })).await;
        assert_eq!(none, Ok(0));
        let locked = db.write::<_, Error, _>("locks", |tx| Box::pin(async move {
            Ok(rows!(tx, "select id from items where id = $1 for update", 1_i64)?.len())
        })).await;
        assert_eq!(locked, Ok(1));
        let after = db.counters();
        assert_eq!(after.commits, before.commits);
        assert_eq!(after.transactions, before.transactions + 3);
        assert_eq!(after.sql_statements, before.sql_statements + 3);
        insert_item(&db, 2, 2).await.unwrap();
        assert_eq!(db.counters().commits, before.commits + 1);
    }

    async fn a_closed_database_finishes_its_transactions_and_refuses_new_ones(db: Db) {
        let db = create_items_table(&db).await;
        let writes: Vec<_> = (0..20).map(|id| {
            let db = db.clone();
            async move { insert_item(&db, id, 1).await }
        }).collect();
        let closing = db.clone();
        let (results, ()) = tokio::join!(futures_util::future::join_all(writes), async move { closing.close().await });
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert!(matches!(insert_item(&db, 99, 1).await, Err(Error::Unavailable(_))));
        let read = db.read("late", |tx| Box::pin(async move { row!(tx, "select 1") })).await;
        assert!(matches!(read.map(drop), Err(Error::Unavailable(_))));
        db.close().await;
    }

    async fn amounts_are_ordered_by_their_bytes(db: Db) {
        run_sql_script(&db, match db.backend() {
            Backend::Sqlite => "create table amounts (amount blob not null)",
            Backend::Postgres => "create table amounts (amount bytea not null)",
        }).await;
        let mut amounts: Vec<Amount> = [0_u128, 1, 255, 256, u128::from(u64::MAX), u128::MAX].map(Amount::from_units).into();
        amounts.push(Amount::MAX);
        let shuffled = [3, 0, 6, 2, 5, 1, 4].map(|index: usize| amounts[index]);
        let found = db.write::<_, Error, _>("order", move |tx| Box::pin(async move {
            for amount in &shuffled {
                execute!(tx, "insert into amounts (amount) values ($1)", amount)?;
            }
            let rows = rows!(tx, "select amount from amounts order by amount")?;
            rows.iter().map(|row| row.get("amount")).collect::<Result<Vec<Amount>, Error>>()
        })).await.unwrap();
        assert_eq!(found, amounts);
    }

    async fn a_lease_has_one_owner_and_a_growing_epoch(db: Db) {
        use crate::lease::{self, Epoch};
        let take = |at: i64, owner: &'static str| {
            let db = db.clone();
            async move {
                db.write("lease", move |tx| Box::pin(lease::acquire_lease_if_free_or_own(tx, Instant(at), "watch:1", owner, 1000))).await.unwrap()
            }
        };
        assert_eq!(take(0, "a").await, Some(Epoch(1)));
        assert_eq!(take(10, "b").await, None);
        assert_eq!(take(20, "a").await, Some(Epoch(1)), "an owner that acquires its lease again keeps the epoch");
        assert_eq!(take(1019, "b").await, None, "the lease was prolonged to 1020");
        assert_eq!(take(1020, "b").await, Some(Epoch(2)));
        let (renewed, held, stale, released) = db.write::<_, Error, _>("lease", |tx| Box::pin(async move {
            Ok((
                lease::renew_lease_if_owned(tx, Instant(1500), "watch:1", "b", Epoch(2), 1000).await?,
                lease::lock_lease_if_owned(tx, Instant(2499), "watch:1", "b", Epoch(2)).await?,
                lease::renew_lease_if_owned(tx, Instant(1500), "watch:1", "a", Epoch(1), 1000).await?,
                lease::release_lease_if_owned(tx, Instant(1600), "watch:1", "b", Epoch(2)).await?,
            ))
        })).await.unwrap();
        assert!(renewed && held && !stale && released);
        assert_eq!(take(1600, "b").await, Some(Epoch(3)), "another owner may have had a released lease in between");
        assert_eq!(take(2700, "b").await, Some(Epoch(4)), "another owner may have had an expired lease in between");
    }
}

const ONE: Migration = Migration {
    name: "9001_one",
    sqlite: "create table ones (id bigint primary key); insert into ones values (1);",
    postgres: "create table ones (id bigint primary key); insert into ones values (1);",
};
const TWO: Migration = Migration {
    name: "9002_two",
    sqlite: "alter table ones add column note text; update ones set note = 'new';",
    postgres: "alter table ones add column note text; update ones set note = 'new';",
};
const BROKEN: Migration = Migration {
    name: "9003_broken",
    sqlite: "create table halves (id bigint primary key); insert into nowhere values (1);",
    postgres: "create table halves (id bigint primary key); insert into nowhere values (1);",
};
const CHANGED: Migration = Migration { name: "9001_one", sqlite: "select 1", postgres: "select 1" };

static FIRST: [Migration; 1] = [ONE];
static BOTH: [Migration; 2] = [ONE, TWO];
static BREAKING: [Migration; 3] = [ONE, TWO, BROKEN];
static TAMPERED: [Migration; 2] = [CHANGED, TWO];
static REORDERED: [Migration; 2] = [TWO, ONE];

both! {
    async fn migrations_are_applied_in_order_and_checked(db: Db) {
        run_sql_script(&db, "drop table schema_migrations").await;
        assert_eq!(migrations::list_pending_migrations(&db, &BOTH).await.unwrap(), ["9001_one", "9002_two"]);
        // Two instances start at the same time.
        let (a, b) = tokio::join!(migrations::apply_pending_migrations(&db, &FIRST), migrations::apply_pending_migrations(&db, &FIRST));
        assert_eq!([a.unwrap(), b.unwrap()].concat(), ["9001_one"]);
        assert_eq!(migrations::apply_pending_migrations(&db, &FIRST).await.unwrap(), Vec::<String>::new());
        assert_eq!(migrations::apply_pending_migrations(&db, &BOTH).await.unwrap(), ["9002_two"]);
        let note = db.read::<String, Error, _>("note", |tx| Box::pin(async move {
            row!(tx, "select note from ones")?.unwrap().get("note")
        })).await.unwrap();
        assert_eq!(note, "new");

        let refusal = |result: Result<Vec<String>, Error>| result.unwrap_err().to_string();
        assert!(refusal(migrations::apply_pending_migrations(&db, &TAMPERED).await).contains("was changed after it was applied"));
        assert!(refusal(migrations::list_pending_migrations(&db, &TAMPERED).await).contains("was changed after it was applied"));
        assert!(refusal(migrations::apply_pending_migrations(&db, &FIRST).await).contains("newer version"));
        assert!(refusal(migrations::apply_pending_migrations(&db, &REORDERED).await).contains("`9001_one` in this database"));

        assert!(refusal(migrations::apply_pending_migrations(&db, &BREAKING).await).contains("9003_broken failed"));
        assert_eq!(migrations::list_pending_migrations(&db, &BREAKING).await.unwrap(), ["9003_broken"], "a migration that failed is not recorded");
        run_sql_script(&db, "create table halves (id bigint primary key)").await;
    }

    async fn a_database_of_an_unreleased_version_is_refused_with_the_way_out(db: Db) {
        let by_name = "update schema_migrations set name = '0001_core', checksum = 'a';
            insert into schema_migrations (number, name, checksum) values (2, '0002_money', 'b')";
        let by_checksum = "delete from schema_migrations where number = 2;
            update schema_migrations set name = '0001_initial', checksum = 'c'";
        for recorded in [by_name, by_checksum] {
            run_sql_script(&db, recorded).await;
            for refused in [db.migrate().await, db.pending_migrations().await] {
                let refusal = refused.unwrap_err().to_string();
                assert!(refusal.contains("made by an unreleased version of settled"), "{refusal}");
                let way_out = match db.backend() {
                    Backend::Sqlite => "move the database file and its `-wal` and `-shm` files out of the data folder",
                    Backend::Postgres => "create an empty PostgreSQL database",
                };
                assert!(refusal.contains(way_out) && refusal.contains("run `settled migrate`"), "{refusal}");
            }
        }
    }
}

#[tokio::test]
async fn a_closure_that_awaits_something_other_than_its_database_fails_on_sqlite() {
    let db = open_migrated(Backend::Sqlite).await;
    let inner = db.clone();
    let result = db
        .write::<(), Error, _>("waits", move |tx| {
            Box::pin(async move {
                execute!(tx, "insert into leases (name, owner, epoch, expires_at) values ('x', 'x', 1, 1)")?;
                inner.write::<(), Error, _>("inner", |_| Box::pin(async { Ok(()) })).await
            })
        })
        .await;
    assert_eq!(result, Err(Error::Suspended { name: "waits" }));
    let left = db.read("left", |tx| Box::pin(async move { row!(tx, "select name from leases") })).await.unwrap();
    assert!(left.is_none());
}

#[tokio::test]
async fn an_idle_connection_that_died_is_replaced() {
    let db = open_migrated(Backend::Postgres).await;
    let db = create_items_table(&db).await;
    futures_util::future::join_all((0..8).map(|id| insert_item(&db, id, 1))).await;
    let pid = |db: Db| async move {
        db.read::<i64, Error, _>("pid", |tx| {
            Box::pin(async move { row!(tx, "select pg_backend_pid() as pid")?.unwrap().get("pid") })
        })
        .await
    };
    let before = pid(db.clone()).await.unwrap();
    // Ends every session of this database, including the one that runs this statement.
    let ended = db
        .write("end", |tx| {
            Box::pin(async move {
                rows!(
                    tx,
                    "select pg_terminate_backend(pid) as done from pg_stat_activity where datname = current_database()"
                )
            })
        })
        .await;
    assert!(ended.is_err());
    // `run_body_as_select_with_fallback` runs no statement before its select that could reveal a dead connection.
    let run_body_as_select_with_fallback = db.run_body_as_select_with_fallback::<i64, Error, _>("select_one", |tx| {
        Box::pin(async move { row!(tx, "select count(*) as n from items")?.unwrap().get("n") })
    });
    assert_eq!(run_body_as_select_with_fallback.await, Ok(8));
    assert_ne!(pid(db.clone()).await.unwrap(), before);
    insert_item(&db, 100, 1).await.unwrap();
}

#[tokio::test]
async fn several_instances_may_open_a_database_but_only_one_locks_the_folder() {
    let scratch = TestDatabase::new(Backend::Sqlite).await;
    let config = scratch.config();
    let path = config.url.strip_prefix("sqlite:").unwrap().to_owned();
    let folder = Path::new(&path).parent().unwrap().to_owned();
    let lock = DataFolderLock::lock_data_folder(&folder).unwrap();
    let refused = DataFolderLock::lock_data_folder(&folder).unwrap_err();
    assert!(
        matches!(&refused, DataFolderLockError::Held { holder, .. } if *holder == format!("process {}", std::process::id())),
        "{refused}"
    );

    let db = create_items_table(&Db::open(&config).await.unwrap()).await;
    let second = Db::open(&config).await.unwrap();
    insert_item(&db, 1, 1).await.unwrap();
    insert_item(&second, 2, 2).await.unwrap();
    assert_eq!(list_item_ids(&db).await, list_item_ids(&second).await);
    second.close().await;
    insert_item(&db, 3, 3).await.unwrap();
    db.close().await;
    drop(lock);
    DataFolderLock::lock_data_folder(&folder).unwrap();

    let again = Db::open(&config).await.unwrap();
    assert_eq!(list_item_ids(&again).await, [1, 2, 3]);
    let wal = std::fs::metadata(format!("{path}-wal")).map_or(0, |file| file.len());
    assert_eq!(wal, 0, "closing writes the log back into the database");
}

#[tokio::test]
async fn the_log_of_a_small_database_stays_small() {
    let scratch = TestDatabase::new(Backend::Sqlite).await;
    let config = scratch.config();
    let path = config.url.strip_prefix("sqlite:").unwrap().to_owned();
    let db = create_items_table(&Db::open(&config).await.unwrap()).await;
    db.write("fill", |tx| {
        Box::pin(async move {
            for id in 0..500 {
                execute!(tx, "insert into items (id, note, amount) values ($1, $2, 0)", id, "x".repeat(3_000))?;
            }
            Ok::<_, Error>(())
        })
    })
    .await
    .unwrap();
    let mut log_bytes_max = 0;
    for round in 0..600 {
        db.write("change", move |tx| {
            Box::pin(async move {
                for n in 0..10 {
                    execute!(tx, "update items set amount = amount + 1 where id = $1", (round * 10 + n) * 7 % 500)?;
                }
                Ok::<_, Error>(())
            })
        })
        .await
        .unwrap();
        log_bytes_max = log_bytes_max.max(std::fs::metadata(format!("{path}-wal")).unwrap().len());
    }
    let database_bytes = std::fs::metadata(&path).unwrap().len();
    assert!(database_bytes < 3 << 20 && log_bytes_max < 6 << 20, "{log_bytes_max} for {database_bytes}");
}

#[tokio::test]
async fn a_backup_is_a_complete_private_copy() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = TestDatabase::new(Backend::Sqlite).await;
    let config = scratch.config();
    let path = config.url.strip_prefix("sqlite:").unwrap().to_owned();
    let db = create_items_table(&Db::open(&config).await.unwrap()).await;
    insert_item(&db, 1, 1).await.unwrap();
    let copy = format!("{path}.copy");
    db.backup(Path::new(&copy)).await.unwrap();
    insert_item(&db, 2, 2).await.unwrap();
    assert!(db.backup(Path::new(&copy)).await.unwrap_err().to_string().contains("never overwrites"));
    for file in [&path, &copy, &format!("{path}-wal")] {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let restored = Db::open(&Config { url: format!("sqlite:{copy}"), ..config }).await.unwrap();
    assert_eq!(list_item_ids(&restored).await, [1]);
    assert_eq!(
        std::fs::read_dir(Path::new(&path).parent().unwrap())
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part") })
            .count(),
        0
    );
}

#[tokio::test]
async fn unusable_urls_are_refused_without_showing_them() {
    for url in ["mysql://u:secret@h/d", "postgres://u:secret@h:x/d", "secret", ""] {
        let config = Config::new(url);
        let error = Db::open(&config).await.map(drop).unwrap_err();
        assert!(!format!("{error} {error:?} {config:?}").contains("secret"), "{url}: {error}");
    }
}

/// When the disk is full, SQLite rolls back the whole transaction, including the commands of the group that ran before.
#[tokio::test]
async fn a_transaction_that_succeeds_is_stored_even_when_the_disk_is_full() {
    let db = create_items_table(&open_migrated(Backend::Sqlite).await).await;
    let pages = |sql: &'static str| db.write("limit", move |tx| Box::pin(async move { rows!(tx, sql) }));
    pages("pragma max_page_count = 1").await.unwrap();
    let writes = (0..100).map(|id| {
        let db = db.clone();
        async move {
            if id % 10 != 5 {
                return insert_item(&db, id, 1).await;
            }
            db.write("large", move |tx| {
                Box::pin(async move {
                    let sql = "insert into items (id, note, amount) values ($1, hex(zeroblob(1000000)), 1)";
                    execute!(tx, sql, id).map(drop)
                })
            })
            .await
        }
    });
    let results = futures_util::future::join_all(writes).await;
    let succeeded: Vec<i64> = (0..).zip(&results).filter(|(_, result)| result.is_ok()).map(|(id, _)| id).collect();
    assert!(succeeded.iter().all(|id| id % 10 != 5));
    assert_eq!(list_item_ids(&db).await, succeeded);
    let refusal = results.iter().find_map(|result| result.as_ref().err());
    assert!(matches!(refusal, Some(Error::Unavailable(_))), "{refusal:?}");
    pages("pragma max_page_count = 1000000").await.unwrap();
    insert_item(&db, 200, 1).await.unwrap();
}

#[test]
fn a_sqlite_that_loses_commits_is_refused() {
    assert!(super::sqlite::connections::refuse_unsafe_version(3_051_002).is_err());
    assert!(super::sqlite::connections::refuse_unsafe_version(rusqlite::version_number()).is_ok());
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colour {
    Red,
    Green,
}
text_enum!(Colour { Red => "red", Green => "green" });

#[test]
fn an_enum_is_stored_as_its_text() {
    for colour in [Colour::Red, Colour::Green] {
        assert_eq!(Colour::from_value(&Bind::from(colour)), Some(colour));
    }
    assert_eq!(Colour::from_value(&Bind::from("blue")), None);
    assert_eq!(Option::<Colour>::from_value(&Bind::from(None::<Colour>)), Some(None));
}

proptest! {
    #[test]
    fn stored_amounts_sort_by_their_size(a: [u8; 32], b: [u8; 32], common in 0_usize..32) {
        let mut b = b;
        b[..common].copy_from_slice(&a[..common]);
        let (a, b) = (Amount::from_be_bytes(a), Amount::from_be_bytes(b));
        let (Bind::Blob(x), Bind::Blob(y)) = (Bind::from(a), Bind::from(b)) else { panic!("amounts are bytes") };
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        prop_assert_eq!(Amount::from_value(&Bind::Blob(x)), Some(a));
    }

    #[test]
    fn integers_are_converted_or_rejected(n: u64) {
        let expected = i64::try_from(n).ok();
        prop_assert_eq!(i64::from_value(&Bind::from(n)), expected);
        prop_assert_eq!(u64::from_value(&Bind::from(n)), expected.map(|_| n));
        prop_assert_eq!(u32::from_value(&Bind::from(n)), u32::try_from(n).ok());
    }
}

both! {
    async fn a_statement_runs_for_each_given_row(db: Db) {
        let db = create_items_table(&db).await;
        let found = db.write("given", |tx| Box::pin(async move {
            let inserted = rows_for_each!(
                tx,
                vec![batch_row![1, "a", None::<i64>], batch_row![2, "b", 20], batch_row![3, "a", None::<i64>], batch_row![2, "c", 1]],
                "with given (id bigint, note text, amount bigint)
                 insert into items (id, note, amount) select given.id, given.note, coalesce(given.amount, $1)
                 from given where true on conflict (id) do nothing returning id",
                7
            )?;
            assert_eq!(inserted.len(), 3, "an existing row is left out");
            let changed = tx.execute_for_each(
                "with given (id bigint, more bigint) update items set amount = amount + given.more
                 from given where items.id = given.id",
                vec![batch_row![1, 100], batch_row![3, 300], batch_row![9, 900]],
                Vec::new(),
            ).await?;
            assert_eq!(changed, 2);
            assert_eq!(tx.execute_for_each("with given (id bigint) delete from items", Vec::new(), Vec::new()).await?, 0);
            let found = rows_for_each!(
                tx,
                vec![batch_row!["a"], batch_row!["x"]],
                "with given (note text) select items.id, items.amount from given, items where items.note = given.note"
            )?;
            found.iter().map(|row| Ok((row.get("id")?, row.get("amount")?))).collect::<Result<Vec<(i64, i64)>, Error>>()
        }));
        let mut found = found.await.unwrap();
        found.sort_unstable();
        assert_eq!(found, [(1, 107), (3, 307)]);
    }

    async fn deferred_statements_run_before_the_next_statement_and_at_the_end(db: Db) {
        let db = create_items_table(&db).await;
        insert_item(&db, 1, 1).await.unwrap();
        let before = db.counters();
        db.write("deferred", |tx| Box::pin(async move {
            deferred!(tx, "update items set amount = $2 where id = $1", 1, 10)?;
            deferred_for_each!(
                tx,
                vec![batch_row![2, "x"], batch_row![3, "y"]],
                "with given (id bigint, note text)
                 insert into items (id, note, amount) select given.id, given.note, $1 from given",
                5
            )?;
            tx.defer_or_execute_statement("delete from items where id > $1", Vec::new(), batch_row![100], None).await?;
            let rows = rows!(tx, "select id from items where amount in (5, 10) order by id")?;
            assert_eq!(rows.len(), 3);
            deferred!(tx, "delete from items where id = $1", 2)
        })).await.unwrap();
        assert_eq!(list_item_ids(&db).await, [1, 3]);
        if db.backend() == Backend::Postgres {
            assert_eq!(db.counters().sql_statements - before.sql_statements, 4, "three deferred ones together, a select, one deferred, a select");
        }
    }

    async fn a_deferred_statement_with_an_unexpected_row_count_ends_the_transaction(db: Db) {
        let db = create_items_table(&db).await;
        insert_item(&db, 1, 1).await.unwrap();
        let refused = db.write("deferred", |tx| Box::pin(async move {
            execute!(tx, "update items set amount = 2")?;
            deferred!(tx, "update items set amount = 3 where id = $1", 77)
        })).await;
        assert_eq!(refused, Err(Error::UnexpectedRowCount { expected: 1, found: 0 }));
        let refused = db.write("deferred", |tx| Box::pin(async move {
            let _ignored = deferred!(tx, "insert into items (id, note, amount) values ($1, 'twice', 1)", 1);
            let _ignored = tx.run_deferred().await;
            Ok::<_, Error>(())
        })).await;
        assert!(refused.unwrap_err().is_unique());
        let amount = db.read("amount", |tx| Box::pin(async move {
            row!(tx, "select amount from items where id = 1")?.map(|row| row.get::<i64>("amount")).transpose()
        }));
        assert_eq!(amount.await.unwrap(), Some(1));
    }

    async fn the_cache_is_shared_by_all_transactions(db: Db) {
        type Seen = Mutex<Vec<i64>>;
        for id in 1..=2 {
            db.write("insert_into_cache", move |tx| Box::pin(async move {
                let seen = tx.shared_cache::<Seen>();
                assert_eq!(seen.lock().unwrap().len(), usize::try_from(id).unwrap() - 1);
                tx.after_commit(move || seen.lock().unwrap().push(id));
                Ok::<_, Error>(())
            })).await.unwrap();
        }
        let seen = db.read("read_cache", |tx| Box::pin(async move { Ok::<_, Error>(tx.shared_cache::<Seen>()) })).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [1, 2]);
    }
}
