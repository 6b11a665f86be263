//! Workers: background loops, each of which calls one function of a feature. A worker depends on nothing but the
//! database and the nodes, so its first run after a crash continues the work.

pub mod heartbeats;
pub mod follow;
pub mod fulfilment;
pub mod expiry;
pub mod ledger;
pub mod mail;
pub mod balance_check;
pub mod initial_balances;
pub mod rates;
pub mod rescan;
pub mod mempool;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tracing::{error, warn};

use crate::workers::heartbeats::Heartbeats;
use tasks::{Tasks, Wake};

/// The maximum pause of a worker after an error. The pause doubles with each further error in a row.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The maximum number of passes of [`Workers::run_workers_until_idle`], each of which runs all workers once. When
/// workers still have work after the last pass, an error is logged.
const PASSES_MAX: usize = 10_000;

/// The result of one run of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// The worker did some work, and more may be left.
    Worked,
    /// The worker found no more work.
    Idle,
}

/// A background loop of the daemon, which does its due work, pauses, and starts again.
#[async_trait]
pub trait Worker: Send + Sync {
    /// Returns the name of the worker, under which logs, `settled status` and `/readyz` show it.
    fn name(&self) -> String;

    /// Returns the time that the worker waits after a run that found no work.
    fn idle_pause(&self) -> Duration;

    /// Returns true when the wake signal ends the pause of the worker early. A worker whose runs are expensive even
    /// without work, for example because they send requests to a node, returns false.
    fn is_wakeable(&self) -> bool {
        true
    }

    /// Does a part of the work that is due. Returns [`Ran::Worked`] when more work may be left, so that the next run
    /// follows at once.
    async fn run_once(&self) -> anyhow::Result<Ran>;
}

/// All workers of a daemon, with the signal that wakes them early.
#[derive(Clone, Default)]
pub struct Workers {
    all: Arc<Vec<Arc<dyn Worker>>>,
    wake: Wake,
    heartbeats: Heartbeats,
}

impl Workers {
    /// Creates the set of workers. `wake` is the signal that ends their pauses early.
    pub fn new(all: Vec<Arc<dyn Worker>>, wake: Wake) -> Workers {
        Workers { all: Arc::new(all), wake, heartbeats: Heartbeats::default() }
    }

    /// Returns a handle to the heartbeats of the workers, through which later runs are seen, too.
    pub fn heartbeats(&self) -> Heartbeats {
        self.heartbeats.clone()
    }

    /// Starts one background loop for each worker. The loops end when `stop` is true.
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

    /// Runs all workers, one after the other, until no worker has work left. Tests and single commands use it instead
    /// of the loops. A failure of a worker is only logged, because a test may have caused it.
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

/// Runs one worker again and again until `stop` is true. Pauses after a run that found no work. After a failure the
/// pause doubles with each further failure, up to [`BACKOFF_MAX`].
async fn run_worker_loop(worker: Arc<dyn Worker>, wake: Wake, heartbeats: Heartbeats, mut stop: watch::Receiver<bool>) {
    let mut failures = 0u32;
    let mut woken = wake.subscribe();
    let name = worker.name();
    heartbeats.record_run(&name, Ok(()));
    while !*stop.borrow() {
        // A wake during the run may announce work that the run does not see. It is kept, so that it ends the pause
        // after the run.
        woken.clear_wakes_and_tell_if_any();
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
            // After a failure the wake signal is ignored, so that a failing service gets no additional requests.
            () = woken.wait_for_wake(), if failures == 0 && worker.is_wakeable() => {}
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}
