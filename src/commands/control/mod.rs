//! One way in for whoever operates the daemon. A command is executed by one function: in the running daemon, which is
//! asked over a socket in its data folder, or in this process when no daemon holds the folder.

pub mod socket;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use chain::ChainId;
use serde::{Deserialize, Serialize};

use crate::commands::admin::{self, Act};
use crate::commands::dev::demo::{self, Demo};
use crate::commands::exit::CommandError;
use crate::commands::installation::{Installation, Offline, make_folder};
use crate::commands::{backup, rescan, status};
use crate::workers::rescan::{Piece, Rescan};
use clock::{Clock, Instant};
use config::Config;
use db::Db;
use db::file_lock::{DataFolderLock, DataFolderLockError};
use envelope::Envelope;
use records::audit_log::Actor;
use tasks::Wake;
use web::health::Health;

/// What can be asked. It has no `Debug`: goods and tokens stand in it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    Status,
    Backup,
    Rescan(rescan::Ask),
    Admin(Act),
    Demo(demo::Command),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Lines for people.
    Said(String),
    Copied(backup::Copied),
    Rescanned(Piece),
    Order(Box<demo::Order>),
}

/// An answer as a command prints it.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Said(lines) => f.write_str(lines),
            Answer::Copied(copied) => write!(f, "copied to {}", copied.file_name()),
            Answer::Rescanned(piece) => write!(f, "read up to block {}", piece.to),
            Answer::Order(order) => order.fmt(f),
        }
    }
}

/// What commands work on.
#[derive(Clone)]
pub struct Context {
    pub config: Arc<Config>,
    pub db: Db,
    pub clock: Clock,
    pub envelope: Arc<Envelope>,
    /// The caller, for the audit log.
    pub actor: Actor,
    /// For whoever leaves work behind that need not wait; it wakes nobody when no daemon runs.
    pub wake: Wake,
    /// `None` when no daemon runs.
    pub daemon: Option<Running>,
    /// The model chains of `settled dev`.
    pub demo: Option<Demo>,
}

/// What is known of the daemon in this process.
#[derive(Clone)]
pub struct Running {
    pub address: SocketAddr,
    pub started_at: Instant,
    pub chains: Vec<ChainId>,
    pub rescans: HashMap<ChainId, Rescan>,
    pub health: Health,
}

impl Context {
    pub fn offline(config: Arc<Config>, db: Db, clock: Clock, envelope: Arc<Envelope>) -> Context {
        let actor = Actor::CommandLine { uid: rustix::process::getuid().as_raw() };
        Context { config, db, clock, envelope, actor, wake: Wake::default(), daemon: None, demo: None }
    }
}

/// The one place where commands are done. An error is a sentence for whoever asked.
pub async fn execute(context: &Context, command: Command) -> Result<Answer, String> {
    match command {
        Command::Status => status::describe(context).await.map(Answer::Said),
        Command::Backup => backup::execute(context).await.map(Answer::Copied),
        Command::Rescan(ask) => rescan::execute(context, &ask).await.map(Answer::Rescanned),
        Command::Admin(act) => admin::execute(context, act).await.map(Answer::Said),
        Command::Demo(command) => match &context.demo {
            Some(demo) => demo::execute(context, demo, command).await,
            None => Err("this is no demo: only `settled dev` has buyers and chains of its own".into()),
        },
    }
}

/// Who does what is asked for.
pub enum Executor {
    /// The daemon that holds the data folder.
    Daemon,
    Ours(Box<Offline>),
}

pub async fn executor(config: &Config) -> Result<Executor, CommandError> {
    make_folder(&config.data.folder)?;
    match DataFolderLock::acquire(&config.data.folder) {
        Ok(lock) => Ok(Executor::Ours(Box::new(Offline::open(config.clone(), lock).await?))),
        Err(DataFolderLockError::Held { .. }) => Ok(Executor::Daemon),
        Err(error @ DataFolderLockError::Io { .. }) => Err(error.into()),
    }
}

/// Executes in the daemon that holds the data folder, or else here.
pub async fn ask(installation: &Installation, command: Command) -> Result<Answer, CommandError> {
    let config = installation.load()?;
    match executor(&config).await? {
        Executor::Daemon => ask_daemon(&config.data.folder, &command).await,
        Executor::Ours(offline) => {
            let answer = execute(&offline.context, command).await;
            offline.close().await;
            answer.map_err(CommandError::failed)
        }
    }
}

/// Executes in the running daemon only.
pub async fn ask_daemon(folder: &Path, command: &Command) -> Result<Answer, CommandError> {
    socket::ask(folder, command).await
}
