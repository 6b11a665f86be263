//! The supervisor checks the daemon's disk, database, workers and tasks every few seconds. It reports problems at
//! `/readyz`, and notifies the watchdog of systemd as long as no worker hangs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::daemon::Daemon;
use crate::ops::{disk, systemd};
use crate::workers::heartbeats::Heartbeats;
use db::{self, Db};
use tasks::Tasks;
use web::health::Health;

/// Maximum time between two checks of the daemon's health.
const CHECK_PERIOD: Duration = Duration::from_secs(5);
/// A worker that has completed no run for this time counts as hanging. Every timeout inside a run is shorter.
const WORKER_HANGS_AFTER: Duration = Duration::from_secs(300);
/// The time for which all runs of a worker must have failed before `/readyz` reports the worker as a problem.
const WORKER_FAILS_AFTER: Duration = Duration::from_secs(60);
/// Maximum time for the two small queries of the database check.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(5);

struct Supervisor {
    health: Health,
    heartbeats: Heartbeats,
    tasks: Tasks,
    db: Db,
    /// The database check that is still running; `None` when no check runs. While it runs, no second check is started,
    /// because each check uses a connection to the database server.
    database_check: Option<BoxFuture<'static, Result<Vec<String>, db::Error>>>,
    data_folder: PathBuf,
    /// The problems that the last check found. The key is the name of the part with the problem.
    problems: BTreeMap<String, String>,
}

/// Notifies systemd that the daemon is ready, and starts the supervisor, which runs until `stop` is true. The
/// supervisor reports problems at `/readyz`, and notifies the watchdog of systemd as long as no worker hangs.
pub fn notify_ready_and_spawn_supervisor(daemon: &Daemon, stop: &watch::Receiver<bool>) -> JoinHandle<()> {
    let supervisor = Supervisor {
        health: daemon.health.clone(),
        heartbeats: daemon.worker_heartbeats(),
        tasks: daemon.tasks.clone(),
        db: daemon.db.clone(),
        database_check: None,
        data_folder: daemon.config.data.folder.clone(),
        problems: BTreeMap::new(),
    };
    systemd::notify_ready(&format!("listens on {}", daemon.address));
    daemon.tasks.spawn("supervisor", supervisor.supervise_until_stopped(stop.clone()))
}

impl Supervisor {
    async fn supervise_until_stopped(mut self, mut stop: watch::Receiver<bool>) {
        let period = systemd::watchdog_interval().map_or(CHECK_PERIOD, |interval| CHECK_PERIOD.min(interval / 3));
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.publish_health_and_notify_watchdog().await;
        }
    }

    async fn publish_health_and_notify_watchdog(&mut self) {
        let mut problems = BTreeMap::new();
        problems.extend(disk::find_disk_problem(&self.data_folder).map(|problem| ("disk".to_owned(), problem)));
        problems
            .extend(self.find_database_problem_within_timeout().await.map(|problem| ("database".to_owned(), problem)));
        let mut hangs = false;
        for (worker, heartbeat) in self.heartbeats.list_by_worker() {
            if heartbeat.since_end > WORKER_HANGS_AFTER {
                hangs = true;
                let seconds = heartbeat.since_end.as_secs();
                problems.insert(worker, format!("the worker has not completed a run for {seconds} s"));
            } else if let Some((error, since)) = heartbeat.failing.filter(|(_, since)| *since > WORKER_FAILS_AFTER) {
                problems.insert(worker, format!("the worker has failed for {} s: {error}", since.as_secs()));
            }
        }
        let lost_tasks = self.tasks.count_lost_tasks();
        if lost_tasks > 0 {
            problems.insert(
                "tasks".into(),
                format!("{lost_tasks} tasks have panicked; look at the log and restart the daemon"),
            );
        }
        self.publish_problems_and_log_changes(problems);
        if !hangs {
            systemd::notify_alive();
        }
    }

    /// Returns the problem of the database; `None` when the database responds in time and no migration is pending.
    async fn find_database_problem_within_timeout(&mut self) -> Option<String> {
        let db = self.db.clone();
        let check = self.database_check.get_or_insert_with(|| async move { db.pending_migrations().await }.boxed());
        let Ok(pending) = tokio::time::timeout(DATABASE_TIMEOUT, check).await else {
            return Some(format!("the database has not answered for {} s", DATABASE_TIMEOUT.as_secs()));
        };
        self.database_check = None;
        match pending {
            Ok(pending) if pending.is_empty() => None,
            Ok(pending) => Some(format!("migrations are pending: {}", pending.join(", "))),
            Err(e) => Some(format!("the database does not answer: {e}")),
        }
    }

    /// Replaces the problems that `/readyz` shows, and logs only those that are new or solved since the last check.
    fn publish_problems_and_log_changes(&mut self, problems: BTreeMap<String, String>) {
        for part in self.problems.keys().filter(|part| !problems.contains_key(*part)) {
            self.health.clear_problem(part);
            info!("{part} works again");
        }
        for (part, problem) in &problems {
            if !self.problems.contains_key(part) {
                warn!("{part}: {problem}");
            }
            self.health.set_problem(part, problem);
        }
        self.problems = problems;
    }
}
