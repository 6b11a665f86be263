//! Loops that wake and call one verb. A worker is a clock: it has no input, and the first run, a later one and the one
//! after a crash are the same.

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

/// Errors in a row after which a worker waits longest between two runs.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Runs of [`Workers::run_until_idle`] after which somebody is working in circles.
const PASSES_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// Something was done; there may be more.
    Worked,
    /// Nothing to do.
    Idle,
}

#[async_trait]
pub trait Worker: Send + Sync {
    fn name(&self) -> String;

    /// How long to wait after an idle run.
    fn pause(&self) -> Duration;

    /// Whether a hint that there may be work ends the pause early. Not for what costs the same whether there is work or not.
    fn wakeable(&self) -> bool {
        true
    }

    async fn run(&self) -> anyhow::Result<Ran>;
}

/// All workers of a daemon, and what wakes them early.
#[derive(Clone, Default)]
pub struct Workers {
    all: Arc<Vec<Arc<dyn Worker>>>,
    wake: Wake,
    beats: Heartbeats,
}

/// When each worker came to the end of a run, for whoever watches over them.
#[derive(Clone, Default)]
pub struct Heartbeats(Arc<Mutex<BTreeMap<String, LastRun>>>);

struct LastRun {
    ended: Instant,
    /// Why it fails, and since when.
    failing: Option<(String, Instant)>,
}

/// How a worker gets on.
pub struct Heartbeat {
    pub since_end: Duration,
    /// Why it fails, and for how long.
    pub failing: Option<(String, Duration)>,
}

impl Heartbeats {
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
    pub fn new(all: Vec<Arc<dyn Worker>>, wake: Wake) -> Workers {
        Workers { all: Arc::new(all), wake, beats: Heartbeats::default() }
    }

    pub fn beats(&self) -> Heartbeats {
        self.beats.clone()
    }

    /// One loop for each worker, until `stop` says so.
    pub fn spawn(&self, tasks: &Tasks, stop: &watch::Receiver<bool>) -> Vec<tokio::task::JoinHandle<()>> {
        self.all
            .iter()
            .map(|worker| {
                tasks.spawn("worker", run_loop(worker.clone(), self.wake.clone(), self.beats.clone(), stop.clone()))
            })
            .collect()
    }

    /// Runs every worker until none has anything left to do: how tests and single commands drive a daemon. The first
    /// failure of each worker in a row is not final, because a fault may be what is being tested.
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
            // After a failure the pause is what protects the other side.
            () = wake.woken(), if failures == 0 && worker.wakeable() => {}
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}
