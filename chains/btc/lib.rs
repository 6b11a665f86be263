//! The Bitcoin family, read so that a node cannot invent a payment without the work that Bitcoin asks for.
//!
//! Every block is hashed, linked to its parent, held against its own proof of work and against what it commits to: the
//! root of its transactions and of their witnesses. A node of one's own ([`Access::Core`]) and public servers
//! ([`Access::Esplora`]) answer the same questions, so that everything above them is one reading. Nothing here keeps a
//! cursor, a database or a key.

pub mod raw;
pub mod block;
pub mod fees;

mod core;
mod esplora;
mod memory;
mod pool;
mod send;
mod source;
mod work;

pub use send::{Class, classify};
pub use source::{Access, Bitcoin, BitcoinConfig, BuildError, Kind, Verify};
