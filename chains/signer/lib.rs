//! Handles private keys. No other crate of settled has access to them.
//!
//! A [`seed::Seed`] is kept in memory that is wiped when it is dropped, and on disk as a [`seed_file::SeedFile`]. The
//! rest of settled uses only the account xpubs that [`seed::Seed::derive_account_xpub`] returns. This crate opens no socket,
//! takes no secret from an environment variable, and prints none, except the words of a new seed, once.

pub mod accounts;
pub mod keys;
pub mod seed;
pub mod seed_file;
mod terminal;
