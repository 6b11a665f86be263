//! The HTTP side of the daemon: one listener, and what all surfaces share: client addresses, limits, request ids,
//! time-outs, a shape for every refusal. It names no surface and knows no business.

pub mod body;
pub mod client;
pub mod guard;
pub mod health;
pub mod host_router;
pub mod number;
pub mod reference;
pub mod http_error;
pub mod reply;
pub mod serve;
mod connection_limits;
