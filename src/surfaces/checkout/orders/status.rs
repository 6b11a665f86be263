//! `GET /api/orders/{id}/status`

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{self, Error};
use crate::wire::{self, FulfillmentStatus, PaymentStatus, Progress, Status};
use crate::{Checkout, SURFACE, ids};
use shop::orders;
use web::reply;

/// Needs no credential, so that it holds nothing that only the buyer may see.
#[derive(Serialize, ToSchema)]
pub struct OrderStatus {
    /// Always `true`.
    success: bool,
    order_id: String,
    status: Status,
    payment_status: PaymentStatus,
    fulfillment_status: FulfillmentStatus,
    /// Absent when the order was paid at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<Progress>,
}

/// How far one order is
#[utoipa::path(get, path = "/api/orders/{id}/status", tag = "Orders",
    params(("id" = String, Path, description = "The order's id")),
    responses(
        (status = 200, body = OrderStatus, description = "The states of payment and fulfilment"),
        (status = 404, body = error::Body, description = "No such order (`order_not_found`)"),
    ))]
pub async fn status(
    State(checkout): State<Arc<Checkout>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Error> {
    let id = path.ok().and_then(|Path(id)| ids::parse(&id)).ok_or(Error::OrderNotFound)?;
    let standing = orders::find_status(&checkout.db, checkout.shop, SURFACE, id).await?.ok_or(Error::OrderNotFound)?;
    let answer = OrderStatus {
        success: true,
        order_id: id.to_string(),
        status: standing.state.into(),
        payment_status: wire::payment_status(&standing),
        fulfillment_status: standing.state.into(),
        payment: Progress::new(&standing, checkout.now(), &checkout.payment_service.assets),
    };
    Ok(reply::json(StatusCode::OK, &answer))
}
