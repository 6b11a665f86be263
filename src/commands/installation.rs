//! The installation on which a command works. The user selects it by a configuration file or by the data folder of the
//! demo.

use std::path::PathBuf;
use std::sync::Arc;

use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use crate::commands::database::{open_or_create_database, require_no_pending_migrations};
use crate::commands::dev;
use crate::commands::envelope_keys::load_existing_envelope_keys;
use clock::Clock;
use config::Config;
use db::file_lock::DataFolderLock;

/// The configuration file that commands use by default.
pub const CONFIG: &str = "/etc/settled/settled.toml";

/// The installation on which a command works.
#[derive(clap::Args)]
pub struct Installation {
    /// The configuration of the daemon.
    #[arg(long, value_name = "FILE", default_value = CONFIG, global = true)]
    config: PathBuf,
    /// The data folder of `settled dev`, instead of a configuration file.
    #[arg(long, value_name = "FOLDER", global = true)]
    data: Option<PathBuf>,
}

impl Installation {
    /// Loads the configuration of the installation from its file or from the demo's data folder.
    pub fn load_config(&self) -> Result<Config, CommandError> {
        match &self.data {
            Some(folder) => dev::demo_config::load_existing_demo_config(folder),
            None => Ok(Config::load_file_and_environment(&self.config)?),
        }
    }
}

/// An installation that this process has opened while no daemon uses it. Its data folder stays locked until the value
/// is dropped.
pub struct OfflineInstallation {
    /// The context in which operations run in this process.
    pub context: Context,
    _lock: DataFolderLock,
}

impl OfflineInstallation {
    /// Opens the database and loads the envelope keys. Fails when migrations are pending, because only the daemon and
    /// `settled migrate` apply migrations.
    pub async fn open_if_no_migrations_pending(
        config: Config,
        lock: DataFolderLock,
    ) -> Result<OfflineInstallation, CommandError> {
        let db = open_or_create_database(&config).await?;
        require_no_pending_migrations(&config, &db).await?;
        let envelope = Arc::new(load_existing_envelope_keys(&config.data.folder)?);
        let context = Context::without_daemon(Arc::new(config), db, Clock::System, envelope);
        Ok(OfflineInstallation { context, _lock: lock })
    }

    /// Closes the database and releases the data folder.
    pub async fn close(self) {
        self.context.db.close().await;
    }
}
