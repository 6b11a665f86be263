//! The shop: catalog, stock, coupons, users, orders and fulfilment. It uses `money`; `money` does not know it.

pub mod merchants;
pub mod catalog;
pub mod stock;
pub mod coupons;
pub mod users;
pub mod orders;
pub mod fulfilment;

#[cfg(test)]
mod fixture;
