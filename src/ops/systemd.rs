//! Notifications to systemd (`sd_notify`). Without systemd they have no effect.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// Notifies systemd that the daemon serves requests.
pub fn notify_ready(status: &str) {
    send_to_systemd(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Notifies systemd that the daemon shuts down.
pub fn notify_stopping() {
    send_to_systemd(&[NotifyState::Stopping]);
}

/// Restarts the watchdog timer of systemd. When the timer ends, systemd kills and restarts the daemon.
pub fn notify_alive() {
    send_to_systemd(&[NotifyState::Watchdog]);
}

/// Returns the time within which systemd expects the next call of [`notify_alive`]; `None` when the watchdog is off.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn send_to_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("systemd cannot be notified: {error}");
    }
}
