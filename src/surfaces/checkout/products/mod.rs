//! The endpoints of products: list all products, and get one product.

pub mod list;
pub mod get;
