//! The HTTP side of the daemon: one listener, the surfaces by host and prefix, and what all of them share: client
//! addresses, limits, request ids, time-outs, a shape for every refusal. It knows no business.

pub mod app;
pub mod body;
pub mod client;
pub mod guard;
pub mod health;
pub mod hosts;
pub mod number;
pub mod reference;
pub mod refusal;
pub mod reply;
pub mod serve;
mod slots;

use std::sync::Arc;

use axum::Router;
use axum::routing::any;

use crate::http::guard::Guard;
use crate::http::hosts::Hosts;
use crate::http::refusal::Refusal;
use crate::surfaces::checkout;

pub use app::{App, Parts};
pub use serve::serve;

/// Everything that is served, behind one router.
pub fn router(app: &Arc<App>) -> Router {
    let guard = Guard::new(app);
    let mut hosts = Hosts::default();
    if let Some(shop) = app.checkout_shop {
        let mount = &app.config.surfaces.checkout.mount;
        let surface = checkout::routes(app.clone(), shop);
        let documents = reference::routes("checkout", checkout::document(&app.config));
        hosts.add(&mount.host, under(&mount.prefix, guard.around(surface, checkout::refuse)));
        hosts.add("", guard.around(documents, Refusal::plain));
    }
    let outside = Router::new().fallback(any(async || Refusal::plain(Refusal::NotFound)));
    hosts.add("", guard.around(outside, Refusal::plain));
    hosts.add("", health::routes(app.health.clone()));
    guard.outermost(hosts.into_router())
}

fn under(prefix: &str, router: Router) -> Router {
    if prefix.is_empty() { router } else { Router::new().nest(prefix, router) }
}
