//! The TRON family: solidified blocks read whole, so that no payment is omitted whatever contract made it.
//!
//! What the daemon books comes from `/walletsolidity`, a view that never changes its mind; head blocks are looked at for
//! unconfirmed only. Transactions are built, hashed and signed here; no node is trusted to do it.

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
