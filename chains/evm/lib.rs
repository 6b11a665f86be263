//! The EVM family, read so that a node cannot omit or invent a payment unnoticed.
//!
//! Every header is hashed, linked to its parent and held against what it commits to: the transactions root, the receipts
//! root, the bloom of its logs; coins that addresses hold are held against its state root. Where a chain's commitments cannot be
//! recomputed its configuration says so. Nothing here keeps a cursor, a database or a key.

pub mod logs;

mod balances;
mod block;
mod config;
mod finality;
mod hex;
mod internal;
mod cross_check;
mod ranges;
mod reader;
mod receipts;
mod send;
mod trace_health;
mod source;
mod trace;

pub use config::{EvmConfig, Finality, Trace, Verify};
pub use send::{Class, classify};
pub use source::{BuildError, Evm};
