//! `GET /api/products/{id_or_slug}`

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
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
pub struct Shown {
    /// Always `true`.
    success: bool,
    product: Product,
}

/// One product, by its id or its slug
#[utoipa::path(get, path = "/api/products/{idOrSlug}", tag = "Products",
    params(("idOrSlug" = String, Path, description = "The product's id or its slug")),
    responses(
        (status = 200, body = Shown, description = "The product"),
        (status = 404, body = error::Body, description = "No such active product (`product_not_found`)"),
    ))]
pub async fn show(
    State(checkout): State<Arc<Checkout>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Error> {
    let Path(id_or_slug) = path.map_err(|_| Error::ProductNotFound)?;
    let shop = checkout.shop;
    let found = checkout.db.read("find_product", move |tx| {
        Box::pin(async move { catalog::find_active(tx, shop, CURRENCY, &id_or_slug).await })
    });
    let product = found.await?.ok_or(Error::ProductNotFound)?.into();
    Ok(reply::json(StatusCode::OK, &Shown { success: true, product }))
}
