//! Serves each surface under its host and path prefix, and finds the shop whose products the surface sells.

use axum::Router;
use axum::routing::any;

use config::Config;
use db::Db;
use ids::Shop;
use shop::merchants;
use web::api_reference;
use web::cors;
use web::guard::Guard;
use web::health::{self, Health};
use web::host_router::HostRouter;
use web::http_error::HttpError;

/// Returns the router of the daemon: the surfaces, their API references and the health endpoints. The checkout surface
/// is left out when `checkout` is `None`.
pub fn build_http_router(
    config: &Config,
    guard: &Guard,
    health: &Health,
    checkout: Option<checkout::Services>,
) -> Router {
    let mut hosts = HostRouter::default();
    if let Some(services) = checkout {
        let mount = &config.surfaces.checkout.mount;
        let surface = guard.protect_surface(checkout::build_checkout_routes(services), checkout::render_http_error);
        let surface = cors::allow_origins(surface, &config.surfaces.checkout.cors_origins);
        hosts.add_surface(&mount.host, nest_under_prefix(&mount.prefix, surface));
        let reference = api_reference::build_reference_routes("checkout", checkout::build_openapi_document(config));
        hosts.add_surface("", guard.protect_surface(reference, HttpError::render_plain_error));
    }
    let not_found = Router::new().fallback(any(async || HttpError::NotFound.render_plain_error()));
    hosts.add_surface("", guard.protect_surface(not_found, HttpError::render_plain_error));
    hosts.add_surface("", guard.require_valid_host(health::build_health_routes(health.clone())));
    guard.add_request_log_and_headers(hosts.into_router())
}

fn nest_under_prefix(prefix: &str, router: Router) -> Router {
    if prefix.is_empty() { router } else { Router::new().nest(prefix, router) }
}

/// Returns the shop whose products a surface sells; `None` when the surface is disabled or the merchant does not exist.
pub async fn find_shop_of_enabled_surface(db: &Db, mount: &config::Mount) -> anyhow::Result<Option<Shop>> {
    if !mount.enabled {
        return Ok(None);
    }
    let (slug, mode) = (mount.merchant.clone(), mount.mode);
    let merchant = db
        .read("find_merchant_by_slug", move |tx| {
            Box::pin(async move { merchants::find_merchant_by_slug(tx, &slug).await })
        })
        .await?;
    Ok(merchant.map(|merchant| Shop { merchant: merchant.id, mode }))
}
