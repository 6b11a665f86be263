//! Who may call, how often, and what a repeated call is answered.

pub mod idempotency;
pub mod limits;
pub mod tokens;
