//! The middleware around every surface. It assigns request ids, finds the client's address, limits requests, body sizes
//! and times, catches panics, sets security headers, and logs requests.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Stopwatch};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Version};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt;
use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;

use crate::body;
use crate::client::{self, Client, Peer};
use crate::failure::{self, OutageLog};
use crate::http_error::{ErrorRenderer, HttpError};
use access::limits::{Buckets, Key};
use clock::Clock;
use config::{IpNetwork, Server};
use tasks::Tasks;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_LENGTH_MAX: usize = 64;
/// Time that the body of a request may still take to arrive after the daemon began to stop. A body that was sent
/// completely arrives within a few round trips; a client that has not sent it must not delay the stop.
const BODY_TIME_AFTER_STOP: Duration = Duration::from_secs(1);

/// The middleware. All surfaces share one value, so that the rate limit per client counts requests to all surfaces
/// together.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    clock: Clock,
    tasks: Tasks,
    trusted_proxies: Vec<IpNetwork>,
    requests: Buckets,
    body_bytes_max: usize,
    timeout: Duration,
    outage_log: OutageLog,
    /// True after the warning about an untrusted proxy was logged.
    warned_of_proxy: AtomicBool,
    stop: watch::Receiver<bool>,
}

impl Guard {
    /// Creates the middleware with the limits of the configuration. The value in `stop` becomes true when the daemon
    /// begins to stop.
    pub fn new(server: &Server, clock: Clock, tasks: Tasks, stop: watch::Receiver<bool>) -> Guard {
        Guard(Arc::new(Inner {
            clock,
            tasks,
            trusted_proxies: server.trusted_proxies.clone(),
            requests: Buckets::with_hits_per_minute(server.requests_per_minute),
            body_bytes_max: server.body_bytes_max,
            timeout: server.request_timeout,
            outage_log: OutageLog::default(),
            warned_of_proxy: AtomicBool::new(false),
            stop,
        }))
    }

    /// Wraps a surface: adds the rate limit, the limits of body size and time, and the handling of panics. `render`
    /// turns an error of the middleware into a response in the surface's error format.
    pub fn protect_surface(&self, surface: Router, render: ErrorRenderer) -> Router {
        // The middleware limits and reads the body, so axum's own limit for endpoints is switched off.
        let surface = surface.layer(DefaultBodyLimit::disable());
        surface.layer(middleware::from_fn_with_state((self.clone(), render), find_client_and_call_within_limits))
    }

    /// Wraps routes that belong to no surface and need no limits: requests whose `Host` header is missing or invalid
    /// get an error response.
    pub fn require_valid_host(&self, routes: Router) -> Router {
        routes.layer(middleware::from_fn(refuse_invalid_host))
    }

    /// Wraps the whole router: adds request ids, security headers and the request log.
    pub fn add_request_log_and_headers(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), assign_id_log_and_set_headers))
    }
}

async fn find_client_and_call_within_limits(
    State((guard, render)): State<(Guard, ErrorRenderer)>,
    request: Request,
    next: Next,
) -> Response {
    let guard = guard.0;
    let peer = find_peer(&request);
    let client = Client::from_headers(peer, request.headers(), &guard.trusted_proxies);
    warn_once_of_untrusted_proxy(&guard, peer, &request);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = call_endpoint_limited_catching_panics(&guard, render, client, request, next).await;
    // The request log takes the route from the response. A response that the middleware created itself would have none.
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

async fn call_endpoint_limited_catching_panics(
    guard: &Inner,
    render: ErrorRenderer,
    client: Client,
    request: Request,
    next: Next,
) -> Response {
    if !has_acceptable_host_header(&request) {
        return render(HttpError::HostInvalid);
    }
    if let Err(limited) =
        guard.requests.count_hit_unless_limited(guard.clock.monotonic_now(), Key::from_ipv4_or_ipv6_network(client.0))
    {
        return render(HttpError::RateLimited { after_seconds: limited.after_seconds });
    }
    let (parts, body) = request.into_parts();
    let mut request = match receive_body_before_timeout_or_stop(guard, body).await {
        Ok(body) => Request::from_parts(parts, Body::from(body)),
        Err(error) => return render(error),
    };
    request.extensions_mut().insert(client);
    let outcome = AssertUnwindSafe(tokio::time::timeout(guard.timeout, next.run(request))).catch_unwind().await;
    match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(_elapsed)) => render(HttpError::TimedOut),
        Err(_panic) => {
            guard.tasks.count_caught_panic();
            failure::build_failure_response_with_cause(render, "the endpoint panicked", None)
        }
    }
}

fn find_peer(request: &Request) -> IpAddr {
    request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip())
}

/// Warns once that a peer forwards requests and is not trusted, because all clients behind such a proxy share one rate
/// limit.
fn warn_once_of_untrusted_proxy(guard: &Inner, peer: IpAddr, request: &Request) {
    let is_untrusted = client::is_forwarded_by_untrusted_peer(peer, request.headers(), &guard.trusted_proxies);
    if is_untrusted && !guard.warned_of_proxy.swap(true, Ordering::Relaxed) {
        let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("-");
        warn!(
            request.id = id,
            "{peer} sends X-Forwarded-For, but is not in server.trusted_proxies, so the header is ignored: if {peer} is \
             your proxy, all its clients share one rate limit; add its network to server.trusted_proxies"
        );
    }
}

async fn refuse_invalid_host(request: Request, next: Next) -> Response {
    if has_acceptable_host_header(&request) {
        next.run(request).await
    } else {
        HttpError::HostInvalid.render_plain_error()
    }
}

/// Returns true when the request has exactly one `Host` header, which is empty or a valid host with an optional port.
/// HTTP/1.0 also allows a request without the header.
fn has_acceptable_host_header(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() < Version::HTTP_11,
        // An empty value is valid, for clients that do not know their host.
        (Some(host), None) => host.is_empty() || is_host_with_optional_port(host),
        (Some(_), Some(_)) => false,
    }
}

fn is_host_with_optional_port(host: &HeaderValue) -> bool {
    Authority::try_from(host.as_bytes()).is_ok_and(|authority| !authority.as_str().contains('@'))
}

/// Reads the body of a request, of at most `server.body_bytes_max` bytes. Fails when the body has not arrived after
/// `server.request_timeout_ms`, or one second after the daemon began to stop.
async fn receive_body_before_timeout_or_stop(guard: &Inner, body: Body) -> Result<Vec<u8>, HttpError> {
    let mut stop = guard.stop.clone();
    let stopped = async move {
        // An error means that the sender was dropped, which also happens only when the daemon ends.
        let _dropped = stop.wait_for(|stop| *stop).await.is_err();
        tokio::time::sleep(BODY_TIME_AFTER_STOP).await;
    };
    tokio::select! {
        received = body::read_bounded_body(body, guard.body_bytes_max) => received,
        () = tokio::time::sleep(guard.timeout) => Err(HttpError::BodyTimedOut),
        () = stopped => Err(HttpError::ShuttingDown),
    }
}

/// Assigns an id to the request, calls the next handler, logs the request, and sets the headers of the response. The
/// log contains the route instead of the path, no query string and no body, because they may contain personal data.
async fn assign_id_log_and_set_headers(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let started = Stopwatch::now();
    let id = take_valid_request_id_or_create(&request);
    let method = request.method().clone();
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let route = response.extensions().get::<MatchedPath>().cloned();
    let (route, id_text) = (route.as_ref().map_or("-", MatchedPath::as_str), id.to_str().unwrap_or("-"));
    info!(%method, route, status, ms, request.id = id_text, "{method} {route}: status {status} after {ms} ms");
    guard.0.outage_log.log_failure_once_per_outage(guard.0.clock.monotonic_now(), &response, id_text);
    set_id_and_security_headers(&mut response, id);
    response
}

/// Returns the request id of the proxy, so that the logs of the proxy and of the daemon have the same id. Returns a new
/// id when the request has none, or one that is too long or has other characters than letters, digits, `-`, `_` and
/// `.`.
fn take_valid_request_id_or_create(request: &Request) -> HeaderValue {
    let from_proxy = request.headers().get(REQUEST_ID).filter(|value| {
        let fits = (1..=REQUEST_ID_LENGTH_MAX).contains(&value.len());
        fits && value.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    });
    let new_id = || HeaderValue::from_str(&Uuid::new_v4().to_string()).expect("a UUID is visible ASCII");
    from_proxy.cloned().unwrap_or_else(new_id)
}

fn set_id_and_security_headers(response: &mut Response, id: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let no_sources = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(no_sources);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use axum::body::Bytes;
    use axum::routing::any;
    use tower::ServiceExt;

    use super::*;

    fn new_guard(timeout: Duration) -> (Guard, Tasks) {
        let tasks = Tasks::default();
        let inner = Inner {
            clock: Clock::manual(clock::Instant(0)),
            tasks: tasks.clone(),
            trusted_proxies: Vec::new(),
            requests: Buckets::with_hits_per_minute(600),
            body_bytes_max: 10,
            timeout,
            outage_log: OutageLog::default(),
            warned_of_proxy: AtomicBool::new(false),
            stop: watch::channel(false).1,
        };
        (Guard(Arc::new(inner)), tasks)
    }

    async fn post_body(router: Router, body: impl Into<Body>) -> Response {
        router.oneshot(Request::post("/").header(HOST, "a").body(body.into()).unwrap()).await.unwrap()
    }

    async fn post_and_read_status(router: Router, body: &'static str) -> u16 {
        post_body(router, body).await.status().as_u16()
    }

    #[tokio::test]
    async fn a_panic_gets_a_response_and_is_counted() {
        let (guard, tasks) = new_guard(Duration::from_secs(5));
        let surface = Router::new().route("/", any(async || -> Response { panic!("a bug") }));
        let router = guard.protect_surface(surface, HttpError::render_plain_error);
        assert_eq!(
            (post_and_read_status(router.clone(), "").await, post_and_read_status(router, "").await),
            (500, 500)
        );
        assert_eq!(tasks.count_panics(), 2);
    }

    #[tokio::test]
    async fn an_endpoint_that_does_not_respond_times_out() {
        let (guard, tasks) = new_guard(Duration::from_millis(1));
        let surface = Router::new().route("/", any(std::future::pending::<Response>));
        assert_eq!(post_and_read_status(guard.protect_surface(surface, HttpError::render_plain_error), "").await, 503);
        assert_eq!(tasks.count_panics(), 0);
    }

    #[tokio::test]
    async fn a_body_reaches_the_endpoint_unchanged_or_not_at_all() {
        let (guard, _) = new_guard(Duration::from_secs(5));
        let received = Arc::new(Mutex::new(Vec::new()));
        let seen = received.clone();
        let endpoint = async move |body: Bytes| seen.lock().unwrap().push(body.to_vec());
        let router = guard.protect_surface(Router::new().route("/", any(endpoint)), HttpError::render_plain_error);

        // The guard allows bodies of at most 10 bytes. The bodies together contain every byte value.
        let every_byte: Vec<u8> = (0..=u8::MAX).collect();
        let mut accepted: Vec<Vec<u8>> = every_byte.chunks(10).map(<[u8]>::to_vec).collect();
        accepted.push(Vec::new());
        for sent in &accepted {
            assert_eq!(post_body(router.clone(), sent.clone()).await.status(), 200);
            // The client sends the body in several chunks and without a `Content-Length`.
            let chunks: Vec<Result<Bytes, Infallible>> =
                sent.chunks(3).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            let chunked = Body::from_stream(futures_util::stream::iter(chunks));
            assert_eq!(post_body(router.clone(), chunked).await.status(), 200);
            assert_eq!(std::mem::take(&mut *received.lock().unwrap()), [sent.clone(), sent.clone()]);
        }

        let too_long = vec![Ok::<_, Infallible>(Bytes::from_static(b"012345678")), Ok(Bytes::from_static(b"9a"))];
        let too_long = Body::from_stream(futures_util::stream::iter(too_long));
        assert_eq!(post_body(router.clone(), "0123456789a").await.status(), 413);
        assert_eq!(post_body(router, too_long).await.status(), 413);
        assert!(received.lock().unwrap().is_empty(), "no part of a rejected body reaches the endpoint");
    }
}
