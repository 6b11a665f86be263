//! The command `settled migrate`: applies pending migrations.

use crate::commands::exit::CommandError;
use crate::commands::installation::{self, Installation, create_data_folder};
use crate::commands::out::print_line;
use db::file_lock::DataFolderLock;

/// Selects the installation whose database is migrated. The daemon also applies migrations when it starts; this command
/// applies them earlier, while no daemon runs.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    installation: Installation,
}

/// Applies pending migrations and prints their names.
pub async fn run_migrate(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load_config()?;
    create_data_folder(&config.data.folder)?;
    let _lock = DataFolderLock::acquire(&config.data.folder)?;
    let prepared = installation::lock_and_migrate_database(&config).await?;
    prepared.db.close().await;
    prepared.instance_lock.release().await;
    match prepared.applied.as_slice() {
        [] => print_line("Nothing to do: no migration is pending."),
        names => print_line(format_args!("Applied {}.", names.join(", "))),
    }
    Ok(())
}
