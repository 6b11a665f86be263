//! Workers: loops that wake and call one function of a feature. A worker has no input but the database and the nodes,
//! so its first run, every later one, and the one after a crash are the same.

pub mod follow;
pub mod fulfil;
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

/// Longest pause between two runs of a worker that fails again and again.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Maximum number of passes of [`Workers::run_until_idle`]. More passes mean that two workers undo each other's work.
const PASSES_MAX: usize = 10_000;

/// The outcome of a successful run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// The run did some work, and there may be more.
    Worked,
    /// There was no work.
    Idle,
}

/// A loop that the daemon runs until it stops.
#[async_trait]
pub trait Worker: Send + Sync {
    fn name(&self) -> String;

    /// Returns the pause after an idle run.
    fn pause(&self) -> Duration;

    /// Returns true when [`Wake`] ends the pause early. False for a worker whose run costs the same with and without
    /// work, such as a request to a node.
    fn wakeable(&self) -> bool {
        true
    }

    async fn run(&self) -> anyhow::Result<Ran>;
}

/// All workers of a daemon, and the signal that wakes them early.
#[derive(Clone, Default)]
pub struct Workers {
    all: Arc<Vec<Arc<dyn Worker>>>,
    wake: Wake,
    beats: Heartbeats,
}

/// The last run of each worker, by its name. The daemon's supervision reads it.
#[derive(Clone, Default)]
pub struct Heartbeats(Arc<Mutex<BTreeMap<String, LastRun>>>);

struct LastRun {
    ended: Instant,
    /// The error of a failing worker, and the time of its first failure in a row.
    failing: Option<(String, Instant)>,
}

/// The state of a worker.
pub struct Heartbeat {
    /// The time since the worker's last run ended, or since the worker started.
    pub since_end: Duration,
    /// The last error of a failing worker, and the time since its first failure in a row; `None` after a success.
    pub failing: Option<(String, Duration)>,
}

impl Heartbeats {
    /// Returns the state of every worker, by the worker's name.
    pub fn all(&self) -> Vec<(String, Heartbeat)> {
        let beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(name, kept): (&String, &LastRun)| {
            let failing = kept.failing.as_ref().map(|(why, since)| (why.clone(), since.elapsed()));
            (name.clone(), Heartbeat { since_end: kept.ended.elapsed(), failing })
        };
        beats.iter().map(read).collect()
    }

    fn keep(&self, worker: &str, outcome: Result<(), &anyhow::Error>) {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = Instant::now();
        let since = beats.get(worker).and_then(|kept| kept.failing.as_ref()).map_or(ended, |(_, since)| *since);
        let failing = outcome.err().map(|error| (format!("{error:#}"), since));
        beats.insert(worker.to_owned(), LastRun { ended, failing });
    }
}

impl Workers {
    /// Creates the set of workers; none runs before [`Workers::spawn`] or [`Workers::run_until_idle`].
    pub fn new(all: Vec<Arc<dyn Worker>>, wake: Wake) -> Workers {
        Workers { all: Arc::new(all), wake, beats: Heartbeats::default() }
    }

    /// Returns the record of all workers' runs, which stays current.
    pub fn beats(&self) -> Heartbeats {
        self.beats.clone()
    }

    /// Starts one loop for each worker. The loops end when `stop` becomes true.
    pub fn spawn(&self, tasks: &Tasks, stop: &watch::Receiver<bool>) -> Vec<tokio::task::JoinHandle<()>> {
        self.all
            .iter()
            .map(|worker| {
                tasks.spawn("worker", run_loop(worker.clone(), self.wake.clone(), self.beats.clone(), stop.clone()))
            })
            .collect()
    }

    /// Runs all workers in turn until none has work left, for tests and for single commands. A failure is logged, and
    /// the other workers run on.
    pub async fn run_until_idle(&self) {
        for _ in 0..PASSES_MAX {
            let mut worked = false;
            for worker in self.all.iter() {
                match worker.run().await {
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

async fn run_loop(worker: Arc<dyn Worker>, wake: Wake, beats: Heartbeats, mut stop: watch::Receiver<bool>) {
    let mut failures = 0u32;
    let name = worker.name();
    beats.keep(&name, Ok(()));
    while !*stop.borrow() {
        let ran = worker.run().await;
        beats.keep(&name, ran.as_ref().map(drop));
        let pause = match ran {
            Ok(Ran::Worked) => {
                failures = 0;
                continue;
            }
            Ok(Ran::Idle) => {
                failures = 0;
                worker.pause()
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let pause = (worker.pause() * 2u32.saturating_pow(failures.min(10))).min(BACKOFF_MAX);
                warn!(worker = worker.name(), failures, "worker {} failed: {error:#}", worker.name());
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // After a failure the whole pause is waited for, so that a failing node is not overloaded.
            () = wake.woken(), if failures == 0 && worker.wakeable() => {}
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}
