//! Migrations of the schema. There is no way back to an earlier schema. The checksums of the migration files are
//! compared with those in the database, so a released file must never change; a mistake in it is corrected by a later
//! file.

use sha2::{Digest, Sha256};

use crate::{Backend, Db, Error, Tx, execute, row, rows};

/// One step of the schema, with an SQL script for each database.
pub(super) struct Migration {
    /// Name of the file without `.sql`, which the database records when the migration is applied.
    pub name: &'static str,
    /// The SQL script for SQLite.
    pub sqlite: &'static str,
    /// The SQL script for PostgreSQL.
    pub postgres: &'static str,
}

macro_rules! migrations {
    ($($name:literal)*) => {
        &[$(Migration {
            name: $name,
            sqlite: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/postgres/", $name, ".sql")),
        }),*]
    };
}

/// All migrations, in the order in which they are applied.
pub(super) const ALL: &[Migration] = migrations! {
    "0001_initial"
};

/// The names of the first migration in versions before release 0.1.0, which may still change. A database is refused
/// when its first migration has one of these names but another text than in this version. Remove `0001_initial` from
/// this list when 0.1.0 is released.
const UNRELEASED: &[&str] = &["0001_core", "0001_initial"];

impl Migration {
    fn sql_for_backend(&self, backend: Backend) -> &'static str {
        match backend {
            Backend::Sqlite => self.sqlite,
            Backend::Postgres => self.postgres,
        }
    }

    /// Returns the SHA-256 of the SQL script for this database, in hexadecimal digits.
    fn checksum(&self, backend: Backend) -> String {
        const_hex::encode(Sha256::digest(self.sql_for_backend(backend)))
    }
}

/// Applies the pending migrations and returns their names. Several instances may start at once: each migration takes a
/// lock and reads again which migrations are applied.
pub(super) async fn apply_pending_migrations(db: &Db, all: &'static [Migration]) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    while let Some(name) =
        db.write_without_time_limit("apply_next_migration", move |tx| Box::pin(apply_next_migration(tx, all))).await?
    {
        tracing::info!(migration = name, "migration {name} was applied");
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Returns the names of the migrations that were not applied to the database yet.
pub(super) async fn list_pending_migrations(db: &Db, all: &'static [Migration]) -> Result<Vec<String>, Error> {
    db.read("list_pending_migrations", move |tx| {
        Box::pin(async move {
            let applied = if has_migrations_table(tx).await? { list_applied_migrations(tx).await? } else { Vec::new() };
            let pending = verify_applied_and_list_pending(tx.backend(), &applied, all)?;
            Ok(pending.iter().map(|migration| migration.name.to_owned()).collect())
        })
    })
    .await
}

/// Applies the first migration that was not applied yet and returns its name; `None` when all are applied.
async fn apply_next_migration(tx: &mut Tx, all: &'static [Migration]) -> Result<Option<&'static str>, Error> {
    lock_schema_and_lift_time_limits(tx).await?;
    if !has_migrations_table(tx).await? {
        tx.run_script(
            "create table schema_migrations (number bigint primary key, name text not null, checksum text not null)",
        )
        .await?;
    }
    let applied = list_applied_migrations(tx).await?;
    let Some(next) = verify_applied_and_list_pending(tx.backend(), &applied, all)?.first() else { return Ok(None) };
    let failed = |error: Error| Error::Migration(format!("{} failed: {error}", next.name));
    tx.run_script(next.sql_for_backend(tx.backend())).await.map_err(failed)?;
    let number = i64::try_from(applied.len() + 1).map_err(|_| Error::Migration("number is out of range".into()))?;
    let checksum = next.checksum(tx.backend());
    execute!(
        tx,
        "insert into schema_migrations (number, name, checksum) values ($1, $2, $3)",
        number,
        next.name,
        checksum
    )?;
    Ok(Some(next.name))
}

/// Prevents other instances of the program from applying migrations until the end of the transaction. On SQLite nothing
/// is needed, because there is a single writer. On PostgreSQL the time limits of statements are lifted, because a
/// migration may rewrite a table.
async fn lock_schema_and_lift_time_limits(tx: &mut Tx) -> Result<(), Error> {
    match tx.backend() {
        Backend::Sqlite => Ok(()),
        Backend::Postgres => {
            tx.run_script(
                "set local statement_timeout = 0; set local lock_timeout = '60s'; select pg_advisory_xact_lock(7361)",
            )
            .await
        }
    }
}

async fn has_migrations_table(tx: &mut Tx) -> Result<bool, Error> {
    let sql = tx.sql_for_backend(
        "select exists (select 1 from sqlite_master where type = 'table' and name = 'schema_migrations') as found",
        "select to_regclass('schema_migrations') is not null as found",
    );
    row!(tx, sql)?.map_or(Ok(false), |row| row.get("found"))
}

/// A migration that was applied, as the database recorded it.
struct AppliedMigration {
    name: String,
    /// SHA-256 of the SQL script, in hexadecimal digits.
    checksum: String,
}

async fn list_applied_migrations(tx: &mut Tx) -> Result<Vec<AppliedMigration>, Error> {
    let found = rows!(tx, "select name, checksum from schema_migrations order by number")?;
    found.iter().map(|row| Ok(AppliedMigration { name: row.get("name")?, checksum: row.get("checksum")? })).collect()
}

/// Compares the applied migrations with the known ones (`all`), and returns the known migrations that were not applied
/// yet, in order.
///
/// # Errors
/// When the applied migrations are not the first ones of `all`, in the same order and with the same texts.
fn verify_applied_and_list_pending(
    backend: Backend,
    applied: &[AppliedMigration],
    all: &'static [Migration],
) -> Result<&'static [Migration], Error> {
    if let (Some(first), Some(known)) = (applied.first(), all.first())
        && UNRELEASED.contains(&first.name.as_str())
        && (first.name != known.name || first.checksum != known.checksum(backend))
    {
        return Err(Error::Unsupported(unreleased_version_message(backend).into()));
    }
    for (index, recorded) in applied.iter().enumerate() {
        let Some(known) = all.get(index) else {
            return Err(Error::Migration(format!(
                "{} was applied by a newer version of this program; run that version or restore a backup",
                recorded.name
            )));
        };
        if known.name != recorded.name {
            let number = index + 1;
            return Err(Error::Migration(format!(
                "{number} is `{}` in this database, but `{}` in this version of the program",
                recorded.name, known.name
            )));
        }
        if known.checksum(backend) != recorded.checksum {
            return Err(Error::Migration(format!(
                "{} was changed after it was applied to this database; restore the released file and correct it in a new migration",
                recorded.name
            )));
        }
    }
    Ok(all.get(applied.len()..).unwrap_or_default())
}

/// Returns the message for the operator about a database of an unreleased version.
fn unreleased_version_message(backend: Backend) -> &'static str {
    match backend {
        Backend::Sqlite => {
            "this database was made by an unreleased version of settled, which no later version can upgrade; create a new \
             one: stop the daemon, move the database file and its `-wal` and `-shm` files out of the data folder, and run \
             `settled migrate`"
        }
        Backend::Postgres => {
            "this database was made by an unreleased version of settled, which no later version can upgrade; create a new \
             one: stop the daemon, create an empty PostgreSQL database, set `url` under `[database]` to it, and run \
             `settled migrate`"
        }
    }
}
