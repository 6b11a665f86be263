//! The driver of the TRON family. It reads every transaction and receipt of the solidified blocks, so it finds a
//! payment no matter which contract made it.
//!
//! The daemon books only what `/walletsolidity` returns, because a solidified block is irreversible. Blocks above the
//! solidified one are read for unconfirmed transfers only. Transactions are built, hashed and signed in this crate and
//! never by a node.

pub mod abi;
pub mod address;
pub mod proto;
pub mod transaction;
pub mod resources;

mod block;
mod heads;
mod reader;
mod receipts;
mod send;
mod source;
mod wire;

pub use source::{BuildError, Tron, TronConfig};
