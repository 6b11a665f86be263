//! The integrity checks of the database software itself: damaged pages, indices that disagree with their tables, rows
//! that violate a constraint. The checks read the whole database and change nothing. They do not compare amounts or
//! states; the audit of the ledger does.

use crate::{Backend, Db, Engine, Error, Tx};

/// The result of [`Db::check_integrity`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntegrityReport {
    /// The checks that were made, each as a part of a sentence.
    pub checked: Vec<String>,
    /// The checks that could not be made; each sentence says why and how that can be changed.
    pub unchecked: Vec<String>,
    /// The damages, one sentence each. A database with many damages may list only some of them.
    pub findings: Vec<String>,
}

/// SQL that reads every row of every table of the schema. A `do` block returns nothing, so the errors of tables that
/// cannot be read are collected in the transaction's setting `settled.findings`.
const READ_ALL_TABLES: &str = "do $check$
    declare found record; ignored bigint;
    begin
        for found in select c.oid::regclass as name from pg_class c
            where c.relkind in ('r', 'p', 'm') and c.relnamespace = current_schema()::regnamespace order by 1
        loop
            begin
                execute format('select max(length(t::text)) from %s t', found.name) into ignored;
            exception when others then
                perform set_config('settled.findings', concat(current_setting('settled.findings', true),
                    'table ', found.name, ': ', sqlerrm, chr(10)), true);
            end;
        end loop;
    end $check$";

/// SQL that runs the checks of the extension amcheck on every table and every B-tree index of the schema. Damages are
/// collected in the setting `settled.findings`; a missing privilege in `settled.unchecked`.
const RUN_AMCHECK: &str = "do $check$
    declare found record; message text;
    begin
        for found in select c.oid, c.oid::regclass as name, c.relkind from pg_class c
            left join pg_index i on i.indexrelid = c.oid left join pg_am a on a.oid = c.relam
            where c.relnamespace = current_schema()::regnamespace
              and (c.relkind = 'r' or (c.relkind = 'i' and a.amname = 'btree' and i.indisvalid and i.indisready))
            order by 2
        loop
            begin
                if found.relkind = 'i' then
                    perform bt_index_check(found.oid, true);
                else
                    for message in select msg from verify_heapam(relation => found.oid, check_toast => true) limit 10
                    loop
                        perform set_config('settled.findings', concat(current_setting('settled.findings', true),
                            'table ', found.name, ': ', message, chr(10)), true);
                    end loop;
                end if;
            exception
                when insufficient_privilege then
                    perform set_config('settled.unchecked', sqlerrm, true);
                when others then
                    perform set_config('settled.findings', concat(current_setting('settled.findings', true),
                        case when found.relkind = 'i' then 'index ' else 'table ' end, found.name, ': ', sqlerrm,
                        chr(10)), true);
            end;
        end loop;
    end $check$";

impl Db {
    /// Runs the integrity checks of the database software on all tables and indices. On SQLite these are
    /// `integrity_check` and `foreign_key_check`; on PostgreSQL every row is read, which verifies the checksums of
    /// pages, and the extension amcheck is used where it is installed. The time grows with the size of the database.
    ///
    /// # Errors
    /// Any [`Error`] that prevents the checks. Damages are not errors; the report lists them.
    pub async fn check_integrity(&self) -> Result<IntegrityReport, Error> {
        match self.backend() {
            Backend::Sqlite => {
                let inner = self.0.clone();
                let check = tokio::task::spawn_blocking(move || match &inner.engine {
                    Engine::Sqlite(engine) => engine.check_integrity(),
                    Engine::Postgres(_) => unreachable!("the database is SQLite"),
                });
                let findings = check.await.map_err(|e| Error::Unavailable(format!("the check ended early: {e}")))??;
                let checked = vec!["SQLite's integrity_check and foreign_key_check".to_owned()];
                Ok(IntegrityReport { checked, unchecked: Vec::new(), findings })
            }
            Backend::Postgres => {
                self.read_without_time_limit("check_integrity", |tx| {
                    Box::pin(async move { check_postgres_integrity(tx).await })
                })
                .await
            }
        }
    }
}

async fn check_postgres_integrity(tx: &mut Tx) -> Result<IntegrityReport, Error> {
    let mut report = IntegrityReport::default();
    tx.execute("set local statement_timeout = 0", Vec::new()).await?;
    tx.execute(READ_ALL_TABLES, Vec::new()).await?;
    report.checked.push("reading every row of every table".to_owned());
    let installed = tx.row("select 1 as one from pg_extension where extname = 'amcheck'", Vec::new()).await?;
    if installed.is_some() {
        tx.execute(RUN_AMCHECK, Vec::new()).await?;
    }
    let sql = "select coalesce(current_setting('settled.findings', true), '') as findings,
        coalesce(current_setting('settled.unchecked', true), '') as unchecked,
        current_setting('data_checksums') as checksums,
        coalesce((select checksum_failures from pg_stat_database where datname = current_database()), 0) as failures";
    let row = tx.row(sql, Vec::new()).await?;
    let row = row.ok_or_else(|| Error::Statement("the server returned no settings".into()))?;
    report.findings.extend(row.get::<String>("findings")?.lines().map(str::to_owned));
    match (installed.is_some(), row.get::<String>("unchecked")?) {
        (true, denied) if denied.is_empty() => {
            report.checked.push("amcheck on every table and index".to_owned());
        }
        (true, denied) => report.unchecked.push(format!(
            "amcheck may not be used ({denied}); grant its functions to the user of the daemon, or run pg_amcheck"
        )),
        (false, _) => report.unchecked.push(
            "indices were not compared with their tables; run `create extension amcheck` in this database, or pg_amcheck"
                .to_owned(),
        ),
    }
    if row.get::<String>("checksums")? != "on" {
        report.unchecked.push("the cluster has no checksums of pages; `pg_checksums --enable` adds them".to_owned());
    }
    let failures: i64 = row.get("failures")?;
    if failures > 0 {
        report.findings.push(format!("PostgreSQL has counted {failures} pages with a wrong checksum"));
    }
    Ok(report)
}
