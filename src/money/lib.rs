//! Money: the ledger, what a payment asks, what reached us. `money` knows no goods; whoever sells reads it.

pub mod assets;
pub mod ledger;
pub mod pricing;
pub mod addresses;
pub mod payments;
pub mod invoices;
pub mod unconfirmed;
pub mod deposits;
pub mod immutable_facts;
