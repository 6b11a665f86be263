//! Access to the surfaces: access tokens of users, rate limits, and idempotency keys.

pub mod idempotency;
pub mod limits;
pub mod tokens;
