//! The signals SIGTERM and SIGINT, with which an operator or systemd stops the daemon.

use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::ops::systemd;

/// Installs handlers for SIGTERM and SIGINT, and returns a future that completes when a signal arrives. The caller
/// installs them before it opens anything, so that a signal during the start also leads to an orderly shutdown.
///
/// # Errors
/// Fails when the signal handlers cannot be installed.
pub fn catch_shutdown_signals() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        systemd::notify_stopping();
        info!("received {name}: running requests are completed, then the database is closed");
    })
}
