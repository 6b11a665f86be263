//! Named background tasks. A task that panics is logged and counted.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::error;

/// Starts tasks and counts panics. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    /// Tasks that a panic ended.
    lost: Arc<AtomicU64>,
    /// Panics that a caller caught and counted.
    caught: Arc<AtomicU64>,
}

impl Tasks {
    /// Starts a task. When it panics, the panic is logged under `name`.
    #[expect(clippy::disallowed_methods, reason = "all other code spawns through this function")]
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let lost = self.lost.clone();
        tokio::spawn(async move {
            if std::panic::AssertUnwindSafe(future).catch_unwind().await.is_err() {
                lost.fetch_add(1, Ordering::SeqCst);
                error!(task = name, "task {name} panicked");
            }
        })
    }

    /// Counts a panic that the caller caught and logs, such as that of one request.
    pub fn count_caught_panic(&self) {
        self.caught.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the number of all panics.
    pub fn count_panics(&self) -> u64 {
        self.count_lost_tasks() + self.caught.load(Ordering::SeqCst)
    }

    /// Returns the number of tasks that a panic ended. Their work is not done any more.
    pub fn count_lost_tasks(&self) -> u64 {
        self.lost.load(Ordering::SeqCst)
    }
}

/// Wakes all workers before their next turn. It is a hint only: workers find their work in the database.
#[derive(Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Wakes every task that waits in [`Wake::wait_for_wake`].
    pub fn wake(&self) {
        self.0.notify_waiters();
    }

    /// Waits until [`Wake::wake`] is called.
    pub async fn wait_for_wake(&self) {
        self.0.notified().await;
    }
}
