//! Orders: created by a buyer, looked up with their number and e-mail address, followed by their id.

pub mod create;
pub mod query;
pub mod request;
pub mod status;
