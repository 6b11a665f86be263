//! Which surface is served under which host and prefix.

use axum::Router;
use axum::routing::any;

use config::Config;
use web::guard::Guard;
use web::health::{self, Health};
use web::hosts::Hosts;
use web::reference;
use web::refusal::Refusal;

/// Everything that is served, behind one router. A surface without services is not mounted.
pub fn router(config: &Config, guard: &Guard, health: &Health, checkout: Option<checkout::Services>) -> Router {
    let mut hosts = Hosts::default();
    if let Some(services) = checkout {
        let mount = &config.surfaces.checkout.mount;
        let documents = reference::routes("checkout", checkout::document(config));
        hosts.add(&mount.host, under(&mount.prefix, guard.around(checkout::routes(services), checkout::refuse)));
        hosts.add("", guard.around(documents, Refusal::plain));
    }
    let outside = Router::new().fallback(any(async || Refusal::plain(Refusal::NotFound)));
    hosts.add("", guard.around(outside, Refusal::plain));
    hosts.add("", health::routes(health.clone()));
    guard.outermost(hosts.into_router())
}

fn under(prefix: &str, router: Router) -> Router {
    if prefix.is_empty() { router } else { Router::new().nest(prefix, router) }
}
