//! Operations: what keeps the daemon from its work, and what the service manager is told. No business rules.

pub mod disk;
mod notify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::daemon::Daemon;
use crate::workers::Heartbeats;
use db::{self, Db};
use tasks::Tasks;
use web::health::Health;

/// Between two looks at everything.
const PERIOD: Duration = Duration::from_secs(5);
/// A worker that has not come to the end of a run for so long hangs: every wait inside one is bounded below this.
const HANGS_AFTER: Duration = Duration::from_secs(300);
/// A worker that fails longer than this keeps the daemon from its work.
const FAILS_AFTER: Duration = Duration::from_secs(60);
/// A database that needs longer for two small questions does not answer.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(5);

struct Watch {
    health: Health,
    beats: Heartbeats,
    tasks: Tasks,
    db: Db,
    /// A question to the database that was not answered yet: a silent server is not asked again and again, each time by
    /// another connection.
    asked: Option<BoxFuture<'static, Result<Vec<String>, db::Error>>>,
    folder: PathBuf,
    /// What was said of the last look.
    known: BTreeMap<String, String>,
}

/// Watches over the daemon until `stop` says so: `/readyz` shows what is found, and the service manager hears that
/// we are ready, and again and again that the workers get on.
pub fn spawn(daemon: &Daemon, stop: &watch::Receiver<bool>) -> JoinHandle<()> {
    let watch = Watch {
        health: daemon.health.clone(),
        beats: daemon.beats(),
        tasks: daemon.tasks.clone(),
        db: daemon.db.clone(),
        asked: None,
        folder: daemon.config.data.folder.clone(),
        known: BTreeMap::new(),
    };
    notify::ready(&format!("listens on {}", daemon.address));
    daemon.tasks.spawn("watch", watch.run(stop.clone()))
}

/// From now on a signal to end does not kill the process; what is returned is ready when one came. Asked for before
/// anything is opened, so that no moment of a start ends without a farewell.
pub fn end() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        notify::stopping();
        info!("{name}: running requests may end, then the database is closed");
    })
}

impl Watch {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let period = notify::watchdog().map_or(PERIOD, |limit| PERIOD.min(limit / 3));
        let mut beat = tokio::time::interval(period);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let mut found = disk::problems(&self.folder);
        found.extend(self.database().await.map(|why| ("database".to_owned(), why)));
        let mut hangs = false;
        for (worker, beat) in self.beats.all() {
            if beat.since_end > HANGS_AFTER {
                hangs = true;
                found
                    .insert(worker, format!("it has not come to an end of its run for {} s", beat.since_end.as_secs()));
            } else if let Some((error, since)) = beat.failing.filter(|(_, since)| *since > FAILS_AFTER) {
                found.insert(worker, format!("it has failed for {} s: {error}", since.as_secs()));
            }
        }
        if self.tasks.lost() > 0 {
            found.insert("tasks".into(), format!("{} have panicked; look at the log and restart", self.tasks.lost()));
        }
        self.tell(found);
        if !hangs {
            notify::alive();
        }
    }

    async fn database(&mut self) -> Option<String> {
        let db = self.db.clone();
        let asked = self.asked.get_or_insert_with(|| async move { db.pending_migrations().await }.boxed());
        let Ok(answer) = tokio::time::timeout(DATABASE_TIMEOUT, asked).await else {
            return Some(format!("it has not answered for {} s", DATABASE_TIMEOUT.as_secs()));
        };
        self.asked = None;
        match answer {
            Ok(pending) if pending.is_empty() => None,
            Ok(pending) => Some(format!("migrations are pending: {}", pending.join(", "))),
            Err(e) => Some(format!("it does not answer: {e}")),
        }
    }

    fn tell(&mut self, found: BTreeMap<String, String>) {
        for (part, _) in self.known.iter().filter(|(part, _)| !found.contains_key(*part)) {
            self.health.clear_problem(part);
            info!("{part} works again");
        }
        for (part, why) in &found {
            if !self.known.contains_key(part) {
                warn!("{part}: {why}");
            }
            self.health.set_problem(part, why);
        }
        self.known = found;
    }
}
