//! Which surface is served under which host and prefix.

use axum::Router;
use axum::routing::any;

use config::Config;
use web::guard::Guard;
use web::health::{self, Health};
use web::host_router::HostRouter;
use web::http_error::HttpError;
use web::reference;

/// Everything that is served, behind one router. A surface without services is not mounted.
pub fn router(config: &Config, guard: &Guard, health: &Health, checkout: Option<checkout::Services>) -> Router {
    let mut hosts = HostRouter::default();
    if let Some(services) = checkout {
        let mount = &config.surfaces.checkout.mount;
        let documents = reference::routes("checkout", checkout::openapi_document(config));
        hosts.add(
            &mount.host,
            under(&mount.prefix, guard.protect(checkout::routes(services), checkout::render_http_error)),
        );
        hosts.add("", guard.protect(documents, HttpError::render_plain));
    }
    let outside = Router::new().fallback(any(async || HttpError::render_plain(HttpError::NotFound)));
    hosts.add("", guard.protect(outside, HttpError::render_plain));
    hosts.add("", health::routes(health.clone()));
    guard.with_request_log(hosts.into_router())
}

fn under(prefix: &str, router: Router) -> Router {
    if prefix.is_empty() { router } else { Router::new().nest(prefix, router) }
}
