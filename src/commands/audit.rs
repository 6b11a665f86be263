//! The command `settled audit`. With `--database` the command also runs the integrity checks of SQLite or PostgreSQL.
//! The command only reads the database, so it can run at the same time as the daemon.

use crate::commands::command_error::CommandError;
use crate::commands::database::{open_existing_database, require_no_pending_migrations};
use crate::commands::installation::Installation;
use crate::commands::output::print_line_or_exit;
use db::{Db, IntegrityReport};
use money::audit;
use shop::stock;

/// Selects the installation whose ledger and stock counts are audited.
#[derive(clap::Args)]
pub struct Args {
    /// Also run the integrity checks of the database itself, which find damaged pages and indices. They read the whole
    /// database, so they take a while.
    #[arg(long)]
    database: bool,
    #[command(flatten)]
    installation: Installation,
}

/// Audits the ledger and the stock counts and prints the report. Fails with exit code 1 when the audit finds a
/// difference, or when the integrity checks of `--database` find damage.
pub async fn audit_and_print_report(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load_config()?;
    let db = open_existing_database(&config).await?;
    require_no_pending_migrations(&config, &db).await?;
    let is_database_sound = !args.database || check_and_print_integrity(&db).await?;
    let (ledger, stock) = db
        .read_without_time_limit("audit_ledger", |tx| {
            Box::pin(async move {
                Ok::<_, db::Error>((audit::audit_ledger(tx).await?, stock::list_stock_count_mismatches(tx).await?))
            })
        })
        .await?;
    db.close().await;
    print_line_or_exit(format_args!("ledger: {ledger}"));
    for mismatch in &stock {
        let stock::CountMismatch { sku, available, in_stock } = mismatch;
        print_line_or_exit(format_args!(
            "  WRONG: SKU {sku} counts {available} items as available, but {in_stock} are in stock"
        ));
    }
    if stock.is_empty() {
        print_line_or_exit("stock: the counts agree with the items");
    }
    let is_in_order = ledger.has_no_findings() && stock.is_empty() && is_database_sound;
    if is_in_order { Ok(()) } else { Err(CommandError::findings_error()) }
}

/// Runs the integrity checks of the database and prints their result. Returns true when they found no damage.
async fn check_and_print_integrity(db: &Db) -> Result<bool, CommandError> {
    let IntegrityReport { checked, unchecked, findings } = db.check_integrity().await?;
    for finding in &findings {
        print_line_or_exit(format_args!("  WRONG: database: {finding}"));
    }
    for limit in &unchecked {
        print_line_or_exit(format_args!("  NOT CHECKED: database: {limit}"));
    }
    match findings.is_empty() {
        true => print_line_or_exit(format_args!("database: no damage was found by {}", checked.join(" and by "))),
        false => print_line_or_exit(format_args!(
            "database: DAMAGED ({} findings). Stop the daemon, keep a copy of the damaged files, and restore a backup; \
             check the disk and the memory of the machine",
            findings.len()
        )),
    }
    Ok(findings.is_empty())
}
