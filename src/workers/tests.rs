use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::workers::{Ran, Worker, Workers};
use tasks::{Tasks, Wake};

/// The maximum time to wait for a run. A woken worker runs at once.
const LIMIT: Duration = Duration::from_secs(30);

/// A worker that pauses for an hour after each run, and reports its runs. During its first run it is woken.
struct WokenDuringRun {
    wake: Wake,
    runs: AtomicUsize,
    report: mpsc::UnboundedSender<usize>,
}

#[async_trait]
impl Worker for WokenDuringRun {
    fn name(&self) -> String {
        "probe".into()
    }

    fn idle_pause(&self) -> Duration {
        Duration::from_secs(3_600)
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        if run == 1 {
            self.wake.wake();
        }
        self.report.send(run)?;
        Ok(Ran::Idle)
    }
}

#[tokio::test]
async fn a_wake_during_a_run_is_not_lost() {
    let (wake, tasks) = (Wake::default(), Tasks::default());
    let (report, mut runs) = mpsc::unbounded_channel();
    let worker = WokenDuringRun { wake: wake.clone(), runs: AtomicUsize::new(0), report };
    let workers = Workers::new(vec![Arc::new(worker)], wake.clone());
    let (stop, stopped) = watch::channel(false);
    let loops = workers.spawn_worker_loops(&tasks, &stopped);
    let mut next = async || tokio::time::timeout(LIMIT, runs.recv()).await.expect("the worker runs").unwrap();
    assert_eq!(next().await, 1);
    assert_eq!(next().await, 2, "it was woken during its first run");
    wake.wake();
    assert_eq!(next().await, 3);
    stop.send_replace(true);
    for ended in loops {
        ended.await.unwrap();
    }
    assert_eq!(runs.try_recv().ok(), None, "no wake, no further run");
}
