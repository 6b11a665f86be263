//! The shop: merchants, catalog, stock, coupons, users, orders and fulfilment. This crate depends on `money`; `money`
//! does not depend on it.

pub mod merchants;
pub mod catalog;
pub mod stock;
pub mod coupons;
pub mod users;
pub mod orders;
pub mod fulfilment;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
