//! Errors of the database. Both databases return the same variants; the texts are for people and may differ. No text
//! contains a value that was bound to a statement.

use std::fmt;

/// The reason why a transaction failed, except for errors that the closure of the transaction returns itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The database cannot be used now. Nothing was stored, and the same call may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// A concurrent transaction prevented this one (deadlock, serialization failure, lock timeout). Nothing was stored;
    /// the caller may try again.
    #[error("the transaction conflicts with another one: {0}")]
    Conflict(String),
    /// A constraint of the schema was violated. Nothing was stored.
    #[error("{kind} constraint violated: {detail}")]
    Constraint { kind: Constraint, detail: String },
    /// A statement changed or returned another number of rows than its caller expected.
    #[error("{found} rows were changed instead of {expected}")]
    UnexpectedRowCount { expected: u64, found: u64 },
    /// A statement that returns at most one row returned more.
    #[error("{found} rows were returned where at most one was expected")]
    TooManyRows { found: usize },
    /// The row has no column with this name, or the value of the column does not have the requested type.
    #[error("column `{column}`: {reason}")]
    Value { column: String, reason: String },
    /// The database rejected a statement, or the caller used the statement wrongly. This is a bug in the program.
    #[error("the statement was rejected: {0}")]
    Statement(String),
    /// The closure of a transaction on SQLite awaited something other than its `Tx`.
    #[error("transaction `{name}` awaited something other than its database")]
    Suspended { name: &'static str },
    /// The closure of the transaction panicked. Nothing was stored.
    #[error("transaction `{name}` panicked: {message}")]
    Panicked { name: &'static str, message: String },
    /// The connection or the disk failed during the commit: the changes may or may not be stored.
    #[error("the outcome of the commit is unknown: {0}")]
    CommitUnknown(String),
    /// This database, its version or its settings cannot be used.
    #[error("{0}")]
    Unsupported(String),
    /// The migrations in the database are not those that this version of the program knows, or a migration failed.
    #[error("migration {0}")]
    Migration(String),
}

/// The kind of a schema constraint that a change violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// Two rows have the same value in a primary key or a unique index.
    Unique,
    /// A row refers to a row that does not exist, or a row was removed to which another row refers.
    ForeignKey,
    /// A row does not fulfil a `check` condition of a table or a column.
    Check,
    /// A column that must have a value would be null.
    NotNull,
    /// A trigger of the schema rejected the change.
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
