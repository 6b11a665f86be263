//! Starts the external programs that tests need (nodes, PostgreSQL, scripts) on free ports, and stops them with the test.
//!
//! No test is skipped silently: a missing program is an [`Error`] that says what is missing and what to do. Downloads and
//! compiled files are stored under `target/provision`, shared by all tests, until `cargo clean`.

pub mod anvil;
pub mod bitcoind;
pub mod contracts;
pub mod node;
pub mod wallet;
pub mod postgres;
pub mod python;

mod npm;
mod paths;
mod process;

/// The error for a program that cannot be provided or that returned an unexpected reply. Its text is addressed to the
/// person who runs the tests.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(sentence: impl Into<String>) -> Error {
        Error(sentence.into())
    }

    /// Returns an error with a cause. `action` is what failed, such as "starting anvil" or "reading /path".
    fn context(action: impl std::fmt::Display, cause: impl std::fmt::Display) -> Error {
        Error(format!("{action}: {cause}"))
    }
}
