//! Surfaces by host name. What has no host of its own is served on every one.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::response::Response;
use tower::ServiceExt;

#[derive(Default)]
pub struct HostRouter {
    everywhere: Router,
    named: BTreeMap<String, Router>,
}

impl HostRouter {
    /// An empty host is any host.
    pub fn add(&mut self, host: &str, router: Router) {
        let place = match host {
            "" => &mut self.everywhere,
            host => self.named.entry(host.to_ascii_lowercase()).or_default(),
        };
        *place = std::mem::take(place).merge(router);
    }

    pub fn into_router(self) -> Router {
        if self.named.is_empty() {
            return self.everywhere;
        }
        let everywhere = self.everywhere;
        let named = self.named.into_iter().map(|(host, router)| (host, router.merge(everywhere.clone()))).collect();
        Router::new().fallback(dispatch).with_state(std::sync::Arc::new(Named { everywhere, named }))
    }
}

struct Named {
    everywhere: Router,
    named: BTreeMap<String, Router>,
}

async fn dispatch(State(hosts): State<std::sync::Arc<Named>>, request: Request) -> Response {
    let router = hosts.named.get(&host(&request)).unwrap_or(&hosts.everywhere).clone();
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// In small letters and without a port.
fn host(request: &Request) -> String {
    let header = request.headers().get(HOST).and_then(|value| value.to_str().ok());
    let host = request.uri().host().or(header).unwrap_or("").to_ascii_lowercase();
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name.to_owned(),
        Some(_) | None => host,
    }
}
