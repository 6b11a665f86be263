//! `GET /api/products`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{self, Error};
use crate::wire::Product;
use crate::{CURRENCY, Checkout};
use shop::catalog;
use web::reply;

#[derive(Serialize, ToSchema)]
pub struct Products {
    /// Always `true`.
    success: bool,
    products: Vec<Product>,
}

/// List all active products
///
/// Each with a single price per unit. There are no pages.
#[utoipa::path(get, path = "/api/products", tag = "Products", responses(
    (status = 200, body = Products, description = "Every active product"),
    (status = 429, body = error::Body, description = "Too many requests of this client; see `Retry-After`"),
))]
pub async fn list(State(checkout): State<Arc<Checkout>>) -> Result<Response, Error> {
    let shop = checkout.shop;
    let listed = checkout
        .db
        .read("list_products", move |tx| Box::pin(async move { catalog::list_active(tx, shop, CURRENCY).await }));
    let products = listed.await?.into_iter().map(Product::from).collect();
    Ok(reply::json(StatusCode::OK, &Products { success: true, products }))
}
