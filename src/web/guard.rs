//! What every request passes: an id, the client's address and limit, a whole body within its bounds, an answer in time, a
//! panic that harms nobody else, a line in the log.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt;
use tracing::info;
use uuid::Uuid;

use crate::client::{Client, Peer};
use crate::http_error::{ErrorRenderer, HttpError};
use access::limits::{Buckets, Key};
use clock::Clock;
use config::{IpNetwork, Server};
use tasks::Tasks;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_LENGTH_MAX: usize = 64;

/// One for all surfaces, so that their limit per client is one.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    clock: Clock,
    tasks: Tasks,
    trusted_proxies: Vec<IpNetwork>,
    requests: Buckets,
    body_bytes_max: usize,
    timeout: Duration,
}

impl Guard {
    pub fn new(server: &Server, clock: Clock, tasks: Tasks) -> Guard {
        Guard(Arc::new(Inner {
            clock,
            tasks,
            trusted_proxies: server.trusted_proxies.clone(),
            requests: Buckets::per_minute(server.requests_per_minute),
            body_bytes_max: server.body_bytes_max,
            timeout: server.request_timeout,
        }))
    }

    /// Around a surface, which says every refusal in its own shape.
    pub fn protect(&self, surface: Router, shape: ErrorRenderer) -> Router {
        // The body is bounded and read here, so that no endpoint can forget it.
        let surface = surface.layer(DefaultBodyLimit::disable());
        surface.layer(middleware::from_fn_with_state((self.clone(), shape), pass))
    }

    /// Around everything: ids, headers, the log.
    pub fn with_request_log(&self, router: Router) -> Router {
        router.layer(middleware::from_fn(record))
    }
}

async fn pass(State((guard, shape)): State<(Guard, ErrorRenderer)>, request: Request, next: Next) -> Response {
    let guard = guard.0;
    let client = client(&request, &guard.trusted_proxies);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = admitted(&guard, shape, client, request, next).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

async fn admitted(guard: &Inner, shape: ErrorRenderer, client: Client, request: Request, next: Next) -> Response {
    if let Err(limited) = guard.requests.admit(guard.clock.steady(), Key::ip(client.0)) {
        return shape(HttpError::RateLimited { after_seconds: limited.after_seconds });
    }
    let mut request = match whole(request, guard.body_bytes_max, guard.timeout).await {
        Ok(request) => request,
        Err(refusal) => return shape(refusal),
    };
    request.extensions_mut().insert(client);
    let answered = AssertUnwindSafe(tokio::time::timeout(guard.timeout, next.run(request))).catch_unwind().await;
    match answered {
        Ok(Ok(response)) => response,
        Ok(Err(_elapsed)) => shape(HttpError::TimedOut),
        Err(_panic) => {
            guard.tasks.record_panic("request");
            shape(HttpError::Panicked)
        }
    }
}

fn client(request: &Request, trusted: &[IpNetwork]) -> Client {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    Client::from_headers(peer, request.headers(), trusted)
}

/// The request with its body in memory. A body that is announced as too large is not read at all.
async fn whole(request: Request, bytes_max: usize, timeout: Duration) -> Result<Request, HttpError> {
    let (parts, body) = request.into_parts();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(HttpError::BodyTooLarge);
    }
    match tokio::time::timeout(timeout, axum::body::to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Ok(Err(e)) if is_length_limit(&e) => Err(HttpError::BodyTooLarge),
        Ok(Err(_)) | Err(_) => Err(HttpError::BodyIncomplete),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if found.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = found.source();
    }
    false
}

/// Never logs query strings, bodies or e-mail addresses: the path is logged as its template.
async fn record(mut request: Request, next: Next) -> Response {
    let started = Stopwatch::now();
    let id = request_id(&request);
    let method = request.method().clone();
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let route = response.extensions().get::<MatchedPath>().cloned();
    let (route, id_text) = (route.as_ref().map_or("-", MatchedPath::as_str), id.to_str().unwrap_or("-"));
    info!(%method, route, status, ms, request.id = id_text, "{method} {route} was answered with {status} in {ms} ms");
    set_headers(&mut response, id);
    response
}

/// A proxy's id is kept, so that its log and ours meet.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(REQUEST_ID).filter(|value| {
        let fits = (1..=REQUEST_ID_LENGTH_MAX).contains(&value.len());
        fits && value.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    });
    let draw = || HeaderValue::from_str(&Uuid::new_v4().to_string()).expect("a UUID is visible ASCII");
    given.cloned().unwrap_or_else(draw)
}

fn set_headers(response: &mut Response, id: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(nothing);
}

#[cfg(test)]
mod tests {
    use axum::routing::{any, get};
    use tower::ServiceExt;

    use super::*;

    fn guard(timeout: Duration) -> (Guard, Tasks) {
        let tasks = Tasks::default();
        let inner = Inner {
            clock: Clock::manual(clock::Instant(0)),
            tasks: tasks.clone(),
            trusted_proxies: Vec::new(),
            requests: Buckets::per_minute(600),
            body_bytes_max: 10,
            timeout,
        };
        (Guard(Arc::new(inner)), tasks)
    }

    async fn status(router: Router, body: &'static str) -> u16 {
        let request = Request::post("/").body(Body::from(body)).unwrap();
        router.oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_counted() {
        let (guard, tasks) = guard(Duration::from_secs(5));
        let surface = Router::new().route("/", any(async || -> Response { panic!("a bug") }));
        let router = guard.protect(surface, HttpError::render_plain);
        assert_eq!((status(router.clone(), "").await, status(router, "").await), (500, 500));
        assert_eq!(tasks.panicked(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_given_up() {
        let (guard, tasks) = guard(Duration::from_millis(1));
        let surface = Router::new().route("/", any(std::future::pending::<Response>));
        assert_eq!(status(guard.protect(surface, HttpError::render_plain), "").await, 503);
        assert_eq!(tasks.panicked(), 0);
    }

    #[tokio::test]
    async fn a_body_reaches_the_endpoint_whole_or_not_at_all() {
        let (guard, _) = guard(Duration::from_secs(5));
        let echo = async |body: axum::body::Bytes| if body == "0123456789" { "whole" } else { "cut" };
        let surface = Router::new().route("/", get(echo).post(echo));
        let router = guard.protect(surface, HttpError::render_plain);
        assert_eq!(status(router.clone(), "0123456789").await, 200);
        assert_eq!(status(router, "0123456789a").await, 413);
    }
}
