//! Named background tasks. A task that panics is counted and reported, never lost silently.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tracing::error;

#[derive(Debug, Clone, Default)]
pub struct Tasks {
    panicked: Arc<AtomicU64>,
}

impl Tasks {
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let panicked = self.panicked.clone();
        tokio::spawn(async move {
            if std::panic::AssertUnwindSafe(future).catch_unwind().await.is_err() {
                panicked.fetch_add(1, Ordering::SeqCst);
                error!(task = name, "task {name} panicked");
            }
        })
    }

    /// A panic that somebody else caught, such as that of one request.
    pub fn record_panic(&self, place: &'static str) {
        self.panicked.fetch_add(1, Ordering::SeqCst);
        error!(place, "a {place} panicked");
    }

    pub fn panicked(&self) -> u64 {
        self.panicked.load(Ordering::SeqCst)
    }
}
