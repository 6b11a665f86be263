//! The endpoint of the available payment methods.

pub mod show;
