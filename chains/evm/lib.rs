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
mod cross_check;
mod log_ranges;
mod receipts;
mod call_traces;
mod trace_health;
mod internal_transfers;
mod block_reader;
mod source;
mod sender;

pub use config::{Commitments, EvmConfig, FinalitySource, TraceApi};
pub use sender::{TxPoolError, classify};
pub use source::{BuildError, Evm};
