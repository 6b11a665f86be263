//! The command `settled migrate`: applies the migrations that were not applied yet.

use crate::commands::command_error::CommandError;
use crate::commands::database;
use crate::commands::installation::Installation;
use crate::commands::output::print_line_or_exit;
use crate::commands::private_files::create_private_folder_if_missing;
use db::file_lock::DataFolderLock;

/// Selects the installation whose database is migrated. The daemon also applies migrations when it starts; this command
/// applies them earlier, while no daemon runs.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    installation: Installation,
}

/// Locks the data folder and the database, applies the pending migrations and prints their names. Creates the database
/// and its envelope keys if there is no database yet. Fails while a daemon runs.
pub async fn apply_pending_migrations_and_print(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load_config()?;
    create_private_folder_if_missing(&config.data.folder)?;
    let _lock = DataFolderLock::lock_data_folder(&config.data.folder)?;
    let prepared = database::lock_migrate_and_load_or_create_keys(&config).await?;
    prepared.db.close().await;
    prepared.instance_lock.release().await;
    match prepared.applied.as_slice() {
        [] => print_line_or_exit("Nothing to do: no migration is pending."),
        names => print_line_or_exit(format_args!("Applied {}.", names.join(", "))),
    }
    Ok(())
}
