//! What a daemon says of its work, on standard error: journald and terminals read it there.

use std::io::{self, IsTerminal};

use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::commands::exit::CommandError;
use config::{Log, LogFormat};

/// Once per process, before anything is logged.
pub fn start(log: &Log) -> Result<(), CommandError> {
    let refused = |e: &dyn std::fmt::Display| CommandError::configuration(format!("[log] level: {e}"));
    let targets: Targets = log.level.parse().map_err(|e| refused(&e))?;
    let format = match log.format {
        LogFormat::Json => tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
        LogFormat::Text => {
            let layer = tracing_subscriber::fmt::layer().compact().with_target(false);
            layer.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).boxed()
        }
    };
    let started = tracing_subscriber::registry().with(format.with_filter(targets)).try_init();
    started.map_err(|e| CommandError::failed(format!("logs cannot be written: {e}")))
}
