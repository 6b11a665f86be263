//! The driver of Bitcoin and its test networks. It verifies every block, so a dishonest node could invent a payment
//! only by mining a valid block.
//!
//! For each block, the driver computes the hash and checks the parent, the proof of work, and the Merkle roots of the
//! transactions and of their witnesses. The blocks come from the operator's node ([`Backend::Core`]) or from public
//! servers ([`Backend::Esplora`]); the driver verifies both in the same way. The driver has no database and no keys.

pub mod fees;

mod config;
mod hashes;
mod transaction;
mod paid_output;
mod coinbase;
mod merkle_roots;
pub mod block;
mod proof_of_work;
mod recent_blocks;
mod bitcoin_core;
mod esplora;
mod mempool;
mod source;
mod endpoint_check;
mod sender;

pub use config::{Backend, BitcoinConfig, BuildError, Verify};
pub use paid_output::AddressType;
pub use sender::{MempoolRejection, classify_error_text};
pub use source::Bitcoin;
