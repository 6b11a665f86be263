//! The keys of settled, and the only crate that ever sees them.
//!
//! A [`seed::Seed`] lives in memory that is wiped when it is dropped; at rest it is a [`seed_file::SeedFile`]. Everything
//! else of settled works from the account xpubs that [`seed::Seed::account_xpub`] gives out. Nothing here opens a socket,
//! reads an environment variable for a secret, or prints one, except the words of a new seed, once.

pub mod accounts;
pub mod keys;
pub mod seed;
pub mod seed_file;
mod terminal;
