//! Records that every part of the daemon may write: events for API clients, reviews for the operator to decide, and the
//! audit log of the actions of operators.

pub mod events;
pub mod reviews;
pub mod audit_log;
