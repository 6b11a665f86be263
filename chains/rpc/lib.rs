//! The endpoint pool, which sends the requests of a driver to the HTTP nodes of a chain.
//!
//! The pool returns a reply only after the caller's closure has accepted the reply. After an error or an invalid reply,
//! the next endpoint gets the request. This crate parses no blocks. Paths and credentials of endpoints never leave this
//! crate, because they contain keys.

pub mod endpoint;
pub mod request;
pub mod reply;
pub mod error;
pub mod pool;
pub mod adaptive_size;

mod health;
mod block_origins;
mod provider;
mod rate_limits;
mod http;

pub use adaptive_size::AdaptiveSize;
pub use block_origins::BlockOrigins;
pub use endpoint::{Endpoint, Role};
pub use error::RpcError;
pub use pool::{ChainCheck, Config, Pool};
pub use provider::Provider;
pub use rate_limits::RateLimits;
pub use reply::{NodeError, NodeErrorKind, Rejection, Reply, Verdict};
pub use request::{Request, Target};
