//! The products of the shop.

pub mod list;
pub mod show;
