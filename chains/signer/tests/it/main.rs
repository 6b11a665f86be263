//! Tests of the signer from outside: the command line, and the addresses that other wallets derive.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod keys;
mod wallets;
