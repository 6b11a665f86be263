//! The checkout surface: a buyer lists products, orders without an account, pays, and looks the order up.
//!
//! Whoever knows an order's id sees how far it is; only who knows its number and e-mail address sees what was bought.

mod auth;
mod assets;
mod error;
mod external;
mod ids;
mod openapi;
mod orders;
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
use shop::orders::payment::PaymentService;
use tasks::Wake;
use web::http_error::HttpError;

use external::PayLinks;

pub use error::render_http_error;
pub use openapi::openapi_document;

/// Under this name the core knows whose orders they are.
const SURFACE: &str = "checkout";
/// The shop's prices, and therefore its orders, are in this currency.
const CURRENCY: Currency = Currency::CNY;

/// What the endpoints share.
struct Checkout {
    options: config::Checkout,
    shop: Shop,
    db: Db,
    clock: Clock,
    payment_service: Arc<PaymentService>,
    envelope: Arc<Envelope>,
    wake: Wake,
    pay_links: PayLinks,
    /// Query Order: by client, and by order number with e-mail address.
    lookups: Windows<2>,
    /// Create Order: by client.
    orders: Windows<1>,
}

impl Checkout {
    fn new(services: Services) -> Checkout {
        let Services { options, shop, db, clock, payment_service, envelope, wake } = services;
        let rule = |hits| Rule { hits, window_seconds: seconds(options.query_window) };
        Checkout {
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

/// What the daemon hands to the surface.
pub struct Services {
    pub options: config::Checkout,
    /// Whose products are sold.
    pub shop: Shop,
    pub db: Db,
    pub clock: Clock,
    pub payment_service: PaymentService,
    pub envelope: Arc<Envelope>,
    pub wake: Wake,
}

pub fn routes(services: Services) -> Router {
    Router::new()
        .route("/api/products", get(products::list::list))
        .route("/api/products/{id_or_slug}", get(products::show::show))
        .route("/api/orders", post(orders::create::create))
        .route("/api/orders/query", get(orders::query::by_url).post(orders::query::by_body))
        .route("/api/orders/{id}/status", get(orders::status::status))
        .route("/api/payment-config", get(payment_config::show::show))
        // The least specific path: what lies under `/api` and is nobody else's is answered in this surface's shape.
        .route("/api", any(nothing))
        .route("/api/", any(nothing))
        .route("/api/{*rest}", any(nothing))
        .method_not_allowed_fallback(async || render_http_error(HttpError::MethodNotAllowed))
        .with_state(Arc::new(Checkout::new(services)))
}

async fn nothing() -> Response {
    render_http_error(HttpError::NotFound)
}

fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
