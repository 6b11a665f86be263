//! Records that any part of the daemon may write: events for API clients, reviews and the audit log for the operator.

pub mod events;
pub mod reviews;
pub mod audit_log;
