//! The HTTP server of the daemon, and the code that all surfaces share: client addresses, limits, request ids,
//! timeouts, errors, idempotency keys, OpenAPI pages. It contains no surface and no business rules.

pub mod serve;
mod connection_limits;
pub mod guard;
pub mod client;
pub mod cors;
pub mod http_error;
pub mod host_router;
pub mod body;
pub mod fields;
pub mod failure;
pub mod idempotent;
pub mod response;
pub mod number;
pub mod health;
pub mod api_reference;
