//! Chooses the surface by the request's host name. A surface without a host of its own is served on every host.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::response::Response;
use tower::ServiceExt;

/// The routers of all surfaces, by host name.
#[derive(Default)]
pub struct HostRouter {
    every_host: Router,
    by_host: BTreeMap<String, Router>,
}

impl HostRouter {
    /// Adds the routes of a surface. A surface with an empty `host` is served on every host.
    pub fn add_surface(&mut self, host: &str, routes: Router) {
        let router = match host {
            "" => &mut self.every_host,
            host => self.by_host.entry(host.to_ascii_lowercase()).or_default(),
        };
        *router = std::mem::take(router).merge(routes);
    }

    /// Returns one router that serves every surface on its host. On a host without surfaces of its own, only the
    /// surfaces without a host are served.
    pub fn into_router(self) -> Router {
        if self.by_host.is_empty() {
            return self.every_host;
        }
        let every_host = self.every_host;
        let by_host = self.by_host.into_iter().map(|(host, router)| (host, router.merge(every_host.clone())));
        let hosts = RoutersByHost { by_host: by_host.collect(), every_host };
        Router::new().fallback(route_by_host).with_state(Arc::new(hosts))
    }
}

/// The complete router of each host. The router of a named host also serves the surfaces without a host of their own.
struct RoutersByHost {
    every_host: Router,
    by_host: BTreeMap<String, Router>,
}

async fn route_by_host(State(hosts): State<Arc<RoutersByHost>>, request: Request) -> Response {
    let router = hosts.by_host.get(&request_host_name(&request)).unwrap_or(&hosts.every_host).clone();
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Returns the request's host name in lower case and without a port; empty when the request has no host.
fn request_host_name(request: &Request) -> String {
    let header = request.headers().get(HOST).and_then(|value| value.to_str().ok());
    let host = request.uri().host().or(header).unwrap_or("").to_ascii_lowercase();
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name.to_owned(),
        Some(_) | None => host,
    }
}
