//! Asks HTTP nodes: several endpoints per chain, one question at a time, whoever is healthy answers.
//!
//! An answer counts only after its reader accepted it; a refused or wrong one sends the question to the next endpoint, and
//! each endpoint gets a question at most once. Nothing here knows what a block is. Paths and credentials of endpoints never
//! leave this crate: keys stand in them.

pub mod endpoint;
pub mod failure;
pub mod pool;
pub mod proof;
pub mod reply;
pub mod span;

mod health;
mod http;

pub use endpoint::{Endpoint, Role};
pub use failure::Failure;
pub use health::Limits;
pub use pool::{Config, Pool};
pub use proof::Proof;
pub use reply::{Answer, Bad, Refusal, RefusalKind, Reply};
pub use span::Span;
