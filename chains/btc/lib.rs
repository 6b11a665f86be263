//! The driver of the Bitcoin family. It verifies blocks, so a node could invent a payment only by mining a block.
//!
//! The driver hashes every block, checks that it follows its parent, and checks its proof of work and its commitments:
//! the roots of its transactions and of their witnesses. A node of the operator ([`Backend::Core`]) and public servers
//! ([`Backend::Esplora`]) answer the same requests, and everything above them is the same code. The driver keeps no
//! cursor, no database and no key.

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
pub use sender::{MempoolRejection, classify};
pub use source::{Backend, Bitcoin, BitcoinConfig, BuildError, Verify};
