//! Money: the ledger, payments, the invoices that they ask for on a chain, and the deposits that arrive. `money` knows no goods
//! and no orders.

pub mod assets;
pub mod ledger;
pub mod pricing;
pub mod addresses;
pub mod payments;
pub mod invoices;
pub mod unconfirmed;
pub mod deposits;
pub mod immutable_facts;
pub mod effects;
