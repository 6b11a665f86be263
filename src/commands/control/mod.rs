//! One way in for whoever operates the daemon. A command is executed by one function: in the running daemon, which is
//! asked over a socket in its data folder, or in this process when no daemon holds the folder.

pub mod socket;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chain::ChainId;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Instant};
use crate::commands::admin::{self, Act};
use crate::commands::dev::demo::{self, Demo};
use crate::commands::exit::Failure;
use crate::commands::place::{Offline, Place, make_folder};
use crate::commands::{rescan, status};
use crate::config::Config;
use crate::db::Db;
use crate::db::lock::{DataLock, LockError};
use crate::envelope::Envelope;
use crate::http::health::Health;
use crate::workers::rescan::{Piece, Rescan};

/// What can be asked. It has no `Debug`: goods and tokens stand in it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    Status,
    Backup { to: PathBuf },
    Rescan(rescan::Ask),
    Admin(Act),
    Demo(demo::Command),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Lines for people.
    Said(String),
    Rescanned(Piece),
    Order(Box<demo::Order>),
}

/// An answer as a command prints it.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Said(lines) => f.write_str(lines),
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
    /// Who asks, for the log of administrative acts.
    pub actor: String,
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
        let actor = actor(rustix::process::getuid().as_raw());
        Context { config, db, clock, envelope, actor, daemon: None, demo: None }
    }
}

/// How a user of the machine stands in the log of administrative acts.
fn actor(uid: u32) -> String {
    format!("uid {uid}")
}

/// The one place where commands are done. An error is a sentence for whoever asked.
pub async fn execute(context: &Context, command: Command) -> Result<Answer, String> {
    match command {
        Command::Status => status::describe(context).await.map(Answer::Said),
        Command::Backup { to } => backup(context, &to).await,
        Command::Rescan(ask) => rescan::execute(context, &ask).await.map(Answer::Rescanned),
        Command::Admin(act) => admin::execute(context, act).await.map(Answer::Said),
        Command::Demo(command) => match &context.demo {
            Some(demo) => demo::execute(context, demo, command).await,
            None => Err("this is no demo: only `settled dev` has buyers and chains of its own".into()),
        },
    }
}

async fn backup(context: &Context, to: &Path) -> Result<Answer, String> {
    context.db.backup(to).await.map_err(|e| e.to_string())?;
    let keys = context.config.data.folder.join(crate::envelope::FILE_NAME);
    Ok(Answer::Said(format!(
        "{} is a complete copy of the database. Goods in it can be read only with {}: keep a copy of that file elsewhere.",
        to.display(),
        keys.display()
    )))
}

/// Executes in the daemon that holds the data folder, or else here.
pub async fn ask(place: &Place, command: Command) -> Result<Answer, Failure> {
    let config = place.load()?;
    make_folder(&config.data.folder)?;
    match DataLock::acquire(&config.data.folder) {
        Ok(lock) => {
            let offline = Offline::open(config, lock).await?;
            let answer = execute(&offline.context, command).await;
            offline.close().await;
            answer.map_err(Failure::failed)
        }
        Err(LockError::Held { .. }) => ask_daemon(&config.data.folder, &command).await,
        Err(error @ LockError::Io { .. }) => Err(error.into()),
    }
}

/// Executes in the running daemon only.
pub async fn ask_daemon(folder: &Path, command: &Command) -> Result<Answer, Failure> {
    socket::ask(folder, command).await
}
