//! The installation on which a command works. Either a configuration file or the demo's data folder selects it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commands::context::Context;
use crate::commands::dev;
use crate::commands::exit::CommandError;
use clock::Clock;
use config::Config;
use db::Db;
use db::file_lock::DataFolderLock;
use db::instance_lock::InstanceLock;
use envelope::{Envelope, KeysError};

/// The prefix of the first migration's name.
const FIRST_MIGRATION: &str = "0001";

/// The configuration file that commands use by default.
pub const CONFIG: &str = "/etc/settled/settled.toml";

/// The installation on which a command works.
#[derive(clap::Args)]
pub struct Installation {
    /// The configuration of the daemon.
    #[arg(long, value_name = "FILE", default_value = CONFIG, global = true)]
    config: PathBuf,
    /// The data folder of `settled dev`, instead of a configuration.
    #[arg(long, value_name = "FOLDER", global = true)]
    data: Option<PathBuf>,
}

impl Installation {
    /// Loads the configuration of the installation from its file or from the demo's data folder.
    pub fn load_config(&self) -> Result<Config, CommandError> {
        match &self.data {
            Some(folder) => dev::load_existing_demo_config(folder),
            None => Ok(Config::load_file(&self.config)?),
        }
    }

    /// Returns the command-line arguments that select this installation, for messages; empty for the default
    /// installation.
    pub fn format_command_line_arguments(&self) -> String {
        match &self.data {
            Some(folder) => format!("--data {}", folder.display()),
            None if self.config == Path::new(CONFIG) => String::new(),
            None => format!("--config {}", self.config.display()),
        }
    }
}

/// An open installation that no daemon uses. Its data folder is locked until the value is dropped.
pub struct Offline {
    /// The context in which operations run in this process.
    pub context: Context,
    _lock: DataFolderLock,
}

impl Offline {
    /// Opens the database and loads the envelope keys. Fails when migrations are pending, because only the daemon and
    /// `settled migrate` apply migrations.
    pub async fn open_installation(config: Config, lock: DataFolderLock) -> Result<Offline, CommandError> {
        let db = open_database(&config).await?;
        require_current_schema(&db).await?;
        let envelope = Arc::new(load_envelope_keys(&config.data.folder)?);
        let context = Context::without_daemon(Arc::new(config), db, Clock::System, envelope);
        Ok(Offline { context, _lock: lock })
    }

    /// Closes the database and releases the data folder.
    pub async fn close(self) {
        self.context.db.close().await;
    }
}

/// Opens the database. Fails when its SQLite file does not exist.
pub async fn open_existing_database(config: &Config) -> Result<Db, CommandError> {
    if let Some(file) = find_missing_database_file(config)? {
        let file = file.display();
        return Err(CommandError::general_error(format!(
            "{file} does not exist; check [data] folder and [database] url, or start the daemon once to create it"
        )));
    }
    open_database(config).await
}

/// Returns the path of the SQLite database when that file does not exist. Otherwise, and for PostgreSQL, returns
/// `None`.
pub fn find_missing_database_file(config: &Config) -> Result<Option<PathBuf>, CommandError> {
    let url = config.load_database_config()?.url;
    let file = url.strip_prefix("sqlite:").map(PathBuf::from);
    Ok(file.filter(|file| !file.is_file()))
}

/// Opens the database. A missing SQLite file is created.
pub async fn open_database(config: &Config) -> Result<Db, CommandError> {
    let opened = Db::open(&config.load_database_config()?).await;
    opened.map_err(|e| {
        CommandError::error_with_context(format!("[database] {} cannot be opened", config.database.url), e)
    })
}

/// Fails when migrations are pending.
pub async fn require_current_schema(db: &Db) -> Result<(), CommandError> {
    let pending = db.pending_migrations().await?;
    if pending.is_empty() {
        return Ok(());
    }
    Err(CommandError::general_error(format!(
        "the database lacks the migrations {}; run `settled migrate` or start the daemon",
        pending.join(", ")
    )))
}

/// A migrated database that is locked for this process, with the keys that decrypt its goods.
pub struct Prepared {
    /// The database, open and migrated.
    pub db: Db,
    /// The lock that keeps other daemons from serving this database.
    pub instance_lock: InstanceLock,
    /// The keys that decrypt goods.
    pub envelope: Arc<Envelope>,
    /// The names of the migrations that were applied when the database was opened.
    pub applied: Vec<String>,
}

/// Opens, locks and migrates the database, and loads the envelope keys. New keys are created only for a new database.
/// With an existing database, new keys would hide that its old keys are lost.
pub async fn lock_and_migrate_database(config: &Config) -> Result<Prepared, CommandError> {
    let db = open_database(config).await?;
    // The lock is acquired first, so that the schema is not changed while another daemon runs.
    let mut instance_lock = InstanceLock::acquire_instance_lock(&db, &describe_this_process()).await?;
    let is_new = db.pending_migrations().await?.iter().any(|name| name.starts_with(FIRST_MIGRATION));
    let folder = &config.data.folder;
    // The keys are created before the schema, so that an interrupted start cannot leave a database without keys.
    let envelope = match is_new {
        true => Envelope::load_or_create_key_file(folder)
            .map_err(|e| CommandError::error_with_context("envelope keys", e))?,
        false => load_envelope_keys(folder)?,
    };
    let applied = db.migrate().await?;
    instance_lock.fence_out_previous_daemon().await?;
    Ok(Prepared { db, instance_lock, envelope: Arc::new(envelope), applied })
}

/// Returns the name of this process and its machine. Other daemons print it when this process has locked the database.
fn describe_this_process() -> String {
    let machine = rustix::system::uname();
    format!("process {} on {}", std::process::id(), machine.nodename().to_string_lossy())
}

/// Loads the envelope keys. Fails when they are missing, because the database may already contain goods that need them.
pub fn load_envelope_keys(folder: &Path) -> Result<Envelope, CommandError> {
    Envelope::load_key_file(folder).map_err(|e| {
        let advice = match &e {
            KeysError::Io { error, .. } if error.kind() == ErrorKind::NotFound => NO_KEYS,
            KeysError::Io { error, .. } if error.kind() == ErrorKind::PermissionDenied => {
                ". Run this as the daemon's user, or as root"
            }
            KeysError::Malformed { .. } => ". Goods in the database can be decrypted only with them: restore the file",
            KeysError::Io { .. }
            | KeysError::Exists(_)
            | KeysError::ReadableByOthers { .. }
            | KeysError::Full(_)
            | KeysError::Credential(_) => "",
        };
        CommandError::general_error(format!("envelope keys: {e}{advice}"))
    })
}

const NO_KEYS: &str = "\
. Goods in the database can be decrypted only with them. If the unit passes them by LoadCredential, only the daemon can \
read them: start the daemon, or run the command with `systemd-run --pipe --wait -p User=settled -p \
LoadCredential=envelope.keys:FILE settled …`. If they are lost, restore the file";

/// Creates the data folder if it is missing. Only its owner can access it.
pub fn create_data_folder(folder: &Path) -> Result<(), CommandError> {
    use std::os::unix::fs::DirBuilderExt;

    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|e| {
        CommandError::error_with_context(format!("the data folder {} cannot be created", folder.display()), e)
    })
}
