//! Money: the ledger, payments, invoices, and the deposits that pay them. This crate does not know products or orders:
//! the crate `shop` depends on it, and no statement here reads a table of the shop.

#![deny(missing_docs)]

pub mod assets;
pub mod ledger;
pub mod pricing;
pub mod addresses;
pub mod payments;
pub mod invoices;
pub mod cursors;
pub mod unconfirmed;
pub(crate) mod unclaimed;
pub mod deposits;
pub mod audit;
pub mod immutable_facts;
pub mod effects;
