//! The high-water mark of the address indices at a start and after a restore: a database that is older than the mark file
//! is not served, because it would issue addresses again.

use anyhow::bail;

use crate::daemon::{addresses, assets};
use crate::workers::rates;
use clock::Instant;
use config::Config;
use db::Db;
use money::addresses::{
    self as money_addresses, AddressMark, MarkFile, MarkFileError, RestoreError, RestoredAddresses,
};
use records::audit_log::Actor;

/// The tables whose row numbers are shown outside the database: in events, in the subjects of reviews and in the names of
/// journal entries. Each with its column.
const NUMBERED_TABLES: [(&str, &str); 8] = [
    ("events", "seq"),
    ("reviews", "id"),
    ("orders", "id"),
    ("payments", "id"),
    ("invoices", "id"),
    ("deposits", "id"),
    ("unclaimed_transfers", "id"),
    ("users", "id"),
];

/// The comparison of a database with the mark file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkCheck {
    /// The database is at the mark or above.
    Ok,
    /// There is no file and no index was ever leased: a new installation.
    New,
    /// There is no file, although indices were leased.
    Missing,
    /// The database is older than the file. The text says where.
    Behind(String),
}

/// Compares the database with the mark file.
///
/// # Errors
/// [`MarkFileError`] when the file cannot be read, or the database fails.
pub async fn compare_database_with_mark(mark: &MarkFile, db: &Db) -> Result<MarkCheck, MarkFileError> {
    let stored: Result<AddressMark, db::Error> = db
        .read("load_database_mark", |tx| Box::pin(async move { money_addresses::load_database_mark(tx).await }))
        .await;
    let stored = stored?;
    Ok(match mark.read_if_present()? {
        None if stored.is_empty() => MarkCheck::New,
        None => MarkCheck::Missing,
        Some(file) => stored.describe_lag_behind(&file).map_or(MarkCheck::Ok, MarkCheck::Behind),
    })
}

/// Returns the problem and its remedy in words; `None` when the database may be served.
pub fn describe_mark_problem(mark: &MarkFile, check: &MarkCheck) -> Option<String> {
    let path = mark.path().display();
    match check {
        MarkCheck::Ok | MarkCheck::New => None,
        MarkCheck::Missing => Some(format!(
            "the address mark {path} does not exist, but the database has leased addresses. If this is a further instance of \
             the daemon, or the file was lost and the database was not restored from a backup, start once with \
             `settled serve --join`. If the database was restored from a backup, run `settled restore --skip N`"
        )),
        MarkCheck::Behind(lag) => Some(format!(
            "the database is older than the address mark {path}: {lag}. It was restored from a backup or is another database, \
             and would give the addresses of earlier orders to new ones. Run `settled restore`, which skips them, or configure \
             the right database"
        )),
    }
}

/// Fails when the database is older than the mark file, and when the file is missing although indices were leased, unless
/// this instance joins with `join`.
///
/// # Errors
/// The problem in words, or the error of the file or the database.
pub async fn refuse_database_behind_mark(mark: &MarkFile, db: &Db, join: bool) -> anyhow::Result<()> {
    let check = compare_database_with_mark(mark, db).await?;
    if join && check == MarkCheck::Missing {
        return Ok(());
    }
    match describe_mark_problem(mark, &check) {
        Some(problem) => bail!(problem),
        None => Ok(()),
    }
}

/// Repairs a database that was restored from a backup: skips the address indices and row numbers that were used after the
/// backup, and writes the mark file. `skip` is the number of indices above the highest issued one; without it, 1,000. No
/// daemon may serve the database.
///
/// # Errors
/// [`RestoreError::SkipRequired`] when the mark file is missing and `skip` is `None`.
pub async fn skip_used_addresses_and_write_mark(
    config: &Config,
    db: &Db,
    now: Instant,
    actor: &Actor,
    skip: Option<u32>,
) -> anyhow::Result<RestoredAddresses> {
    let mark = MarkFile::new(config.mark_path());
    let file = mark.read_if_present()?;
    let assets = assets::build_assets_and_followed_chains(config, &rates::build_fixed_rate_book(&config.rates))?;
    // Stores the account keys of the configuration, which an empty database does not have.
    addresses::load_addresses_and_record_kinds(config, &assets, db, now).await?;
    let actor = actor.clone();
    let restored: Result<RestoredAddresses, RestoreError> = db
        .write("skip_indices_after_restore", move |tx| {
            Box::pin(async move {
                let restored =
                    money_addresses::skip_indices_after_restore(tx, now, &actor, file.as_ref(), skip).await?;
                let skipped = restored.accounts.iter().map(|account| account.next.saturating_sub(account.first)).max();
                let numbers = skipped.unwrap_or(0).max(money_addresses::DEFAULT_SKIP);
                for (table, column) in NUMBERED_TABLES {
                    tx.skip_row_numbers(table, column, numbers).await?;
                }
                Ok(restored)
            })
        })
        .await;
    let restored = restored?;
    mark.copy_database_mark(db).await?;
    Ok(restored)
}
