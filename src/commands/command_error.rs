//! The error with which a command ends: a message and an exit code.

use std::fmt::Display;
use std::process::ExitCode;

use crate::control::client::ClientError;
use db::file_lock::DataFolderLockError;
use db::instance_lock::InstanceLockError;

/// The reason why a command failed: one sentence for the operator and one exit code for scripts.
#[derive(Debug)]
pub struct CommandError {
    code: u8,
    /// The sentence for the operator; empty when the command already printed its findings on standard output.
    message: String,
}

impl CommandError {
    /// Returns an error with exit code 1: the command failed.
    pub fn general_error(message: impl Into<String>) -> CommandError {
        CommandError { code: 1, message: message.into() }
    }

    /// Returns an error with exit code 1 and without a message: the command already printed its findings on standard
    /// output.
    pub fn findings_error() -> CommandError {
        CommandError { code: 1, message: String::new() }
    }

    /// Returns an error with exit code 2: the arguments are wrong.
    pub fn usage_error(message: impl Into<String>) -> CommandError {
        CommandError { code: 2, message: message.into() }
    }

    /// Returns an error with exit code 3: the configuration is wrong.
    pub fn configuration_error(message: impl Into<String>) -> CommandError {
        CommandError { code: 3, message: message.into() }
    }

    /// Returns an error with exit code 4: another daemon uses the data folder or the database, or the command needs a
    /// running daemon and none runs.
    pub fn daemon_error(message: impl Into<String>) -> CommandError {
        CommandError { code: 4, message: message.into() }
    }

    /// Returns an error with exit code 1 whose message is `context`, such as the name of a file, followed by the cause.
    pub fn error_with_context(context: impl Display, cause: impl Display) -> CommandError {
        CommandError::general_error(format!("{context}: {cause}"))
    }

    /// Prints the message on standard error and returns the exit code.
    pub fn print_and_get_exit_code(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("settled: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

impl Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<config::Error> for CommandError {
    fn from(error: config::Error) -> CommandError {
        CommandError::configuration_error(error.to_string())
    }
}

impl From<db::Error> for CommandError {
    fn from(error: db::Error) -> CommandError {
        CommandError::error_with_context("database", error)
    }
}

impl From<DataFolderLockError> for CommandError {
    fn from(error: DataFolderLockError) -> CommandError {
        match &error {
            DataFolderLockError::Held { .. } => {
                CommandError::daemon_error(format!("{error}; stop that one, or name another data folder"))
            }
            DataFolderLockError::Io { .. } => CommandError::general_error(error.to_string()),
        }
    }
}

impl From<InstanceLockError> for CommandError {
    fn from(error: InstanceLockError) -> CommandError {
        match error {
            InstanceLockError::Held { .. } => CommandError::daemon_error(format!(
                "{error}; stop that one, or name another database in [database] url"
            )),
            InstanceLockError::Draining { .. } => CommandError::daemon_error(format!(
                "{error}; stop that one, or end its sessions with pg_terminate_backend"
            )),
            InstanceLockError::Io { .. } => CommandError::general_error(error.to_string()),
            InstanceLockError::Db(error) => error.into(),
        }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> CommandError {
        match &error {
            ClientError::NoDaemon(_) => CommandError::daemon_error(error.to_string()),
            ClientError::Connect { .. } | ClientError::Exchange(_) | ClientError::Malformed => {
                CommandError::general_error(error.to_string())
            }
        }
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> CommandError {
        CommandError::general_error(format!("{error:#}"))
    }
}
