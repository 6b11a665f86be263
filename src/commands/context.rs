//! The context in which operations are executed: the configuration, database and keys of the installation, and the
//! daemon of this process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use chain::ChainId;

use crate::daemon::Daemon;
use crate::workers::rescan::Rescanner;
use clock::{Clock, Instant};
use config::Config;
use db::Db;
use envelope::Envelope;
use records::audit_log::Actor;
use tasks::Wake;
use web::health::Health;

/// The installation on which an operation works.
#[derive(Clone)]
pub struct Context {
    /// The configuration of the installation.
    pub config: Arc<Config>,
    /// The open and migrated database.
    pub db: Db,
    /// The clock of the daemon or of this process.
    pub clock: Clock,
    /// The keys that encrypt and decrypt goods.
    pub envelope: Arc<Envelope>,
    /// The operator who requested the operation, for the audit log.
    pub actor: Actor,
    /// Wakes the workers after an operation created work for them. It has no effect when no daemon runs in this
    /// process.
    pub wake: Wake,
    /// The daemon of this process; `None` when this process is not a daemon.
    pub daemon: Option<RunningDaemon>,
}

/// The parts of the running daemon that operations need.
#[derive(Clone)]
pub struct RunningDaemon {
    /// The address on which the surfaces are served.
    pub address: SocketAddr,
    /// The time at which the daemon started.
    pub started_at: Instant,
    /// The chains that the daemon follows.
    pub chains: Vec<ChainId>,
    /// For each followed chain: the object that reads old blocks again.
    pub rescans: HashMap<ChainId, Rescanner>,
    /// The problems that prevent parts of the daemon from working.
    pub health: Health,
}

impl RunningDaemon {
    /// Returns the parts of a running daemon that operations need. `started_at` is the time at which the daemon
    /// started.
    pub fn from_started_daemon(daemon: &Daemon, started_at: Instant) -> RunningDaemon {
        let enabled = daemon.config.chains.values().filter(|chain| chain.enabled);
        RunningDaemon {
            address: daemon.address,
            started_at,
            chains: enabled.map(|chain| chain.id.clone()).collect(),
            rescans: daemon.rescans.clone(),
            health: daemon.health.clone(),
        }
    }
}

impl Context {
    /// Returns a context for a process that is not a daemon. The actor is the user who runs this process.
    pub fn without_daemon(config: Arc<Config>, db: Db, clock: Clock, envelope: Arc<Envelope>) -> Context {
        let actor = Actor::CommandLine { uid: rustix::process::getuid().as_raw() };
        Context { config, db, clock, envelope, actor, wake: Wake::default(), daemon: None }
    }
}
