//! The command `settled restore`: repairs a database that was restored from a backup, before the daemon starts.

use crate::commands::command_error::CommandError;
use crate::commands::database::{self, MigratedDatabase};
use crate::commands::installation::Installation;
use crate::commands::output::print_line_or_exit;
use crate::commands::private_files::create_private_folder_if_missing;
use crate::daemon::address_mark;
use clock::Clock;
use db::file_lock::DataFolderLock;
use records::audit_log::Actor;

/// Run this command once after the database was replaced by a backup. It skips the addresses that may have been given to
/// buyers after the backup, so that none is given out twice. Payments to the skipped addresses are still seen: they are
/// booked apart, and each opens a review.
#[derive(clap::Args)]
pub struct Args {
    /// Number of addresses to skip above the last one in the backup, for each account key; 1,000 by default. It is required
    /// when the address mark is lost too: choose it well above the number of on-chain orders since the backup.
    #[arg(long, value_name = "N")]
    skip: Option<u32>,
    #[command(flatten)]
    installation: Installation,
}

/// Skips the addresses that were issued after the backup, and prints what was done.
pub async fn skip_addresses_and_print(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load_config()?;
    create_private_folder_if_missing(&config.data.folder)?;
    let _lock = DataFolderLock::lock_data_folder(&config.data.folder)?;
    let MigratedDatabase { db, instance_lock, .. } = database::lock_migrate_and_load_or_create_keys(&config).await?;
    let actor = Actor::CommandLine { uid: rustix::process::getuid().as_raw() };
    let restored =
        address_mark::skip_used_addresses_and_write_mark(&config, &db, Clock::System.now(), &actor, args.skip).await;
    db.close().await;
    instance_lock.release().await;
    let restored = restored?;
    for account in &restored.accounts {
        print_line_or_exit(format_args!(
            "{}: address indices {} to {} are skipped and stay watched; the next address has index {}.",
            account.account,
            account.first,
            account.next.saturating_sub(1),
            account.next
        ));
    }
    if restored.accounts.is_empty() {
        print_line_or_exit("No account key is configured or stored, so there are no addresses to skip.");
    }
    print_line_or_exit(format_args!(
        "The database is at epoch {} now, and the address mark is {}. Orders and payments since the backup are not in the \
         database: money for them opens reviews (`settled admin review list`), and goods that were delivered since are in \
         stock again. Withdraw those before you start the daemon, or they are sold twice.",
        restored.epoch,
        config.mark_path().display()
    ));
    Ok(())
}
