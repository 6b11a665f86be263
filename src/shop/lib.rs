//! The shop: what is sold, to whom, and what they get. It reads and asks `money`; `money` knows nothing of it.

pub mod merchants;
pub mod catalog;
pub mod stock;
pub mod coupons;
pub mod users;
pub mod orders;
pub mod fulfilment;

#[cfg(test)]
mod fixture;
