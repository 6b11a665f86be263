//! `GET` and `POST /api/orders/query`

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{self, Error};
use crate::wire::FoundOrder;
use crate::{Checkout, SURFACE};
use access::limits::Key;
use db::{self, Tx};
use ids::Shop;
use shop::orders::{self, OrderDetails, OrderLine};
use shop::stock::{self, SealedItem};
use web::body::{BadRequest, Fields};
use web::client::Client;
use web::reply;

#[derive(Serialize, ToSchema)]
pub struct Found {
    /// Always `true`.
    success: bool,
    order: FoundOrder,
}

/// The body of Query Order.
#[derive(ToSchema)]
#[schema(as = OrderQuery)]
#[expect(dead_code, reason = "it documents what `Lookup::parse` reads")]
pub struct LookupSchema {
    #[schema(rename = "orderNo")]
    order_no: String,
    #[schema(format = "email")]
    email: String,
}

struct Lookup {
    order_no: String,
    email: String,
}

impl Lookup {
    fn parse(fields: &Fields) -> Result<Lookup, BadRequest> {
        let (order_no, email) = (fields.text("orderNo")?.trim(), fields.text("email")?.trim());
        Ok(Lookup { order_no: order_no.to_owned(), email: email.to_owned() })
    }
}

/// Look an order up
///
/// By its number and the e-mail address it was made with. At most 3 requests per client and 2 per number and address within
/// 60 seconds. The delivered credentials are in the answer once the order is completed.
#[utoipa::path(get, path = "/api/orders/query", tag = "Orders",
    params(("orderNo" = String, Query, description = "Order number"),
        ("email" = String, Query, description = "The order's e-mail address, in any case")),
    responses(
        (status = 200, body = Found, description = "The order, with its credentials once it is completed"),
        (status = 400, body = error::Body, description = "`validation_error`"),
        (status = 404, body = error::Body, description = "No order with this number and address (`order_not_found`)"),
        (status = 429, body = error::Body, description = "`rate_limited`; see `Retry-After`"),
    ))]
pub async fn by_url(
    State(checkout): State<Arc<Checkout>>,
    Extension(client): Extension<Client>,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    answer(&checkout, client, Lookup::parse(&Fields::from_query(query.as_deref()))?).await
}

/// Look an order up, without its e-mail address in the URL
#[utoipa::path(post, path = "/api/orders/query", tag = "Orders", request_body = LookupSchema,
    responses(
        (status = 200, body = Found, description = "The order, with its credentials once it is completed"),
        (status = 400, body = error::Body, description = "`validation_error`"),
        (status = 404, body = error::Body, description = "No order with this number and address (`order_not_found`)"),
        (status = 429, body = error::Body, description = "`rate_limited`; see `Retry-After`"),
    ))]
pub async fn by_body(
    State(checkout): State<Arc<Checkout>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    answer(&checkout, client, Lookup::parse(&Fields::from_json(&headers, &body)?)?).await
}

/// Every look-up counts, found or not; a refused one does not.
async fn answer(checkout: &Checkout, client: Client, lookup: Lookup) -> Result<Response, Error> {
    let pair = Key::of((&lookup.order_no, orders::normalize_email(&lookup.email)));
    checkout.lookups.admit(checkout.clock.steady(), [Key::ip(client.0), pair])?;
    let shop = checkout.shop;
    let found = checkout.db.read("query_order", move |tx| Box::pin(async move { find(tx, shop, &lookup).await }));
    let (view, lines, goods) = found.await?.ok_or(Error::LookupFailed)?;
    let envelope = &checkout.envelope;
    let open = |item: SealedItem| stock::decrypt_item(envelope, &item).map(|line| line.as_str().to_owned());
    let credentials = goods.map(|goods| goods.into_iter().map(open).collect::<Result<Vec<_>, _>>()).transpose()?;
    let order = FoundOrder::new(&view, &lines, credentials);
    Ok(reply::json(StatusCode::OK, &Found { success: true, order }))
}

/// The order with what was bought and, once it is complete, what was delivered.
type Whole = (OrderDetails, Vec<OrderLine>, Option<Vec<SealedItem>>);

async fn find(tx: &mut Tx, shop: Shop, lookup: &Lookup) -> Result<Option<Whole>, db::Error> {
    let Some(view) = orders::find_by_number(tx, shop, SURFACE, &lookup.order_no, &lookup.email).await? else {
        return Ok(None);
    };
    let lines = orders::list_lines(tx, &view.order).await?;
    let goods = orders::find_delivered_items(tx, &view.order, &lines).await?;
    Ok(Some((view, lines, goods)))
}
