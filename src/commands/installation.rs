//! Which installation a command is about: a configuration file, or the data folder of the demo.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commands::control::Context;
use crate::commands::dev;
use crate::commands::exit::CommandError;
use clock::Clock;
use config::Config;
use db::Db;
use db::instance_lock::InstanceLock;
use db::file_lock::DataFolderLock;
use envelope::{Envelope, KeysError};

/// How the name of the first one begins.
const FIRST_MIGRATION: &str = "0001";

pub const CONFIG: &str = "/etc/settled/settled.toml";

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
    pub fn load(&self) -> Result<Config, CommandError> {
        match &self.data {
            Some(folder) => dev::config_of(folder),
            None => Ok(Config::load(&self.config)?),
        }
    }

    /// As it is typed after `settled …`, for advice.
    pub fn flag(&self) -> String {
        match &self.data {
            Some(folder) => format!("--data {}", folder.display()),
            None if self.config == Path::new(CONFIG) => String::new(),
            None => format!("--config {}", self.config.display()),
        }
    }
}

/// An installation that no daemon uses at the moment, held until it is dropped.
pub struct Offline {
    pub context: Context,
    _lock: DataFolderLock,
}

impl Offline {
    /// The schema must be current: a command is no time to migrate.
    pub async fn open(config: Config, lock: DataFolderLock) -> Result<Offline, CommandError> {
        let db = open_database(&config).await?;
        require_schema(&db).await?;
        let envelope = Arc::new(open_envelope(&config.data.folder)?);
        let context = Context::offline(Arc::new(config), db, Clock::System, envelope);
        Ok(Offline { context, _lock: lock })
    }

    pub async fn close(self) {
        self.context.db.close().await;
    }
}

/// Opens a database that must be there already.
pub async fn open_existing(config: &Config) -> Result<Db, CommandError> {
    if let Some(file) = missing_database(config)? {
        let file = file.display();
        return Err(CommandError::failed(format!(
            "{file} does not exist: did the daemon ever run with this configuration?"
        )));
    }
    open_database(config).await
}

/// Where SQLite's file would be, when it is not there: opening it would make it.
pub fn missing_database(config: &Config) -> Result<Option<PathBuf>, CommandError> {
    let url = config.database_config()?.url;
    let file = url.strip_prefix("sqlite:").map(PathBuf::from);
    Ok(file.filter(|file| !file.is_file()))
}

pub async fn open_database(config: &Config) -> Result<Db, CommandError> {
    let opened = Db::open(&config.database_config()?).await;
    opened.map_err(|e| CommandError::with_context(format!("[database] {} cannot be opened", config.database.url), e))
}

pub async fn require_schema(db: &Db) -> Result<(), CommandError> {
    let pending = db.pending_migrations().await?;
    if pending.is_empty() {
        return Ok(());
    }
    Err(CommandError::failed(format!(
        "the database lacks {}; run `settled migrate` or start the daemon",
        pending.join(", ")
    )))
}

/// A database with the schema of this version, claimed for this process, and the keys that open the goods in it.
pub struct Prepared {
    pub db: Db,
    pub claim: InstanceLock,
    pub envelope: Arc<Envelope>,
    /// Migrations that were pending.
    pub applied: Vec<String>,
}

/// New keys are made for a new database only: beside an old one they would hide that the old ones are lost.
pub async fn prepare(config: &Config) -> Result<Prepared, CommandError> {
    let db = open_database(config).await?;
    // First, so that no schema is changed under a daemon that runs.
    let mut claim = InstanceLock::acquire(&db, &owner()).await?;
    let is_new = db.pending_migrations().await?.iter().any(|name| name.starts_with(FIRST_MIGRATION));
    let folder = &config.data.folder;
    // Before the schema, so that a start that is cut short leaves no database without keys.
    let envelope = match is_new {
        true => Envelope::load_or_create(folder).map_err(|e| CommandError::with_context("envelope keys", e))?,
        false => open_envelope(folder)?,
    };
    let applied = db.migrate().await?;
    claim.fence().await?;
    Ok(Prepared { db, claim, envelope: Arc::new(envelope), applied })
}

/// How this process is called towards others that would like to serve the same database.
fn owner() -> String {
    let machine = rustix::system::uname();
    format!("process {} on {}", std::process::id(), machine.nodename().to_string_lossy())
}

/// For a database that may hold goods already.
pub fn open_envelope(folder: &Path) -> Result<Envelope, CommandError> {
    Envelope::load(folder).map_err(|e| {
        let advice = match &e {
            KeysError::Io { error, .. } if error.kind() == ErrorKind::NotFound => NO_KEYS,
            KeysError::Io { error, .. } if error.kind() == ErrorKind::PermissionDenied => {
                ". Run this as the daemon's user, or as root"
            }
            KeysError::Malformed { .. } => ". Goods in the database open only with them: restore the file",
            KeysError::Io { .. }
            | KeysError::Exists(_)
            | KeysError::Open { .. }
            | KeysError::Full(_)
            | KeysError::Credential(_) => "",
        };
        CommandError::failed(format!("envelope keys: {e}{advice}"))
    })
}

const NO_KEYS: &str = "\
. Goods in the database open only with them. Where the unit passes them (LoadCredential), the daemon alone sees them: what \
asks the running daemon works, and the rest is run by `systemd-run --pipe --wait -p User=settled -p \
LoadCredential=envelope.keys:FILE settled …`. When they are lost, restore the file";

/// Makes the data folder when it is missing; nobody else may look into it.
pub fn make_folder(folder: &Path) -> Result<(), CommandError> {
    use std::os::unix::fs::DirBuilderExt;

    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|e| CommandError::with_context(format!("the data folder {} cannot be made", folder.display()), e))
}
