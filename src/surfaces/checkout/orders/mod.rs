//! Orders: made, looked up by their buyer, followed by anybody who knows their id.

pub mod create;
pub mod query;
pub mod request;
pub mod status;
