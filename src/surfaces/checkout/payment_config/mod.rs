//! Which ways to pay are open.

pub mod show;
