//! One HTTP exchange with a node, with limits on its time and its size.

use std::time::Duration;

use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect,
};

use crate::{Endpoint, Request, reply};

/// Maximum time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which an idle connection is closed. It is shorter than the timeout of the nodes (Bitcoin Core: 30 s), so
/// that no request is sent on a connection that the node is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP status that Cloudflare returns when the node behind it did not reply in time.
const CLOUDFLARE_TIMEOUT: u16 = 524;

/// The HTTP reply of a node to one request, not yet parsed.
#[derive(Debug)]
pub struct Exchange {
    /// The HTTP status of the reply.
    pub status: u16,
    /// The complete body of the reply, at most as long as the limit of the request.
    pub body: Vec<u8>,
}

/// The reason why an HTTP exchange gave no usable reply. It never contains a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportError {
    /// The exchange failed. The reason contains no secrets; `retry_after` is the time that a `Retry-After` header
    /// names.
    Failed { class: ErrorClass, reason: String, retry_after: Option<Duration> },
    /// The body of the reply is longer than the limit of `bytes_max` bytes.
    TooLarge { bytes_max: usize },
}

impl TransportError {
    fn new(class: ErrorClass, reason: String) -> TransportError {
        TransportError::Failed { class, reason, retry_after: None }
    }
}

/// The kind of a failed HTTP exchange. The pool treats each kind differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The connection failed, a gateway sent an error status, or the reply was invalid.
    Broken,
    /// The complete reply did not come in time. A smaller request may succeed.
    Timeout,
    /// The node rejected the request without processing it, because too many requests arrived. The same request may be
    /// sent to this node again later.
    Throttled,
}

/// An HTTP client that follows no redirects and uses no proxies.
#[derive(Debug, Clone)]
pub struct HttpClient(reqwest::Client);

impl HttpClient {
    /// Returns a client that follows no redirects and ignores the proxy settings of the environment. A redirect or a
    /// proxy would send the keys of endpoints to a host that is not in the configuration.
    pub fn without_redirects_or_proxy() -> Result<HttpClient, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent(concat!("settled/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(HttpClient(client))
    }

    /// Sends a request and reads a reply of at most `bytes_max` bytes. A reply with an error status is an error, unless
    /// its body contains a JSON-RPC error.
    pub async fn send_and_read_bounded_reply(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        timeout: Duration,
        bytes_max: usize,
    ) -> Result<Exchange, TransportError> {
        let url = endpoint.build_url_with_path_override(&request.path);
        let builder = match &request.body {
            Some(body) => self.0.post(url).header(CONTENT_TYPE, "application/json").body(body.clone()),
            None => self.0.get(url),
        };
        let login = endpoint.read_login_file().map_err(|reason| TransportError::new(ErrorClass::Broken, reason))?;
        let builder = match login {
            Some((user, password)) => builder.basic_auth(user, Some(password)),
            None => builder,
        };
        let failed = |class: ErrorClass, error: reqwest::Error| {
            let class = if error.is_timeout() && !error.is_connect() { ErrorClass::Timeout } else { class };
            TransportError::new(class, describe_cause_without_secrets(endpoint, error))
        };
        let sent = builder.headers(endpoint.header_map().clone()).timeout(timeout).send().await;
        let mut response = sent.map_err(|error| failed(ErrorClass::Broken, error))?;

        let status = response.status();
        let retry_after = parse_retry_after(&response);
        let announced_bytes = response.content_length().unwrap_or(0);
        if usize::try_from(announced_bytes).map_or(true, |bytes| bytes > bytes_max) {
            return Err(TransportError::TooLarge { bytes_max });
        }
        let mut body = Vec::with_capacity(usize::try_from(announced_bytes).unwrap_or(0));
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(ErrorClass::Timeout, error))? {
            if body.len() + chunk.len() > bytes_max {
                return Err(TransportError::TooLarge { bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        let retry_after =
            retry_after.or_else(|| std::str::from_utf8(&body).ok().and_then(reply::parse_suspension_duration));
        if is_throttling_status(status) || is_endpoint_failure_status(status) && !reply::is_json_rpc_error(&body) {
            let class = match status {
                _ if is_throttling_status(status) || retry_after.is_some() => ErrorClass::Throttled,
                // A gateway sends status 502 at once while its node is not running. A smaller request would not succeed
                // either, so this is not a timeout.
                StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => ErrorClass::Timeout,
                _ if status.as_u16() == CLOUDFLARE_TIMEOUT => ErrorClass::Timeout,
                _ => ErrorClass::Broken,
            };
            let reason = format!("HTTP status {}", status.as_u16());
            return Err(TransportError::Failed { class, reason, retry_after });
        }
        Ok(Exchange { status: status.as_u16(), body })
    }
}

/// Returns true for an HTTP status with which a node rejects a request without processing it. Providers send 402 when
/// the requests of a day are used up.
fn is_throttling_status(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYMENT_REQUIRED)
}

/// Returns true for an HTTP status that usually comes from a gateway in front of the node. A JSON-RPC error in the body
/// shows that the node itself replied.
fn is_endpoint_failure_status(status: StatusCode) -> bool {
    status.is_server_error()
        || status.is_redirection()
        || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::REQUEST_TIMEOUT)
}

/// Returns the duration that a `Retry-After` header names in seconds, or `None` without such a header. A date in the
/// header is ignored, because nodes do not use dates there.
fn parse_retry_after(response: &reqwest::Response) -> Option<Duration> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Returns the text of the innermost cause of an error, without secrets. The innermost cause, such as "connection
/// refused", is more useful than "error sending request".
fn describe_cause_without_secrets(endpoint: &Endpoint, error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    endpoint.redact_secrets(&text)
}
