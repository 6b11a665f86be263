//! The payment methods that can be used now.

pub mod show;
