//! What a transaction may end with besides its own refusal. Both databases answer with the same variants; the texts are
//! for people and may differ. No text holds a value that was bound.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was stored; the same call may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Another transaction was in the way (deadlock, serialization, lock timeout). Nothing was stored; try again.
    #[error("the transaction met a conflicting one: {0}")]
    Conflict(String),
    #[error("{kind} constraint violated: {detail}")]
    Constraint { kind: Constraint, detail: String },
    /// A counted change met more or fewer rows: the state was not what the caller believed.
    #[error("{found} rows were changed instead of {expected}")]
    Changed { expected: u64, found: u64 },
    #[error("{found} rows where at most one can be")]
    TooManyRows { found: usize },
    #[error("column `{column}`: {reason}")]
    Value { column: String, reason: String },
    /// The database refused a statement, or it was used wrongly. A bug, not a state.
    #[error("the statement was refused: {0}")]
    Statement(String),
    #[error("transaction `{name}` waited for something else than its database")]
    Suspended { name: &'static str },
    #[error("transaction `{name}` panicked: {message}")]
    Panicked { name: &'static str, message: String },
    /// The connection or the disk failed during the commit: the transaction may or may not be stored.
    #[error("the outcome of the commit is unknown: {0}")]
    CommitUnknown(String),
    /// This database, or this version of it, cannot be used.
    #[error("{0}")]
    Unsupported(String),
    #[error("migration {0}")]
    Migration(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    Unique,
    ForeignKey,
    Check,
    NotNull,
    /// A trigger refused the change.
    Trigger,
}

impl Error {
    pub fn is_unique(&self) -> bool {
        matches!(self, Error::Constraint { kind: Constraint::Unique, .. })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Constraint::Unique => "unique",
            Constraint::ForeignKey => "foreign key",
            Constraint::Check => "check",
            Constraint::NotNull => "not null",
            Constraint::Trigger => "trigger",
        })
    }
}
