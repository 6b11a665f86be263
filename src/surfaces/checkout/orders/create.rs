//! `POST /api/orders`: creates an order.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::auth::AuthError;
use crate::error::{self, Code};
use crate::orders::create_request::{OrderRequest, OrderRequestSchema, PaymentChoice};
use crate::{CURRENCY, SURFACE, SharedState, auth, wire};
use access::limits::{Key, Limited};
use clock::Instant;
use ids::UserId;
use money::addresses::{IssueError, ReservedAddress};
use shop::catalog::PricingScheme;
use shop::orders::OrderReference;
use shop::orders::new_payment::{PaymentInstructions, PaymentMethod, Provider};
use shop::orders::{self, CreateOrderError, NewLine, NewOrder, PlacedOrder};
use web::client::Client;
use web::fields::{BadRequest, Fields};
use web::idempotent::{self, IdempotencyKey, OperationError, Retention, Scope, StoredResponse};
use web::response;

/// The first letters of the order numbers of this surface.
const NUMBER_PREFIX: &str = "CO";
/// The time for which an idempotency key is stored, in seconds. The key of an order that is paid from a balance is
/// stored without limit.
const KEY_RETENTION_SECONDS: i64 = 24 * 60 * 60;

/// The response to a new order.
#[derive(Serialize, ToSchema)]
pub struct CreatedOrder {
    /// Always `true`, because errors have another body.
    success: bool,
    order: wire::Order,
    /// The data that the buyer needs to pay. Absent when nothing is left to pay.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<wire::Payment>,
}

/// The reason why no order was created.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A field of the request is missing or wrong.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// The client tried to create too many orders within one minute.
    #[error(transparent)]
    RateLimited(#[from] Limited),
    /// The payment method needs a logged-in user, and the request has no valid user token.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The payment method or the asset cannot be used at the moment.
    #[error("this payment method is not available at the moment")]
    MethodUnavailable,
    /// The shop refused the order, for example because too few units are in stock.
    #[error(transparent)]
    Order(#[from] CreateOrderError),
    /// The idempotency key was used with another request before.
    #[error("this Idempotency-Key was used with another request")]
    KeyReused,
    /// The database returned an error.
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl IntoResponse for RouteError {
    fn into_response(self) -> Response {
        match &self {
            RouteError::BadRequest(bad_request) => error::bad_request_response(bad_request),
            RouteError::RateLimited(limited) => error::rate_limited_response(*limited),
            RouteError::Auth(AuthError::Unauthorized) => error::unauthorized_response(&self),
            RouteError::MethodUnavailable => {
                error::error_response(StatusCode::BAD_REQUEST, Code::PaymentMethodUnavailable, &self)
            }
            RouteError::KeyReused => error::error_response(StatusCode::CONFLICT, Code::IdempotencyConflict, &self),
            RouteError::Order(refusal) => refused_order_response(refusal),
            RouteError::Auth(AuthError::Db(cause)) | RouteError::Db(cause) => error::database_error_response(cause),
        }
    }
}

/// Returns the response to an order that the shop refused. For an internal error, the response has no details; the
/// request log has them.
fn refused_order_response(refusal: &CreateOrderError) -> Response {
    let (status, code) = match refusal {
        CreateOrderError::ProductNotFound => (StatusCode::NOT_FOUND, Code::ProductNotFound),
        CreateOrderError::BadLines
        | CreateOrderError::QuantityBelowMinimum { .. }
        | CreateOrderError::QuantityAboveMaximum { .. }
        | CreateOrderError::AmountOutOfRange => (StatusCode::BAD_REQUEST, Code::ValidationError),
        CreateOrderError::InsufficientStock => (StatusCode::CONFLICT, Code::InsufficientStock),
        CreateOrderError::CouponInvalid(_) => (StatusCode::BAD_REQUEST, Code::CouponInvalid),
        CreateOrderError::MethodUnavailable | CreateOrderError::AmountBelowMinimum { .. } => {
            (StatusCode::BAD_REQUEST, Code::PaymentMethodUnavailable)
        }
        CreateOrderError::UserRequired => return error::unauthorized_response(refusal),
        CreateOrderError::InsufficientBalance => (StatusCode::PAYMENT_REQUIRED, Code::InsufficientBalance),
        CreateOrderError::Issue(IssueError::Db(cause)) | CreateOrderError::Db(cause) => {
            return error::database_error_response(cause);
        }
        CreateOrderError::Issue(_) => return error::failed_response(refusal),
    };
    error::error_response(status, code, refusal)
}

impl OperationError for RouteError {
    fn key_reused_error() -> RouteError {
        RouteError::KeyReused
    }

    fn database_error(&self) -> Option<&db::Error> {
        match self {
            RouteError::Db(error) | RouteError::Order(CreateOrderError::Db(error)) => Some(error),
            RouteError::BadRequest(_)
            | RouteError::RateLimited(_)
            | RouteError::Auth(_)
            | RouteError::MethodUnavailable
            | RouteError::Order(_)
            | RouteError::KeyReused => None,
        }
    }
}

/// Create an order
///
/// Reserves the stock for the payment window. A balance payment is taken in the same step; the order is then paid at
/// once.
#[utoipa::path(post, operation_id = "create_order", path = "/api/orders", tag = "Orders", request_body = OrderRequestSchema,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "Repeating a request with the same key and body returns the first order and creates no second one")),
    responses(
        (status = 201, body = CreatedOrder, description = "The order, and what is left to do to pay it"),
        (status = 400, body = error::Body,
            description = "`validation_error`, `payment_method_unavailable` or `coupon_invalid`"),
        (status = 401, body = error::Body, description = "A balance payment without a valid user token"),
        (status = 402, body = error::Body, description = "`insufficient_balance`"),
        (status = 404, body = error::Body, description = "`product_not_found`"),
        (status = 409, body = error::Body, description = "`insufficient_stock` or `idempotency_conflict`"),
        (status = 429, body = error::Body, description = "`rate_limited`; see `Retry-After`"),
    ),
    security((), ("user_token" = [])))]
pub async fn create_order(
    State(checkout): State<Arc<SharedState>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, RouteError> {
    checkout
        .orders
        .count_hit_unless_limited(checkout.clock.monotonic_now(), [Key::from_ipv4_or_ipv6_network(client.0)])?;
    let request = OrderRequest::parse_and_validate(&Fields::from_json(&headers, &body)?)?;
    let user = match request.payment {
        PaymentChoice::BalanceCny | PaymentChoice::BalanceCrypto => {
            Some(auth::authenticate_user(&checkout, &headers).await?)
        }
        PaymentChoice::Crypto { .. } | PaymentChoice::Alipay | PaymentChoice::Wechat => None,
    };
    let key = parse_idempotency_key(&checkout, &headers, &request, user)?;
    let (payment_service, wire_request) = (checkout.payment_service.clone(), request.clone());
    let outcome = idempotent::execute_once_per_key_with_retries(
        &checkout.db,
        &checkout.clock,
        "create_order",
        key,
        |now| reserve_address_and_build_order(&checkout, &request, user, now),
        move |tx, now, (new_order, address)| {
            Box::pin(async move {
                let created = orders::create_order(tx, now, &payment_service, new_order, address).await?;
                let body = serialize_created_order(&created, &wire_request)?;
                let is_paid = created.instructions == PaymentInstructions::AlreadyPaid;
                Ok((StoredResponse { status: StatusCode::CREATED, body }, is_paid))
            })
        },
    )
    .await?;
    if outcome.executed == Some(true) {
        checkout.wake.wake();
    }
    Ok(response::response_from_json_text(outcome.response.status, outcome.response.body))
}

/// Parses the idempotency key in the request's headers; `None` when the client sent no key. The key is stored for ever
/// when a user pays from a balance, and for a day for a guest.
fn parse_idempotency_key(
    checkout: &SharedState,
    headers: &HeaderMap,
    request: &OrderRequest,
    user: Option<UserId>,
) -> Result<Option<IdempotencyKey>, BadRequest> {
    // The scope of a guest's key contains the guest's e-mail address. Otherwise a client could guess a key and get
    // another buyer's order.
    let owner = match user {
        Some(user) => format!("user/{user}"),
        None => format!("guest/{}", const_hex::encode(Sha256::digest(orders::normalize_email(&request.email)))),
    };
    let scope = Scope { surface: SURFACE, shop: checkout.shop, operation: "orders", owner: &owner };
    let fingerprinted = serde_json::to_vec(request).map_err(|e| BadRequest::Malformed(e.to_string()))?;
    let retention = if user.is_some() { Retention::Forever } else { Retention::Seconds(KEY_RETENTION_SECONDS) };
    IdempotencyKey::from_headers(headers, &scope, &fingerprinted, retention)
        .map_err(|invalid| BadRequest::for_field("Idempotency-Key", invalid.to_string()))
}

/// Creates a new order number and returns the order to store. For an on-chain payment, reserves an address and returns
/// it, too; `None` for other payment methods.
async fn reserve_address_and_build_order(
    checkout: &SharedState,
    request: &OrderRequest,
    user: Option<UserId>,
    now: Instant,
) -> Result<(NewOrder, Option<ReservedAddress>), RouteError> {
    let reference = OrderReference::new_random(&mut rand::rng(), NUMBER_PREFIX, now);
    let external = |provider| {
        checkout.pay_links.build_external_payment_method(provider, &reference).ok_or(RouteError::MethodUnavailable)
    };
    let payment_method = match &request.payment {
        PaymentChoice::Crypto { coin } => PaymentMethod::Crypto(coin.clone()),
        PaymentChoice::BalanceCny => PaymentMethod::BalanceCny,
        PaymentChoice::BalanceCrypto => PaymentMethod::BalanceCrypto,
        PaymentChoice::Alipay => external(Provider::Alipay)?,
        PaymentChoice::Wechat => external(Provider::Wechat)?,
    };
    let address =
        checkout.payment_service.reserve_address_if_on_chain(&checkout.db, checkout.shop, &payment_method).await?;
    let new_order = NewOrder {
        reference,
        shop: checkout.shop,
        surface: SURFACE,
        currency: CURRENCY,
        pricing_scheme: PricingScheme::PerUnit,
        lines: vec![NewLine { product: request.product, quantity: request.quantity }],
        quantity_max: checkout.options.max_quantity,
        email: request.email.clone(),
        user,
        coupon: request.coupon.clone(),
        payment_method,
        window_ms: i64::try_from(checkout.options.order_window.as_millis()).unwrap_or(i64::MAX),
    };
    Ok((new_order, address))
}

/// Returns the response body for a new order as JSON text.
fn serialize_created_order(created: &PlacedOrder, request: &OrderRequest) -> Result<String, db::Error> {
    let order = wire::Order::from_placed_order(created, request.payment.payment_method());
    let payment = wire::Payment::from_instructions(created, request.payment.asset_code());
    let body = CreatedOrder { success: true, order, payment };
    serde_json::to_string(&body)
        .map_err(|e| db::Error::Statement(format!("the response to a new order cannot be serialised: {e}")))
}
