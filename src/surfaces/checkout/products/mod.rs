//! The endpoints of products: list all products, and show one product.

pub mod list;
pub mod show;
