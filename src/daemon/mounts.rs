//! Mounts each surface under its host and prefix.

use axum::Router;
use axum::routing::any;

use config::Config;
use web::guard::Guard;
use web::health::{self, Health};
use web::host_router::HostRouter;
use web::http_error::HttpError;
use web::reference;

/// Returns the router of everything that is served: surfaces, their references, health. A surface without services is
/// not mounted.
pub fn build_router(config: &Config, guard: &Guard, health: &Health, checkout: Option<checkout::Services>) -> Router {
    let mut hosts = HostRouter::default();
    if let Some(services) = checkout {
        let mount = &config.surfaces.checkout.mount;
        let surface = guard.protect(checkout::routes(services), checkout::render_http_error);
        hosts.add(&mount.host, with_prefix(&mount.prefix, surface));
        let reference = reference::routes("checkout", checkout::openapi_document(config));
        hosts.add("", guard.protect(reference, HttpError::render_plain));
    }
    let not_found = Router::new().fallback(any(async || HttpError::NotFound.render_plain()));
    hosts.add("", guard.protect(not_found, HttpError::render_plain));
    hosts.add("", health::routes(health.clone()));
    guard.with_request_log(hosts.into_router())
}

fn with_prefix(prefix: &str, router: Router) -> Router {
    if prefix.is_empty() { router } else { Router::new().nest(prefix, router) }
}
