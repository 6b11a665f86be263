//! The signer as operators and other wallets meet it.

#![expect(clippy::unwrap_used, reason = "a test may panic, and so may what it is told with")]

mod keys;
mod wallets;
