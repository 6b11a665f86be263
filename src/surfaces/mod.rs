//! The surfaces: translators between an HTTP contract and the verbs of the shop. No surface knows another one.

pub mod checkout;
