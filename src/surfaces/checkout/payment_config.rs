//! `GET /api/payment-config`: lists the payment methods, and the coins that can be used now.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{CURRENCY, SharedState, assets};
use money::pricing::Currency;
use shop::orders::new_payment::Provider;
use web::response;

/// The response with the payment methods.
#[derive(Serialize, ToSchema)]
#[schema(as = PaymentConfig)]
pub struct PaymentConfigResponse {
    /// Always `true`.
    success: bool,
    methods: Methods,
}

/// The payment methods. For each method, `enabled` is true when buyers can use the method now.
#[derive(Serialize, ToSchema)]
struct Methods {
    crypto: Crypto,
    balance_cny: Availability,
    balance_crypto: Availability,
    alipay: Availability,
    wechat: Availability,
}

#[derive(Serialize, ToSchema)]
struct Crypto {
    enabled: bool,
    /// The codes that the field `coin` of a new order may have now.
    coins: Vec<&'static str>,
}

#[derive(Serialize, ToSchema)]
struct Availability {
    enabled: bool,
}

/// List the payment methods and coins that can be used now
///
/// The list changes while the shop runs: a coin without a fresh exchange rate is not available.
#[utoipa::path(get, operation_id = "get_payment_config", path = "/api/payment-config", tag = "Payment methods", responses(
    (status = 200, body = PaymentConfigResponse, description = "All five methods, each with its availability"),
))]
pub async fn get_payment_config(State(checkout): State<Arc<SharedState>>) -> Response {
    let now = checkout.now();
    let coins = assets::list_available_assets(&checkout, now);
    let has_rate = checkout
        .payment_service
        .rates
        .find_fresh_direct_or_crossed_rate(now, Currency::USD.as_str(), CURRENCY.as_str())
        .is_ok();
    let availability = |enabled| Availability { enabled };
    let external = |provider| availability(checkout.pay_links.is_provider_enabled(provider));
    let methods = Methods {
        crypto: Crypto { enabled: !coins.is_empty(), coins },
        balance_cny: availability(true),
        balance_crypto: availability(has_rate),
        alipay: external(Provider::Alipay),
        wechat: external(Provider::Wechat),
    };
    response::json_response(StatusCode::OK, &PaymentConfigResponse { success: true, methods })
}
