//! The end of the last run of each worker, and the time since which its runs fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The last run of each worker, by the name of the worker. The supervisor and `settled status` read it.
#[derive(Clone, Default)]
pub struct Heartbeats(Arc<Mutex<BTreeMap<String, LastRun>>>);

/// The end and the error of the last run of one worker.
struct LastRun {
    /// The time at which the run ended.
    ended: Instant,
    /// The error of the last run, and the time at which the runs began to fail; `None` when the last run succeeded.
    failing: Option<(String, Instant)>,
}

/// The state of one worker, as `/readyz` and `settled status` report it.
pub struct Heartbeat {
    /// The time since the end of the last run.
    pub since_end: Duration,
    /// The error of the last run, and the time since the runs began to fail; `None` when the last run succeeded.
    pub failing: Option<(String, Duration)>,
}

impl Heartbeats {
    /// Returns every worker that has been started, with its name and its state.
    pub fn list_by_worker(&self) -> Vec<(String, Heartbeat)> {
        let heartbeats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let to_heartbeat = |(name, kept): (&String, &LastRun)| {
            let failing = kept.failing.as_ref().map(|(why, since)| (why.clone(), since.elapsed()));
            (name.clone(), Heartbeat { since_end: kept.ended.elapsed(), failing })
        };
        heartbeats.iter().map(to_heartbeat).collect()
    }

    /// Records the end of a run of this worker, and its error. While runs fail in a row, the time of the first failure
    /// is kept.
    pub(super) fn record_run(&self, worker: &str, outcome: Result<(), &anyhow::Error>) {
        let mut heartbeats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = Instant::now();
        let since = heartbeats.get(worker).and_then(|kept| kept.failing.as_ref()).map_or(ended, |(_, since)| *since);
        let failing = outcome.err().map(|error| (format!("{error:#}"), since));
        heartbeats.insert(worker.to_owned(), LastRun { ended, failing });
    }
}
