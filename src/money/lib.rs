//! Money: the ledger, payments and invoices, and the deposits that pay them. `money` knows no goods: the shop uses it, and it
//! reads no table of the shop.

pub mod assets;
pub mod ledger;
pub mod pricing;
pub mod addresses;
pub mod payments;
pub mod invoices;
pub mod unconfirmed;
pub mod deposits;
pub mod audit;
pub mod immutable_facts;
pub mod effects;
