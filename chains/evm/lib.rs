//! The driver of EVM chains. It detects when an endpoint omits or invents a payment.
//!
//! The driver hashes every header and links it to its parent. It checks each answer against the commitments of the
//! header: the transactions root, the receipts root and the bloom of the logs, and native balances against the state
//! root. For a chain whose commitments cannot be recomputed, the configuration switches the check off. The driver has
//! no cursor, no database and no keys.

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
pub use sender::{TxPoolError, classify_error_text};
pub use source::{Evm, EvmBuildError};
