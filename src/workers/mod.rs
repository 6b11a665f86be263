//! Workers: loops that wake up and call one function of a feature. A worker has no input but the database and the
//! nodes, so the first run, a later run and the run after a crash are the same.

pub mod follow;
pub mod fulfilment;
pub mod expiry;
pub mod ledger;
pub mod mail;
pub mod balance_check;
pub mod rates;
pub mod rescan;
pub mod mempool;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, warn};

use tasks::{Tasks, Wake};

/// Maximum pause of a worker between two runs after errors in a row.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Maximum number of passes of [`Workers::run_workers_until_idle`]. More of them mean that a worker never becomes idle.
const PASSES_MAX: usize = 10_000;

/// The result of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// The worker did something, and there may be more to do.
    Worked,
    /// There was nothing to do.
    Idle,
}

/// A loop of the daemon.
#[async_trait]
pub trait Worker: Send + Sync {
    /// The name in logs, in `settled status` and in `/readyz`.
    fn name(&self) -> String;

    /// The pause after an idle run.
    fn idle_pause(&self) -> Duration;

    /// Returns true when a hint that there may be work ends the pause early. False for workers whose runs cost the same
    /// with and without work.
    fn is_wakeable(&self) -> bool {
        true
    }

    /// Does the work that is due, and returns whether there was any.
    async fn run_once(&self) -> anyhow::Result<Ran>;
}

/// All workers of a daemon, with the signal that wakes them early.
#[derive(Clone, Default)]
pub struct Workers {
    all: Arc<Vec<Arc<dyn Worker>>>,
    wake: Wake,
    heartbeats: Heartbeats,
}

/// The last run of each worker, for the watchdog and `/readyz`.
#[derive(Clone, Default)]
pub struct Heartbeats(Arc<Mutex<BTreeMap<String, LastRun>>>);

struct LastRun {
    ended: Instant,
    /// The error of the last run and the time of the first error in a row; `None` after a success.
    failing: Option<(String, Instant)>,
}

/// The state of one worker.
pub struct Heartbeat {
    /// The time since its last run ended.
    pub since_end: Duration,
    /// The error of its last run, and the time since the first error in a row; `None` after a success.
    pub failing: Option<(String, Duration)>,
}

impl Heartbeats {
    /// All workers with their states, by name.
    pub fn list_by_worker(&self) -> Vec<(String, Heartbeat)> {
        let heartbeats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let to_heartbeat = |(name, kept): (&String, &LastRun)| {
            let failing = kept.failing.as_ref().map(|(why, since)| (why.clone(), since.elapsed()));
            (name.clone(), Heartbeat { since_end: kept.ended.elapsed(), failing })
        };
        heartbeats.iter().map(to_heartbeat).collect()
    }

    fn record_run(&self, worker: &str, outcome: Result<(), &anyhow::Error>) {
        let mut heartbeats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = Instant::now();
        let since = heartbeats.get(worker).and_then(|kept| kept.failing.as_ref()).map_or(ended, |(_, since)| *since);
        let failing = outcome.err().map(|error| (format!("{error:#}"), since));
        heartbeats.insert(worker.to_owned(), LastRun { ended, failing });
    }
}

impl Workers {
    /// Workers that `wake` wakes early.
    pub fn new(all: Vec<Arc<dyn Worker>>, wake: Wake) -> Workers {
        Workers { all: Arc::new(all), wake, heartbeats: Heartbeats::default() }
    }

    /// The last runs of the workers.
    pub fn heartbeats(&self) -> Heartbeats {
        self.heartbeats.clone()
    }

    /// Runs one loop for each worker until `stop` is true.
    pub fn spawn_worker_loops(&self, tasks: &Tasks, stop: &watch::Receiver<bool>) -> Vec<tokio::task::JoinHandle<()>> {
        self.all
            .iter()
            .map(|worker| {
                tasks.spawn(
                    "worker",
                    run_worker_loop(worker.clone(), self.wake.clone(), self.heartbeats.clone(), stop.clone()),
                )
            })
            .collect()
    }

    /// Runs every worker until none has anything left to do. Tests and single commands drive a daemon like this. A
    /// failure is logged and does not end the run, because the test may have caused it.
    pub async fn run_workers_until_idle(&self) {
        for _ in 0..PASSES_MAX {
            let mut worked = false;
            for worker in self.all.iter() {
                match worker.run_once().await {
                    Ok(ran) => worked |= ran == Ran::Worked,
                    Err(error) => warn!(worker = worker.name(), "worker {} failed: {error:#}", worker.name()),
                }
            }
            if !worked {
                return;
            }
        }
        error!("workers did not become idle in {PASSES_MAX} passes");
    }
}

async fn run_worker_loop(worker: Arc<dyn Worker>, wake: Wake, heartbeats: Heartbeats, mut stop: watch::Receiver<bool>) {
    let mut failures = 0u32;
    let name = worker.name();
    heartbeats.record_run(&name, Ok(()));
    while !*stop.borrow() {
        let ran = worker.run_once().await;
        heartbeats.record_run(&name, ran.as_ref().map(drop));
        let pause = match ran {
            Ok(Ran::Worked) => {
                failures = 0;
                continue;
            }
            Ok(Ran::Idle) => {
                failures = 0;
                worker.idle_pause()
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let pause = (worker.idle_pause() * 2u32.saturating_pow(failures.min(10))).min(BACKOFF_MAX);
                warn!(worker = worker.name(), failures, "worker {} failed: {error:#}", worker.name());
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // After a failure the whole pause is kept, to protect the failing service.
            () = wake.woken(), if failures == 0 && worker.is_wakeable() => {}
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}
