//! `GET /api/orders/{id}/status`: returns the status of an order.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{self, Code};
use crate::wire::{self, FulfillmentStatus, PaymentStatus, Progress, Status};
use crate::{SURFACE, SharedState, ids};
use shop::orders;
use web::response;

/// The response with the status of an order. Any client that knows the id of the order can read it, so it contains no
/// data that only the buyer may see.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderStatus)]
pub struct StatusResponse {
    /// Always `true`.
    success: bool,
    order_id: String,
    status: Status,
    payment_status: PaymentStatus,
    fulfillment_status: FulfillmentStatus,
    /// The progress of the payment. Absent when the order was paid as soon as it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<Progress>,
}

/// The reason why no status is returned.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No order has this id, or the id is not a UUID.
    #[error("there is no order with this id")]
    NotFound,
    /// The database returned an error.
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl IntoResponse for RouteError {
    fn into_response(self) -> Response {
        match &self {
            RouteError::NotFound => error::error_response(StatusCode::NOT_FOUND, Code::OrderNotFound, &self),
            RouteError::Db(cause) => error::database_error_response(cause),
        }
    }
}

/// Get the status of an order
///
/// Needs no credential and may be polled. The response shows the progress of the payment and of the delivery.
#[utoipa::path(get, operation_id = "get_order_status", path = "/api/orders/{id}/status", tag = "Orders",
    params(("id" = Uuid, Path, description = "The order's id")),
    responses(
        (status = 200, body = StatusResponse, description = "The states of payment and fulfilment"),
        (status = 404, body = error::Body, description = "No such order (`order_not_found`)"),
    ))]
pub async fn get_order_status(
    State(checkout): State<Arc<SharedState>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, RouteError> {
    let id = path.ok().and_then(|Path(id)| ids::parse_hyphenated_uuid(&id)).ok_or(RouteError::NotFound)?;
    let status =
        orders::find_order_status(&checkout.db, checkout.shop, SURFACE, id).await?.ok_or(RouteError::NotFound)?;
    let response = StatusResponse {
        success: true,
        order_id: id.to_string(),
        status: status.state.into(),
        payment_status: wire::derive_payment_status(&status),
        fulfillment_status: status.state.into(),
        payment: Progress::from_order_status(&status, checkout.now(), &checkout.payment_service.assets),
    };
    Ok(response::json_response(StatusCode::OK, &response))
}
