//! `GET /api/products`: lists all active products.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error;
use crate::wire::Product;
use crate::{CURRENCY, SharedState};
use shop::catalog;
use web::response;

/// The response with all products.
#[derive(Serialize, ToSchema)]
#[schema(as = Products)]
pub struct ProductsResponse {
    /// Always `true`.
    success: bool,
    products: Vec<Product>,
}

/// The reason why no products are returned.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The database returned an error.
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl IntoResponse for RouteError {
    fn into_response(self) -> Response {
        match self {
            RouteError::Db(cause) => error::database_error_response(&cause),
        }
    }
}

/// List all active products
///
/// Each product has one price per unit, whatever the quantity. The list is not paged.
#[utoipa::path(get, operation_id = "list_products", path = "/api/products", tag = "Products", responses(
    (status = 200, body = ProductsResponse, description = "Every active product"),
    (status = 429, body = error::Body, description = "Too many requests of this client; see `Retry-After`"),
))]
pub async fn list_products(State(checkout): State<Arc<SharedState>>) -> Result<Response, RouteError> {
    let shop = checkout.shop;
    let products = checkout.db.read("list_active_products", move |tx| {
        Box::pin(async move { catalog::list_active_priced_products(tx, shop, CURRENCY).await })
    });
    let products: Result<Vec<catalog::Product>, db::Error> = products.await;
    let products = products?.into_iter().map(Product::from).collect();
    Ok(response::json_response(StatusCode::OK, &ProductsResponse { success: true, products }))
}
