//! One HTTP exchange with hard bounds on time and size.

use std::time::Duration;

use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect,
};
use serde::Serialize;

use crate::{Endpoint, reply};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than nodes keep a silent connection open (Bitcoin Core: 30 s): a question must not meet a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// What Cloudflare answers with when the node behind it does not.
const CLOUDFLARE_TIMEOUT: u16 = 524;

/// What is asked, independent of who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Below the endpoint's own path; empty for JSON-RPC.
    pub path: String,
    /// JSON to post; a request without one is a GET.
    pub body: Option<Vec<u8>>,
}

#[derive(Serialize)]
struct Call<'a, P: ?Sized> {
    jsonrpc: &'static str,
    id: usize,
    method: &'a str,
    params: &'a P,
}

impl Request {
    /// A JSON-RPC call.
    pub fn call<P: Serialize + ?Sized>(method: &str, params: &P) -> Request {
        Request::json_rpc(&Call { jsonrpc: "2.0", id: 0, method, params })
    }

    /// JSON-RPC calls in one request, numbered from zero.
    pub fn batch<P: Serialize>(method: &str, params: &[P]) -> Request {
        let calls: Vec<Call<'_, P>> =
            params.iter().enumerate().map(|(id, params)| Call { jsonrpc: "2.0", id, method, params }).collect();
        Request::json_rpc(&calls)
    }

    fn json_rpc(calls: &impl Serialize) -> Request {
        let body = serde_json::to_vec(calls).expect("parameters are strings, numbers and lists of them");
        Request { path: String::new(), body: Some(body) }
    }
}

/// Bytes that a node answered with, whatever they say.
#[derive(Debug)]
pub struct Exchange {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Why there is no answer. Never holds a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportError {
    Failed {
        fault: ErrorClass,
        reason: String,
        retry_after: Option<Duration>,
    },
    /// The answer was cut off at the bound.
    TooLarge {
        bytes_max: usize,
    },
}

/// What kind of failure it was, as far as one can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// No connection, a status of a gateway, an answer that contradicts itself.
    Broken,
    /// The answer did not come in time or was cut: a smaller question may be answered.
    Slow,
    /// Too many questions: the node did not look at this one, and may be given it again.
    Throttled,
}

#[derive(Debug, Clone)]
pub struct Client(reqwest::Client);

impl Client {
    /// Follows no redirect and uses no proxy of the environment: they would carry keys, and the login of a node on this
    /// machine, to a host nobody configured.
    pub fn new() -> Result<Client, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent(concat!("settled/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Client(client))
    }

    pub async fn send(
        &self,
        to: &Endpoint,
        request: &Request,
        timeout: Duration,
        bytes_max: usize,
    ) -> Result<Exchange, TransportError> {
        let url = to.url(&request.path);
        let builder = match &request.body {
            Some(body) => self.0.post(url).header(CONTENT_TYPE, "application/json").body(body.clone()),
            None => self.0.get(url),
        };
        let failed = |fault: ErrorClass, error: reqwest::Error| {
            let fault = if error.is_timeout() && !error.is_connect() { ErrorClass::Slow } else { fault };
            TransportError::Failed { fault, reason: describe(to, error), retry_after: None }
        };
        let builder = match to.login() {
            Ok(Some((user, password))) => builder.basic_auth(user, Some(password)),
            Ok(None) => builder,
            Err(reason) => return Err(TransportError::Failed { fault: ErrorClass::Broken, reason, retry_after: None }),
        };
        let sent = builder.headers(to.headers().clone()).timeout(timeout).send().await;
        let mut response = sent.map_err(|error| failed(ErrorClass::Broken, error))?;

        let status = response.status();
        let retry_after = seconds_to_wait(&response);
        let announced = response.content_length().unwrap_or(0);
        if usize::try_from(announced).map_or(true, |bytes| bytes > bytes_max) {
            return Err(TransportError::TooLarge { bytes_max });
        }
        let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(ErrorClass::Slow, error))? {
            if body.len() + chunk.len() > bytes_max {
                return Err(TransportError::TooLarge { bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        let retry_after = retry_after.or_else(|| std::str::from_utf8(&body).ok().and_then(reply::suspension));
        if throttles(status) || unusable(status) && !reply::is_refusal(&body) {
            let fault = match status {
                _ if throttles(status) || retry_after.is_some() => ErrorClass::Throttled,
                // 502 is what a gateway says at once while its node is down: nothing smaller would be answered.
                StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => ErrorClass::Slow,
                _ if status.as_u16() == CLOUDFLARE_TIMEOUT => ErrorClass::Slow,
                _ => ErrorClass::Broken,
            };
            return Err(TransportError::Failed {
                fault,
                reason: format!("HTTP status {}", status.as_u16()),
                retry_after,
            });
        }
        Ok(Exchange { status: status.as_u16(), body })
    }
}

/// Whoever says this did not look at the question. With 402 providers say that a day's requests are used up.
fn throttles(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYMENT_REQUIRED)
}

/// Statuses that come from a gateway rather than from the question, unless a JSON-RPC error stands in the body.
fn unusable(status: StatusCode) -> bool {
    status.is_server_error()
        || status.is_redirection()
        || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::REQUEST_TIMEOUT)
}

/// `Retry-After` in seconds; its date form is not used by nodes.
fn seconds_to_wait(response: &reqwest::Response) -> Option<Duration> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The innermost cause says most: "connection refused" rather than "error sending request".
fn describe(to: &Endpoint, error: reqwest::Error) -> String {
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
    to.redact(&text)
}
