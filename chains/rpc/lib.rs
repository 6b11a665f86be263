//! Sends requests to the HTTP nodes of a chain through a pool of several endpoints per chain.
//!
//! A reply counts only after the caller's closure has accepted it; after an error or an invalid reply the next endpoint
//! gets the request. This crate has no notion of blocks. Paths and credentials of endpoints never leave it, because
//! they contain keys.

pub mod endpoint;
pub mod request;
pub mod reply;
pub mod error;
pub mod pool;
pub mod chain_check;
pub mod adaptive_size;

mod health;
mod http;

pub use adaptive_size::AdaptiveSize;
pub use chain_check::ChainCheck;
pub use endpoint::{Endpoint, Role};
pub use error::RpcError;
pub use health::Limits;
pub use pool::{Config, Pool};
pub use reply::{NodeError, NodeErrorKind, Rejection, Reply, Verdict};
pub use request::{Request, Target};
