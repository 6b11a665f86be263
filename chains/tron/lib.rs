//! The driver of the TRON family. It reads every transaction and receipt of the solidified blocks, so it finds a
//! payment no matter which contract made it.
//!
//! The daemon books only transfers from the solidified blocks, which `/walletsolidity` returns, because such a block is
//! irreversible. Blocks above the solidified one are read for unconfirmed transfers only. Transactions are built,
//! hashed and signed in this crate and never by a node.

pub mod abi;
pub mod address;
pub mod proto;
pub mod transaction;
pub mod transaction_costs;
pub mod simulated_calls;

mod config;
mod http_api;
mod node_errors;
mod transfers;
mod receipts;
mod block;
mod source;
mod unsolidified_blocks;
mod balances;
mod endpoint_check;
mod cross_check;
mod confirm;
mod sender;

pub use config::{BuildError, TronConfig};
pub use source::Tron;
