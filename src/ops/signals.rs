//! The signals with which an operator or systemd stops the daemon, and SIGHUP.

use std::io::{self, IsTerminal};

use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::ops::systemd;

/// Installs handlers for SIGTERM, SIGINT and SIGHUP, and returns a future that completes when a signal asks for the
/// shutdown. The caller installs them before it opens anything, so that a signal during the start also leads to an
/// orderly shutdown.
///
/// SIGHUP stops the daemon only if standard input is a terminal, because the terminal was then closed. Otherwise SIGHUP
/// is only logged: there is nothing to reload, because the configuration is read at the start and the log goes to
/// standard error.
///
/// # Errors
/// Fails when the signal handlers cannot be installed.
pub fn catch_shutdown_signals() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let has_terminal = io::stdin().is_terminal();
    Ok(async move {
        let name = loop {
            tokio::select! {
                _ = terminate.recv() => break "SIGTERM",
                _ = interrupt.recv() => break "SIGINT",
                _ = hangup.recv() => {
                    if has_terminal {
                        break "SIGHUP";
                    }
                    info!("received SIGHUP: nothing is reloaded; restart the daemon to use a changed configuration");
                }
            }
        };
        systemd::notify_stopping();
        info!("received {name}: running requests are completed, then the database is closed");
    })
}
