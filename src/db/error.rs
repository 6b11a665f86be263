//! Errors of the database. Both databases return the same variants; the texts are for people and may differ. No text
//! holds a value that was bound.

use std::fmt;

/// The reason why a transaction failed, other than by an error of its own closure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was stored; the same call may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// A concurrent transaction prevented this one (deadlock, serialization failure, lock timeout). Nothing was stored;
    /// the caller may try again.
    #[error("the transaction conflicts with another one: {0}")]
    Conflict(String),
    /// A constraint of the schema was violated. Nothing was stored.
    #[error("{kind} constraint violated: {detail}")]
    Constraint { kind: Constraint, detail: String },
    /// A statement changed or returned more or fewer rows than its caller relied on.
    #[error("{found} rows were changed instead of {expected}")]
    UnexpectedRowCount { expected: u64, found: u64 },
    /// A statement that returns at most one row returned more.
    #[error("{found} rows were returned where at most one was expected")]
    TooManyRows { found: usize },
    /// The column does not exist, or its value does not have the requested type.
    #[error("column `{column}`: {reason}")]
    Value { column: String, reason: String },
    /// The database rejected a statement, or the caller used it wrongly: a bug in the program.
    #[error("the statement was rejected: {0}")]
    Statement(String),
    /// On SQLite, the closure awaited something other than its `Tx`.
    #[error("transaction `{name}` awaited something other than its database")]
    Suspended { name: &'static str },
    /// The closure panicked. Nothing was stored.
    #[error("transaction `{name}` panicked: {message}")]
    Panicked { name: &'static str, message: String },
    /// The connection or the disk failed during the commit: the changes may or may not be stored.
    #[error("the outcome of the commit is unknown: {0}")]
    CommitUnknown(String),
    /// This database, its version or its settings cannot be used.
    #[error("{0}")]
    Unsupported(String),
    /// The applied migrations are not the ones that this version knows, or a migration failed.
    #[error("migration {0}")]
    Migration(String),
}

/// The kind of a constraint of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// A primary key or a unique index.
    Unique,
    /// A reference to a row that does not exist, or the removal of a row that is referenced.
    ForeignKey,
    /// A `check` of a table or a column.
    Check,
    /// A column that must have a value is null.
    NotNull,
    /// A trigger rejected the change.
    Trigger,
}

impl Error {
    /// Returns true when a primary key or a unique index was violated.
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
