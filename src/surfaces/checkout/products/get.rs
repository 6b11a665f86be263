//! `GET /api/products/{id_or_slug}`: returns one active product.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{self, Code};
use crate::wire::Product;
use crate::{CURRENCY, SharedState};
use shop::catalog;
use web::response;

/// The response with one product.
#[derive(Serialize, ToSchema)]
#[schema(as = Shown)]
pub struct ProductResponse {
    /// Always `true`.
    success: bool,
    product: Product,
}

/// The reason why no product is returned.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No active product has this id or slug.
    #[error("there is no such product")]
    NotFound,
    /// The database returned an error.
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl IntoResponse for RouteError {
    fn into_response(self) -> Response {
        match &self {
            RouteError::NotFound => error::error_response(StatusCode::NOT_FOUND, Code::ProductNotFound, &self),
            RouteError::Db(cause) => error::database_error_response(cause),
        }
    }
}

/// Get one product by its id or its slug
///
/// Only active products are found. The stock in the response may be sold by the time an order is created.
#[utoipa::path(get, operation_id = "get_product", path = "/api/products/{idOrSlug}", tag = "Products",
    params(("idOrSlug" = String, Path, min_length = 1, description = "The product's id or its slug")),
    responses(
        (status = 200, body = ProductResponse, description = "The product"),
        (status = 404, body = error::Body, description = "No such active product (`product_not_found`)"),
    ))]
pub async fn get_product(
    State(checkout): State<Arc<SharedState>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, RouteError> {
    let Path(id_or_slug) = path.map_err(|_| RouteError::NotFound)?;
    let shop = checkout.shop;
    let found = checkout.db.read("find_active_product", move |tx| {
        Box::pin(async move { catalog::find_active_priced_product(tx, shop, CURRENCY, &id_or_slug).await })
    });
    let found: Result<Option<catalog::Product>, db::Error> = found.await;
    let product = found?.ok_or(RouteError::NotFound)?.into();
    Ok(response::json_response(StatusCode::OK, &ProductResponse { success: true, product }))
}
