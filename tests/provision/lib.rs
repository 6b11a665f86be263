//! Starts the real parts that the tests need, on free ports, and ends them with the test.
//!
//! Nothing is skipped silently: a part that cannot be had is an [`Error`] whose sentence says what is missing and what to do.
//! What is downloaded or compiled lives under `target/provision`, once for all tests, and survives until `cargo clean`.

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

/// Why a part could not be provided or did not answer as asked: a sentence for the person who runs the tests.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(sentence: impl Into<String>) -> Error {
        Error(sentence.into())
    }

    /// Wraps a cause: `while` reads as "starting anvil", "reading /path".
    fn context(doing: impl std::fmt::Display, cause: impl std::fmt::Display) -> Error {
        Error(format!("{doing}: {cause}"))
    }
}
