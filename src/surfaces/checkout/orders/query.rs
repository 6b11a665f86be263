//! `GET` and `POST /api/orders/query`: look an order up by its number and e-mail address.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{self, Code};
use crate::wire::FoundOrder;
use crate::{SURFACE, SharedState};
use access::limits::{Key, Limited};
use db::{self, Tx};
use envelope::DecryptError;
use ids::Shop;
use shop::orders::{self, OrderDetails, OrderLine};
use shop::stock::{self, SealedItem};
use web::client::Client;
use web::fields::{BadRequest, Fields};
use web::response;

/// The response to an order look-up.
#[derive(Serialize, ToSchema)]
#[schema(as = Found)]
pub struct OrderResponse {
    /// Always `true`.
    success: bool,
    order: FoundOrder,
}

/// The JSON body of the operation Query Order.
#[derive(ToSchema)]
#[schema(as = OrderQuery)]
#[expect(dead_code, reason = "it documents what `Lookup::parse_lookup` parses")]
pub struct LookupSchema {
    #[schema(rename = "orderNo", min_length = 1)]
    order_no: String,
    /// The order's e-mail address, in any case.
    #[schema(format = "email", min_length = 1)]
    email: String,
}

/// The order number and the e-mail address by which a client finds an order.
struct Lookup {
    order_no: String,
    email: String,
}

impl Lookup {
    /// Parses the required fields `orderNo` and `email`, without surrounding whitespace.
    fn parse_lookup(fields: &Fields) -> Result<Lookup, BadRequest> {
        let (order_no, email) = (fields.required_text("orderNo")?.trim(), fields.required_text("email")?.trim());
        Ok(Lookup { order_no: order_no.to_owned(), email: email.to_owned() })
    }
}

/// The reason why no order is returned.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A field of the request is missing or wrong.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// The client looked up too many orders, or this pair of order number and e-mail address was looked up too often.
    #[error(transparent)]
    RateLimited(#[from] Limited),
    /// No order has this number, or the order has another e-mail address. The response is the same in both cases.
    #[error("there is no order with this number and e-mail address")]
    NotFound,
    /// The database returned an error.
    #[error(transparent)]
    Db(#[from] db::Error),
    /// A delivered item cannot be decrypted.
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
}

impl IntoResponse for RouteError {
    fn into_response(self) -> Response {
        match &self {
            RouteError::BadRequest(bad_request) => error::bad_request_response(bad_request),
            RouteError::RateLimited(limited) => error::rate_limited_response(*limited),
            RouteError::NotFound => error::error_response(StatusCode::NOT_FOUND, Code::OrderNotFound, &self),
            RouteError::Db(cause) => error::database_error_response(cause),
            RouteError::Decrypt(_) => error::failed_response(&self),
        }
    }
}

/// Look an order up
///
/// Finds an order by its number and its e-mail address. At most 3 requests per client and 2 per number and address are
/// allowed within 60 seconds. The response has the delivered credentials once the order is completed.
#[utoipa::path(get, operation_id = "query_order_by_url", path = "/api/orders/query", tag = "Orders",
    params(("orderNo" = String, Query, min_length = 1, description = "Order number"),
        ("email" = String, Query, min_length = 1, description = "The order's e-mail address, in any case")),
    responses(
        (status = 200, body = OrderResponse, description = "The order, with its credentials once it is completed"),
        (status = 400, body = error::Body, description = "`validation_error`"),
        (status = 404, body = error::Body, description = "No order with this number and address (`order_not_found`)"),
        (status = 429, body = error::Body, description = "`rate_limited`; see `Retry-After`"),
    ))]
pub async fn query_order_by_url(
    State(checkout): State<Arc<SharedState>>,
    Extension(client): Extension<Client>,
    RawQuery(query): RawQuery,
) -> Result<Response, RouteError> {
    find_and_decrypt_order_within_limits(
        &checkout,
        client,
        Lookup::parse_lookup(&Fields::from_query(query.as_deref()))?,
    )
    .await
}

/// Look an order up, without its e-mail address in the URL
///
/// Does the same as the look-up by URL, and shares its limits. URLs are often logged; bodies are not.
#[utoipa::path(post, operation_id = "query_order_by_body", path = "/api/orders/query", tag = "Orders", request_body = LookupSchema,
    responses(
        (status = 200, body = OrderResponse, description = "The order, with its credentials once it is completed"),
        (status = 400, body = error::Body, description = "`validation_error`"),
        (status = 404, body = error::Body, description = "No order with this number and address (`order_not_found`)"),
        (status = 429, body = error::Body, description = "`rate_limited`; see `Retry-After`"),
    ))]
pub async fn query_order_by_body(
    State(checkout): State<Arc<SharedState>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, RouteError> {
    find_and_decrypt_order_within_limits(&checkout, client, Lookup::parse_lookup(&Fields::from_json(&headers, &body)?)?)
        .await
}

/// Finds an order, decrypts its delivered items and returns the response. Every look-up counts towards both rate limits
/// (per client, and per order number and e-mail address), also when it finds no order. Only a look-up that a rate limit
/// refuses does not count.
async fn find_and_decrypt_order_within_limits(
    checkout: &SharedState,
    client: Client,
    lookup: Lookup,
) -> Result<Response, RouteError> {
    let pair = Key::from_subject((&lookup.order_no, orders::normalize_email(&lookup.email)));
    checkout
        .lookups
        .count_hit_unless_limited(checkout.clock.monotonic_now(), [Key::from_ipv4_or_ipv6_network(client.0), pair])?;
    let shop = checkout.shop;
    let found = checkout.db.read("find_order_with_goods", move |tx| {
        Box::pin(async move { find_order_with_delivered_items(tx, shop, &lookup).await })
    });
    let found: Result<_, db::Error> = found.await;
    let OrderWithItems { details, lines, items } = found?.ok_or(RouteError::NotFound)?;
    let envelope = &checkout.envelope;
    let decrypt = |item: SealedItem| stock::decrypt_stock_item(envelope, &item).map(|line| line.as_str().to_owned());
    let credentials = items.map(|items| items.into_iter().map(decrypt).collect::<Result<Vec<_>, _>>()).transpose()?;
    let order = FoundOrder::from_order_details(&details, &lines, credentials);
    Ok(response::json_response(StatusCode::OK, &OrderResponse { success: true, order }))
}

/// An order with its lines and its delivered items, which are still encrypted. The items are `None` until the order is
/// completed.
struct OrderWithItems {
    details: OrderDetails,
    lines: Vec<OrderLine>,
    items: Option<Vec<SealedItem>>,
}

/// Returns the order with this number and e-mail address, its lines and its delivered items, which are still encrypted;
/// `None` when this surface of the shop has no such order.
async fn find_order_with_delivered_items(
    tx: &mut Tx,
    shop: Shop,
    lookup: &Lookup,
) -> Result<Option<OrderWithItems>, db::Error> {
    let Some(details) =
        orders::find_order_by_number_and_email(tx, shop, SURFACE, &lookup.order_no, &lookup.email).await?
    else {
        return Ok(None);
    };
    let lines = orders::list_order_lines(tx, &details.order).await?;
    let items = orders::find_sealed_items_if_delivered(tx, &details.order, &lines).await?;
    Ok(Some(OrderWithItems { details, lines, items }))
}
