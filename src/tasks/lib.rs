//! Named background tasks. A task that panics is logged and counted.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::error;

/// Starts background tasks and counts their panics. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    /// The number of tasks that ended because of a panic.
    lost: Arc<AtomicU64>,
    /// The number of panics that the code of a task caught itself, so that the task goes on.
    caught: Arc<AtomicU64>,
}

impl Tasks {
    /// Starts a task. When the task panics, the panic is logged under `name`, the task counts as lost, and the process
    /// goes on.
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

    /// Returns the number of tasks that ended because of a panic. A lost task is not restarted, so its work is not done
    /// until the daemon restarts.
    pub fn count_lost_tasks(&self) -> u64 {
        self.lost.load(Ordering::SeqCst)
    }
}

/// A signal that wakes all workers, so that they run before their pause ends. It is only a hint: workers find their
/// work in the database.
#[derive(Clone, Default)]
pub struct Wake(Arc<watch::Sender<()>>);

/// The receiving half of a [`Wake`]. A wake that is sent while the receiver is not waiting is kept until the next wait.
pub struct WakeReceiver(watch::Receiver<()>);

impl Wake {
    /// Wakes every receiver.
    pub fn wake(&self) {
        self.0.send_replace(());
    }

    /// Returns a receiver of all later wakes.
    pub fn subscribe(&self) -> WakeReceiver {
        WakeReceiver(self.0.subscribe())
    }
}

impl WakeReceiver {
    /// Forgets all wakes that were sent until now. Returns true when at least one was sent since the last call of this
    /// function or the last wait.
    pub fn clear_wakes_and_tell_if_any(&mut self) -> bool {
        let was_woken = self.0.has_changed().unwrap_or(false);
        self.0.mark_unchanged();
        was_woken
    }

    /// Waits for a wake. Returns at once when a wake was sent after the last wait and the last
    /// [`WakeReceiver::clear_wakes_and_tell_if_any`]. Never returns when the [`Wake`] and all its clones are dropped.
    pub async fn wait_for_wake(&mut self) {
        if self.0.changed().await.is_err() {
            // All senders are dropped, so no wake can come. Wait forever instead of returning without a wake.
            std::future::pending().await
        }
    }
}
