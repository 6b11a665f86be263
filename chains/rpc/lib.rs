//! Asks HTTP nodes: several endpoints per chain, one question at a time, whoever is healthy answers.
//!
//! An answer counts only after its reader accepted it; a refused or wrong one sends the question to the next endpoint, and
//! each endpoint gets a question at most once. Nothing here knows what a block is. Paths and credentials of endpoints never
//! leave this crate: keys stand in them.

pub mod endpoint;
pub mod error;
pub mod pool;
pub mod chain_check;
pub mod reply;
pub mod adaptive_size;

mod health;
mod http;

pub use adaptive_size::AdaptiveSize;
pub use chain_check::ChainCheck;
pub use endpoint::{Endpoint, Role};
pub use error::RpcError;
pub use health::Limits;
pub use pool::{Config, Pool};
pub use reply::{Answer, Refusal, RefusalKind, Rejection, Reply};
