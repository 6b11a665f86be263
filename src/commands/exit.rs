//! How a command ends.

use std::fmt::Display;
use std::process::ExitCode;

use db::instance_lock::InstanceLockError;
use db::lock::LockError;

/// Why a command could not do what it was asked for: one sentence for people, one number for scripts.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// Empty: everything was said already.
    problem: String,
}

impl Failure {
    pub fn failed(problem: impl Into<String>) -> Failure {
        Failure { code: 1, problem: problem.into() }
    }

    /// What was found stands on standard output.
    pub fn findings() -> Failure {
        Failure { code: 1, problem: String::new() }
    }

    pub fn usage(problem: impl Into<String>) -> Failure {
        Failure { code: 2, problem: problem.into() }
    }

    pub fn configuration(problem: impl Into<String>) -> Failure {
        Failure { code: 3, problem: problem.into() }
    }

    /// Another daemon is there, or none where one is needed.
    pub fn daemon(problem: impl Into<String>) -> Failure {
        Failure { code: 4, problem: problem.into() }
    }

    pub fn while_(doing: impl Display, cause: impl Display) -> Failure {
        Failure::failed(format!("{doing}: {cause}"))
    }

    pub fn report(self) -> ExitCode {
        if !self.problem.is_empty() {
            eprintln!("settled: {}", self.problem);
        }
        ExitCode::from(self.code)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem)
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Failure {
        Failure::configuration(error.to_string())
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Failure {
        Failure::while_("database", error)
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Failure {
        match &error {
            LockError::Held { .. } => Failure::daemon(format!("{error}; stop that one, or name another data folder")),
            LockError::Io { .. } => Failure::failed(error.to_string()),
        }
    }
}

impl From<InstanceLockError> for Failure {
    fn from(error: InstanceLockError) -> Failure {
        match error {
            InstanceLockError::Held { .. } => {
                Failure::daemon(format!("{error}; stop that one, or name another database in [database] url"))
            }
            InstanceLockError::Draining { .. } => {
                Failure::daemon(format!("{error}; stop that one, or end its sessions with pg_terminate_backend"))
            }
            InstanceLockError::Db(error) => error.into(),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::failed(format!("{error:#}"))
    }
}
