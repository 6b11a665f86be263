//! The checkout surface: buyers list products, order without an account, pay, and look their orders up.
//!
//! A client that knows the id of an order can read its status. To read its delivered items, the client must know the
//! order number and the e-mail address of the order.

mod assets;
mod auth;
mod error;
mod ids;
mod openapi;
mod orders;
mod pay_links;
mod payment_config;
mod products;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::{any, get, post};

use ::ids::Shop;
use access::limits::{Rule, Windows};
use clock::{Clock, Instant};
use db::Db;
use envelope::Envelope;
use money::pricing::Currency;
use shop::orders::new_payment::PaymentService;
use tasks::Wake;
use web::http_error::HttpError;

use pay_links::PayLinks;

pub use error::render_http_error;
pub use openapi::build_openapi_document;

/// The name of this surface in stored orders and in the scopes of idempotency keys.
const SURFACE: &str = "checkout";
/// The currency of the shop's prices and orders.
pub const CURRENCY: Currency = Currency::CNY;

/// The services and rate limits that all endpoints of this surface share.
struct SharedState {
    options: config::Checkout,
    shop: Shop,
    db: Db,
    clock: Clock,
    payment_service: Arc<PaymentService>,
    envelope: Arc<Envelope>,
    wake: Wake,
    pay_links: PayLinks,
    /// The rate limits of order look-ups: one for each client, and one for each pair of order number and e-mail
    /// address.
    lookups: Windows<2>,
    /// The rate limit of new orders, for each client.
    orders: Windows<1>,
}

impl SharedState {
    fn new(services: Services) -> SharedState {
        let Services { options, shop, db, clock, payment_service, envelope, wake } = services;
        let rule = |hits| Rule { hits, window_seconds: truncate_to_whole_seconds(options.query_window) };
        SharedState {
            shop,
            db,
            clock,
            payment_service: Arc::new(payment_service),
            envelope,
            wake,
            pay_links: PayLinks::new(&options),
            lookups: Windows::new([rule(options.query_per_ip), rule(options.query_per_pair)]),
            orders: Windows::new([Rule { hits: options.orders_per_ip_per_minute, window_seconds: 60 }]),
            options,
        }
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }
}

/// The services of the daemon that this surface uses.
pub struct Services {
    /// The section `[surfaces.checkout]` of the configuration.
    pub options: config::Checkout,
    /// The shop whose products are sold.
    pub shop: Shop,
    /// The database of the daemon.
    pub db: Db,
    /// The clock of the daemon, for payment windows and rate limits.
    pub clock: Clock,
    /// The service that issues payment addresses and plans the payments of new orders.
    pub payment_service: PaymentService,
    /// The keys that decrypt delivered items for their buyer.
    pub envelope: Arc<Envelope>,
    /// The signal that wakes the workers after a request has created an order that is already paid.
    pub wake: Wake,
}

/// Returns the routes of this surface, without the configured path prefix.
pub fn build_checkout_routes(services: Services) -> Router {
    Router::new()
        .route("/api/products", get(products::list::list_products))
        .route("/api/products/{id_or_slug}", get(products::get::get_product))
        .route("/api/orders", post(orders::create::create_order))
        .route("/api/orders/query", get(orders::query::query_order_by_url).post(orders::query::query_order_by_body))
        .route("/api/orders/{id}/status", get(orders::status::get_order_status))
        .route("/api/payment-config", get(payment_config::get_payment_config))
        // Unknown paths under `/api` return a 404 response in this surface's error format.
        .route("/api", any(respond_not_found))
        .route("/api/", any(respond_not_found))
        .route("/api/{*rest}", any(respond_not_found))
        .method_not_allowed_fallback(async || render_http_error(HttpError::MethodNotAllowed))
        .with_state(Arc::new(SharedState::new(services)))
}

async fn respond_not_found() -> Response {
    render_http_error(HttpError::NotFound)
}

/// Returns a duration as a number of whole seconds: rounded down, and at most `u32::MAX`.
fn truncate_to_whole_seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
