//! The driver of Bitcoin and its test networks. It verifies every block, so a dishonest node could invent a payment
//! only by mining a valid block.
//!
//! For each block, the driver computes the hash and checks the parent, the proof of work, and the Merkle roots of the
//! transactions and of their witnesses. The blocks come from the operator's node ([`Backend::Core`]) or from public
//! servers ([`Backend::Esplora`]); the driver verifies both in the same way. The driver has no database and no keys.

pub mod transaction;
pub mod block;
pub mod fees;

mod core;
mod esplora;
mod recent_blocks;
mod mempool;
mod sender;
mod source;
mod proof_of_work;

pub use block::AddressType;
pub use sender::{MempoolRejection, classify_error_text};
pub use source::{Backend, Bitcoin, BitcoinConfig, BuildError, Verify};
