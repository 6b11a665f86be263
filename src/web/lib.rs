//! The HTTP side of the daemon: one listener, and what all surfaces share: client addresses, limits, request ids,
//! time-outs, a shape for every refusal. It names no surface and knows no business.

pub mod body;
pub mod client;
pub mod guard;
pub mod health;
pub mod hosts;
pub mod number;
pub mod reference;
pub mod refusal;
pub mod reply;
pub mod serve;
mod slots;
