//! Named background tasks. A task that panics is counted and reported, never lost silently.

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

#[derive(Debug, Clone, Default)]
pub struct Tasks {
    lost: Arc<AtomicU64>,
    caught: Arc<AtomicU64>,
}

impl Tasks {
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let lost = self.lost.clone();
        tokio::spawn(async move {
            if std::panic::AssertUnwindSafe(future).catch_unwind().await.is_err() {
                lost.fetch_add(1, Ordering::SeqCst);
                error!(task = name, "task {name} panicked");
            }
        })
    }

    /// A panic that somebody else caught, such as that of one request.
    pub fn record_panic(&self, place: &'static str) {
        self.caught.fetch_add(1, Ordering::SeqCst);
        error!(place, "a {place} panicked");
    }

    /// Panics of all kinds.
    pub fn panicked(&self) -> u64 {
        self.lost() + self.caught.load(Ordering::SeqCst)
    }

    /// Tasks that a panic ended: what they did is not done any more.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::SeqCst)
    }
}

/// Wakes every worker early; a hint, never the only record of work.
#[derive(Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    pub fn wake(&self) {
        self.0.notify_waiters();
    }

    /// Returns when [`Wake::wake`] is called after this call.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}
