//! `POST /api/orders`

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::error::{self, Error};
use crate::orders::request::{OrderRequest, OrderRequestSchema, Payment};
use crate::{CURRENCY, Checkout, SURFACE, auth, wire};
use access::idempotency::{self, Answer, Call, Claim, KEY_LENGTH_MAX, Keep};
use access::limits::Key;
use clock::Instant;
use db::{self, Tx};
use ids::UserId;
use money::addresses::ReservedAddress;
use shop::catalog::PricingScheme;
use shop::orders::OrderReference;
use shop::orders::payment::{PaymentInstructions, PaymentMethod, PaymentService, Provider};
use shop::orders::{self, NewLine, NewOrder};
use web::body::{BadRequest, Fields};
use web::client::Client;
use web::reply;

const NUMBER_PREFIX: &str = "CO";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const KEEP_KEYS_SECONDS: i64 = 24 * 60 * 60;
/// Two orders may want the same rows in opposite order; one of them is asked to try again, and this is how often it does.
const ATTEMPTS_MAX: usize = 4;

#[derive(Serialize, ToSchema)]
pub struct CreatedOrder {
    /// Always `true`.
    success: bool,
    order: wire::Order,
    /// Absent when nothing is left to pay.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<wire::Payment>,
}

/// Create an order
///
/// Reserves the stock for the payment window. A balance payment is taken in the same step; the order is then paid at once.
#[utoipa::path(post, path = "/api/orders", tag = "Orders", request_body = OrderRequestSchema,
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Repeating a request with the same key and body answers the first order and makes no second one")),
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
pub async fn create(
    State(checkout): State<Arc<Checkout>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    checkout.orders.admit(checkout.clock.steady(), [Key::ip(client.0)])?;
    let wanted = OrderRequest::parse(&Fields::from_json(&headers, &body)?)?;
    let user = match wanted.payment {
        Payment::BalanceCny | Payment::BalanceCrypto => Some(auth::user(&checkout, &headers).await?),
        Payment::Crypto { .. } | Payment::Alipay | Payment::Wechat => None,
    };
    let call = call(&checkout, &headers, &wanted, user)?;
    let Ordered { answer, is_paid } = order(&checkout, &wanted, user, call).await?;
    if is_paid {
        checkout.wake.wake();
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::CREATED);
    Ok(reply::json_text(status, answer.body))
}

struct Ordered {
    answer: Answer,
    /// Paid by this very call: there are goods to hand out.
    is_paid: bool,
}

/// The call that a repetition would repeat, if the client named it.
fn call(
    checkout: &Checkout,
    headers: &HeaderMap,
    wanted: &OrderRequest,
    user: Option<UserId>,
) -> Result<Option<Call>, Error> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let visible = key.to_str().ok().filter(|key| (1..=KEY_LENGTH_MAX).contains(&key.len()));
    let problem = "must be 1 to 255 visible ASCII characters";
    let key = visible.ok_or_else(|| BadRequest::field("Idempotency-Key", problem))?;
    let shop = checkout.shop;
    // Strangers share no keys: whoever guesses one learns nothing of the order that was made with it.
    let owner = match user {
        Some(user) => format!("user/{user}"),
        None => format!("guest/{}", const_hex::encode(Sha256::digest(orders::normalize_email(&wanted.email)))),
    };
    let scope = format!("{SURFACE}/{}/{}/orders/{owner}", shop.merchant, shop.mode.as_str());
    let body = serde_json::to_vec(wanted).map_err(|e| BadRequest::Malformed(e.to_string()))?;
    Ok(Some(Call::new(scope, key, &body)))
}

async fn order(
    checkout: &Checkout,
    wanted: &OrderRequest,
    user: Option<UserId>,
    call: Option<Call>,
) -> Result<Ordered, Error> {
    let mut attempts = 1;
    loop {
        let (now, payment_service, call) = (checkout.now(), checkout.payment_service.clone(), call.clone());
        let (new, wanted) = (new_order(checkout, wanted, user, now)?, wanted.clone());
        let db = &checkout.db;
        let address = payment_service.reserve_address(db, new.shop, &new.payment_method).await?;
        let ordered = db.write("create_order", move |tx| {
            Box::pin(async move { once(tx, now, &payment_service, new, address, &wanted, call).await })
        });
        match ordered.await {
            Err(Error::Db(db::Error::Conflict(_)) | Error::Order(orders::CreateError::Db(db::Error::Conflict(_))))
                if attempts < ATTEMPTS_MAX =>
            {
                attempts += 1;
            }
            answered => return answered,
        }
    }
}

fn new_order(
    checkout: &Checkout,
    wanted: &OrderRequest,
    user: Option<UserId>,
    now: Instant,
) -> Result<NewOrder, Error> {
    let labels = OrderReference::generate(&mut rand::rng(), NUMBER_PREFIX, now);
    let external = |provider| checkout.pay_links.open(provider, &labels).ok_or(Error::MethodUnavailable);
    let means = match &wanted.payment {
        Payment::Crypto { coin } => PaymentMethod::Crypto(coin.clone()),
        Payment::BalanceCny => PaymentMethod::BalanceCny,
        Payment::BalanceCrypto => PaymentMethod::BalanceCrypto,
        Payment::Alipay => external(Provider::Alipay)?,
        Payment::Wechat => external(Provider::Wechat)?,
    };
    let options = &checkout.options;
    Ok(NewOrder {
        reference: labels,
        shop: checkout.shop,
        surface: SURFACE,
        currency: CURRENCY,
        pricing_scheme: PricingScheme::PerUnit,
        lines: vec![NewLine { product: wanted.product, quantity: wanted.quantity }],
        quantity_max: options.max_quantity,
        email: wanted.email.clone(),
        user,
        coupon: wanted.coupon.clone(),
        payment_method: means,
        window_ms: i64::try_from(options.order_window.as_millis()).unwrap_or(i64::MAX),
    })
}

/// The order and the answer to it, or the answer that the same call got before.
async fn once(
    tx: &mut Tx,
    now: Instant,
    payment_service: &PaymentService,
    new: NewOrder,
    address: Option<ReservedAddress>,
    wanted: &OrderRequest,
    call: Option<Call>,
) -> Result<Ordered, Error> {
    let keep = match new.user {
        Some(_) => Keep::ForEver,
        None => Keep::Until(now.plus_seconds(KEEP_KEYS_SECONDS)),
    };
    let claimed = match call {
        None => None,
        Some(call) => match idempotency::claim(tx, now, keep, &call).await? {
            Claim::Same(answer) => return Ok(Ordered { answer, is_paid: false }),
            Claim::Mismatch => return Err(Error::IdempotencyConflict),
            Claim::New(claimed) => Some(claimed),
        },
    };
    let created = orders::create(tx, now, payment_service, new, address).await?;
    let answer = Answer { status: StatusCode::CREATED.as_u16(), body: written(&created, wanted)? };
    if let Some(claimed) = claimed {
        claimed.keep(tx, &answer).await?;
    }
    Ok(Ordered { answer, is_paid: created.instructions == PaymentInstructions::AlreadyPaid })
}

fn written(created: &orders::PlacedOrder, wanted: &OrderRequest) -> Result<String, db::Error> {
    let order = wire::Order::new(created, wanted.payment.method());
    let payment = wire::Payment::new(created, wanted.payment.coin());
    let body = CreatedOrder { success: true, order, payment };
    serde_json::to_string(&body).map_err(|e| db::Error::Statement(format!("an answer could not be written: {e}")))
}
