//! The driver of EVM chains. It detects when an endpoint omits or invents a payment.
//!
//! The driver hashes every header and links it to its parent. It checks each reply of a node against the header:
//! transactions against the transactions root, receipts against the receipts root or at least the bloom filter of the
//! logs, and native balances against the state root. For a chain on which the driver cannot recompute a hash or root,
//! the configuration switches that check off. The driver has no cursor, no database and no keys.

pub mod logs;
pub mod token_contracts;

mod block;
mod transactions;
mod receipts;
mod log_summaries;
mod trace_parser;
mod trace_requests;
mod trace_health;
mod balances;
mod finality;
mod cross_check;
mod confirm;
mod hex;
mod config;
mod endpoint_reports;
mod source;
mod sender;

pub use config::{Commitments, EvmConfig, FinalitySource, TraceApi};
pub use sender::{TxPoolError, classify_error_text};
pub use source::{Evm, EvmBuildError};
