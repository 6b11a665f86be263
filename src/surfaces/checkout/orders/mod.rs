//! The endpoints of orders: create an order, look an order up by its number and e-mail address, and read the status of
//! an order by its id.

pub mod create;
pub mod query;
pub mod create_request;
pub mod status;
