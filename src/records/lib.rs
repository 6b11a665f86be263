//! What the daemon writes down for others: events for clients, reviews and the audit log for the operator.

pub mod events;
pub mod reviews;
