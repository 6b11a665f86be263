//! How a command ends.

use std::fmt::Display;
use std::process::ExitCode;

use db::instance_lock::InstanceLockError;
use db::file_lock::DataFolderLockError;

/// Why a command could not do what it was asked for: one sentence for people, one number for scripts.
#[derive(Debug)]
pub struct CommandError {
    code: u8,
    /// Empty: everything was said already.
    problem: String,
}

impl CommandError {
    pub fn failed(problem: impl Into<String>) -> CommandError {
        CommandError { code: 1, problem: problem.into() }
    }

    /// What was found stands on standard output.
    pub fn findings() -> CommandError {
        CommandError { code: 1, problem: String::new() }
    }

    pub fn usage(problem: impl Into<String>) -> CommandError {
        CommandError { code: 2, problem: problem.into() }
    }

    pub fn configuration(problem: impl Into<String>) -> CommandError {
        CommandError { code: 3, problem: problem.into() }
    }

    /// Another daemon is there, or none where one is needed.
    pub fn daemon(problem: impl Into<String>) -> CommandError {
        CommandError { code: 4, problem: problem.into() }
    }

    pub fn with_context(doing: impl Display, cause: impl Display) -> CommandError {
        CommandError::failed(format!("{doing}: {cause}"))
    }

    pub fn report(self) -> ExitCode {
        if !self.problem.is_empty() {
            eprintln!("settled: {}", self.problem);
        }
        ExitCode::from(self.code)
    }
}

impl Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem)
    }
}

impl From<config::Error> for CommandError {
    fn from(error: config::Error) -> CommandError {
        CommandError::configuration(error.to_string())
    }
}

impl From<db::Error> for CommandError {
    fn from(error: db::Error) -> CommandError {
        CommandError::with_context("database", error)
    }
}

impl From<DataFolderLockError> for CommandError {
    fn from(error: DataFolderLockError) -> CommandError {
        match &error {
            DataFolderLockError::Held { .. } => {
                CommandError::daemon(format!("{error}; stop that one, or name another data folder"))
            }
            DataFolderLockError::Io { .. } => CommandError::failed(error.to_string()),
        }
    }
}

impl From<InstanceLockError> for CommandError {
    fn from(error: InstanceLockError) -> CommandError {
        match error {
            InstanceLockError::Held { .. } => {
                CommandError::daemon(format!("{error}; stop that one, or name another database in [database] url"))
            }
            InstanceLockError::Draining { .. } => {
                CommandError::daemon(format!("{error}; stop that one, or end its sessions with pg_terminate_backend"))
            }
            InstanceLockError::Io { .. } => CommandError::failed(error.to_string()),
            InstanceLockError::Db(error) => error.into(),
        }
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> CommandError {
        CommandError::failed(format!("{error:#}"))
    }
}
