//! The daemon's log on standard error, where journald and terminals read it.

use std::io::{self, IsTerminal};

use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::commands::command_error::CommandError;
use config::{Log, LogFormat};

/// Starts the log on standard error. Call this function once in each process, before the first log message.
///
/// # Errors
/// Fails when `[log] level` is not valid, and when the log was started before.
pub fn start_logging_to_stderr(log: &Log) -> Result<(), CommandError> {
    let wrong_level = |e: &dyn std::fmt::Display| CommandError::configuration_error(format!("[log] level: {e}"));
    let targets: Targets = log.level.parse().map_err(|e| wrong_level(&e))?;
    // A line that cannot be written is dropped (`log_internal_errors(false)`). The default is to report the failure on
    // standard error, which panics when the terminal or program that read standard error has gone.
    let format = match log.format {
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).log_internal_errors(false);
            layer.with_writer(io::stderr).boxed()
        }
        LogFormat::Text => {
            let layer = tracing_subscriber::fmt::layer().compact().with_target(false).log_internal_errors(false);
            layer.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).boxed()
        }
    };
    let started = tracing_subscriber::registry().with(format.with_filter(targets)).try_init();
    started.map_err(|e| CommandError::general_error(format!("the log cannot be started: {e}")))
}
