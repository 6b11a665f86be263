//! Migrations: append-only, forward-only, checked. A released file never changes; a correction is the next file.

use sha2::{Digest, Sha256};

use crate::{Backend, Db, Error, Tx, execute, row, rows};

pub(super) struct Migration {
    pub name: &'static str,
    pub sqlite: &'static str,
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

/// In the order in which they are applied.
pub(super) const ALL: &[Migration] = migrations! {
    "0001_initial"
};

/// First migrations of versions before release 0.1.0. Until that release the schema may be squashed again, so a database
/// that recorded one of these, with another text than this version has, cannot be upgraded. The release removes
/// `0001_initial` from this list.
const UNRELEASED: &[&str] = &["0001_core", "0001_initial"];

impl Migration {
    fn text(&self, backend: Backend) -> &'static str {
        match backend {
            Backend::Sqlite => self.sqlite,
            Backend::Postgres => self.postgres,
        }
    }

    fn checksum(&self, backend: Backend) -> String {
        const_hex::encode(Sha256::digest(self.text(backend)))
    }
}

/// Applies what is pending and returns the names. Several instances may start at once: each step looks again at what is
/// applied, alone.
pub(super) async fn apply(db: &Db, all: &'static [Migration]) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    while let Some(name) = db.write_at_length("migrate", move |tx| Box::pin(apply_next(tx, all))).await? {
        tracing::info!(migration = name, "migration {name} was applied");
        names.push(name.to_owned());
    }
    Ok(names)
}

pub(super) async fn pending(db: &Db, all: &'static [Migration]) -> Result<Vec<String>, Error> {
    db.read("pending_migrations", move |tx| {
        Box::pin(async move {
            let applied = if has_table(tx).await? { list_applied(tx).await? } else { Vec::new() };
            let pending = check(tx.backend(), &applied, all)?;
            Ok(pending.iter().map(|migration| migration.name.to_owned()).collect())
        })
    })
    .await
}

async fn apply_next(tx: &mut Tx, all: &'static [Migration]) -> Result<Option<&'static str>, Error> {
    lock(tx).await?;
    if !has_table(tx).await? {
        tx.batch(
            "create table schema_migrations (number bigint primary key, name text not null, checksum text not null)",
        )
        .await?;
    }
    let applied = list_applied(tx).await?;
    let Some(next) = check(tx.backend(), &applied, all)?.first() else { return Ok(None) };
    let failed = |error: Error| Error::Migration(format!("{} failed: {error}", next.name));
    tx.batch(next.text(tx.backend())).await.map_err(failed)?;
    let number = i64::try_from(applied.len() + 1).map_err(|_| Error::Migration("there are too many".into()))?;
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

/// SQLite's writer is alone already. On PostgreSQL the others wait, and no limit cuts a long change short.
async fn lock(tx: &mut Tx) -> Result<(), Error> {
    match tx.backend() {
        Backend::Sqlite => Ok(()),
        Backend::Postgres => {
            tx.batch(
                "set local statement_timeout = 0; set local lock_timeout = '60s'; select pg_advisory_xact_lock(7361)",
            )
            .await
        }
    }
}

async fn has_table(tx: &mut Tx) -> Result<bool, Error> {
    let sql = tx.pick(
        "select exists (select 1 from sqlite_master where type = 'table' and name = 'schema_migrations') as found",
        "select to_regclass('schema_migrations') is not null as found",
    );
    row!(tx, sql)?.map_or(Ok(false), |row| row.get("found"))
}

struct Applied {
    name: String,
    checksum: String,
}

async fn list_applied(tx: &mut Tx) -> Result<Vec<Applied>, Error> {
    let found = rows!(tx, "select name, checksum from schema_migrations order by number")?;
    found.iter().map(|row| Ok(Applied { name: row.get("name")?, checksum: row.get("checksum")? })).collect()
}

/// The pending ones, when what was applied is exactly the beginning of what this program knows.
fn check(backend: Backend, applied: &[Applied], all: &'static [Migration]) -> Result<&'static [Migration], Error> {
    if let (Some(first), Some(known)) = (applied.first(), all.first())
        && UNRELEASED.contains(&first.name.as_str())
        && (first.name != known.name || first.checksum != known.checksum(backend))
    {
        return Err(Error::Unsupported(unreleased(backend).into()));
    }
    for (place, done) in applied.iter().enumerate() {
        let Some(known) = all.get(place) else {
            return Err(Error::Migration(format!(
                "{} was applied by a newer version of this program; run that version, or restore a backup",
                done.name
            )));
        };
        if known.name != done.name {
            let number = place + 1;
            return Err(Error::Migration(format!(
                "{number} is `{}` in this database, but `{}` here",
                done.name, known.name
            )));
        }
        if known.checksum(backend) != done.checksum {
            return Err(Error::Migration(format!(
                "{} was changed after it was applied to this database; take the released file, corrections go into a new one",
                done.name
            )));
        }
    }
    Ok(all.get(applied.len()..).unwrap_or_default())
}

/// What the operator reads and does when the database is one of [`UNRELEASED`].
fn unreleased(backend: Backend) -> &'static str {
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
