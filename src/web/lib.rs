//! The HTTP side of the daemon: the listener, and everything that all surfaces share: client addresses, limits, request
//! ids, timeouts, error formats, idempotency keys, OpenAPI pages. It names no surface and has no business rules.

pub mod serve;
mod connection_limits;
pub mod guard;
pub mod client;
pub mod http_error;
pub mod host_router;
pub mod body;
pub mod idempotent;
pub mod response;
pub mod number;
pub mod health;
pub mod reference;
