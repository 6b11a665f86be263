//! The command `settled audit`. It only reads the database, so it can run at the same time as the daemon.

use crate::commands::command_error::CommandError;
use crate::commands::database::{open_existing_database, require_no_pending_migrations};
use crate::commands::installation::Installation;
use crate::commands::output::print_line_or_exit;
use money::audit;
use shop::stock;

/// Selects the installation whose ledger and stock counts are audited.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    installation: Installation,
}

/// Audits the ledger and the stock counts and prints the report. Fails with exit code 1 when a stored balance or count
/// is different from the recomputed one.
pub async fn audit_and_print_report(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load_config()?;
    let db = open_existing_database(&config).await?;
    require_no_pending_migrations(&config, &db).await?;
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
    if ledger.has_no_findings() && stock.is_empty() { Ok(()) } else { Err(CommandError::findings_error()) }
}
