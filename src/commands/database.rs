//! Opens, locks and migrates the database of an installation.

use std::path::PathBuf;
use std::sync::Arc;

use crate::commands::command_error::CommandError;
use crate::commands::envelope_keys::load_existing_envelope_keys;
use crate::commands::hints::format_hint;
use config::Config;
use db::Db;
use db::instance_lock::InstanceLock;
use envelope::Envelope;

/// The beginning of the first migration's name. A database that lacks this migration is new.
const FIRST_MIGRATION: &str = "0001";

/// Opens the database. Fails when its SQLite file does not exist.
pub async fn open_existing_database(config: &Config) -> Result<Db, CommandError> {
    if let Some(file) = find_missing_database_file(config)? {
        let file = file.display();
        return Err(CommandError::general_error(format!(
            "{file} does not exist; check [data] folder and [database] url, or start the daemon once to create it"
        )));
    }
    open_or_create_database(config).await
}

/// Returns the path of the SQLite database when that file does not exist. Otherwise, and for PostgreSQL, returns
/// `None`.
pub fn find_missing_database_file(config: &Config) -> Result<Option<PathBuf>, CommandError> {
    let url = config.load_database_config()?.url;
    let file = url.strip_prefix("sqlite:").map(PathBuf::from);
    Ok(file.filter(|file| !file.is_file()))
}

/// Opens the database. When the SQLite file does not exist, creates it.
pub async fn open_or_create_database(config: &Config) -> Result<Db, CommandError> {
    let opened = Db::open(&config.load_database_config()?).await;
    opened.map_err(|e| {
        CommandError::error_with_context(format!("[database] {} cannot be opened", config.database.url), e)
    })
}

/// Fails when some migrations were not applied to the database yet.
pub async fn require_no_pending_migrations(config: &Config, db: &Db) -> Result<(), CommandError> {
    let pending = db.pending_migrations().await?;
    if pending.is_empty() {
        return Ok(());
    }
    Err(CommandError::general_error(format!(
        "the database lacks the migrations {}; run {} or start the daemon",
        pending.join(", "),
        format_hint(config, "migrate")
    )))
}

/// A migrated database that is locked for this process, with the keys that decrypt its goods.
pub struct MigratedDatabase {
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
/// For an existing database, new keys would hide that the old keys are lost.
pub async fn lock_migrate_and_load_or_create_keys(config: &Config) -> Result<MigratedDatabase, CommandError> {
    let db = open_or_create_database(config).await?;
    // The lock is acquired first, so that the schema is not changed while another daemon runs.
    let mut instance_lock = InstanceLock::acquire_instance_lock(&db, &describe_this_process()).await?;
    let is_new = db.pending_migrations().await?.iter().any(|name| name.starts_with(FIRST_MIGRATION));
    let folder = &config.data.folder;
    // The keys are created before the schema, so that an interrupted start cannot leave a database without keys.
    let envelope = match is_new {
        true => Envelope::load_key_file_or_create_if_none(folder)
            .map_err(|e| CommandError::error_with_context("envelope keys", e))?,
        false => load_existing_envelope_keys(folder)?,
    };
    let applied = db.migrate().await?;
    instance_lock.fence_out_previous_daemon().await?;
    Ok(MigratedDatabase { db, instance_lock, envelope: Arc::new(envelope), applied })
}

/// Returns the id of this process and the name of its machine. A daemon that finds the database locked by this process
/// prints both.
fn describe_this_process() -> String {
    let machine = rustix::system::uname();
    format!("process {} on {}", std::process::id(), machine.nodename().to_string_lossy())
}
