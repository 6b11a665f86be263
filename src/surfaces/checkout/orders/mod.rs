//! The endpoints of orders: create an order, look it up by its number and e-mail address, and read its status by its
//! id.

pub mod create;
pub mod query;
pub mod request;
pub mod status;
