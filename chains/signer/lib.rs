//! Contains the private keys of settled and the program `settled-signer`, which manages them. No other crate has access
//! to private keys.
//!
//! A [`seed::Seed`] is kept in memory that is wiped when the seed is dropped, and on disk as a [`seed_file::SeedFile`].
//! Other crates use only the account xpubs that [`accounts::KeyAccount::derive_xpub`] returns. This crate opens no
//! socket, takes no secret from an environment variable, and prints no secret except the words of a new seed, once.

pub mod keys_args;
pub mod keys_command;
pub mod accounts;
pub mod seed;
pub mod seed_file;
mod passphrase;
mod secret_input;
