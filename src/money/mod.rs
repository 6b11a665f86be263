//! Money: the ledger, what a payment asks, what reached us. `money` knows no goods; whoever sells reads it.

pub mod coins;
pub mod ledger;
pub mod pricing;
pub mod addresses;
pub mod payments;
pub mod invoices;
pub mod sightings;
pub mod deposits;
pub mod pinned;
