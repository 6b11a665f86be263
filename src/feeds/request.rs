//! One HTTP request to an exchange, with limits on time and size.

use std::time::Duration;

use reqwest::{
    Client, StatusCode, Url,
    header::{ACCEPT, HeaderMap, RETRY_AFTER},
    redirect,
};

/// Maximum size of a response after decompression, in bytes.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// Pause after "429 Too Many Requests" without a `Retry-After` header, in seconds.
const PAUSE_DEFAULT_S: u32 = 60;
/// Maximum pause, even if the `Retry-After` header requests a longer one, in seconds.
const PAUSE_MAX_S: u32 = 3_600;

/// Maximum length, in characters, of a text from an exchange in an error message.
const REASON_CHARS_MAX: usize = 120;

/// The reason why an exchange returned no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The HTTP client cannot be built.
    #[error("cannot build the HTTP client: {0}")]
    Client(String),
    /// No connection, or the connection broke.
    #[error("cannot reach the exchange: {0}")]
    Unreachable(String),
    /// No response within the configured time.
    #[error("the exchange did not answer in time")]
    TimedOut,
    /// The exchange returned this HTTP status, which is neither a success nor a known error.
    #[error("the exchange answered with HTTP status {0}")]
    Status(u16),
    /// The exchange limits the request rate.
    #[error("the exchange limits the request rate; the next request is sent in {seconds} s")]
    RateLimited { seconds: u32 },
    /// No request was sent, because the exchange limited the request rate before.
    #[error("the exchange is paused after it limited the request rate")]
    Paused,
    /// The response exceeds the size limit.
    #[error("the response is longer than {RESPONSE_BYTES_MAX} bytes")]
    ResponseTooLarge,
    /// The response does not have the expected format.
    #[error("unexpected response: {0}")]
    Malformed(String),
    /// The exchange rejected the request. The text is the reason from its response.
    #[error("the exchange rejects the request: {0}")]
    Rejected(String),
}

impl FeedError {
    /// Creates [`FeedError::Malformed`] with a shortened text.
    pub fn new_malformed(problem: impl ToString) -> FeedError {
        FeedError::Malformed(shorten_to_one_line(&problem.to_string()))
    }

    /// Creates [`FeedError::Rejected`] with a shortened text.
    pub fn new_rejected(reason: &str) -> FeedError {
        FeedError::Rejected(shorten_to_one_line(reason))
    }
}

/// Builds an HTTP client that follows no redirects. `timeout` is the total time of one request.
pub fn build_http_client(timeout: Duration) -> Result<Client, FeedError> {
    Client::builder()
        .timeout(timeout)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("settled/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| FeedError::Client(find_root_cause(&e)))
}

/// Sends a GET request and returns the body of a successful response.
pub async fn fetch_response_body(client: &Client, url: Url) -> Result<Vec<u8>, FeedError> {
    let mut response =
        client.get(url).header(ACCEPT, "application/json").send().await.map_err(|e| to_feed_error(&e))?;
    let status = response.status();
    // Binance returns status 418 when a client continues to send requests after status 429.
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::IM_A_TEAPOT {
        return Err(FeedError::RateLimited { seconds: parse_retry_after_seconds(response.headers()) });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| to_feed_error(&e))? {
        if body.len() + chunk.len() > RESPONSE_BYTES_MAX {
            return Err(FeedError::ResponseTooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        Ok(body)
    } else if status == StatusCode::BAD_REQUEST || status == StatusCode::NOT_FOUND {
        // Binance returns 400 and Coinbase returns 404 when they do not know a pair.
        Err(FeedError::new_rejected(&String::from_utf8_lossy(&body)))
    } else {
        Err(FeedError::Status(status.as_u16()))
    }
}

/// Returns the seconds of the `Retry-After` header, from 1 to [`PAUSE_MAX_S`]; [`PAUSE_DEFAULT_S`] without a valid
/// header.
fn parse_retry_after_seconds(headers: &HeaderMap) -> u32 {
    let seconds =
        headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse().ok());
    seconds.unwrap_or(PAUSE_DEFAULT_S).clamp(1, PAUSE_MAX_S)
}

/// Converts an error of the HTTP client.
fn to_feed_error(error: &reqwest::Error) -> FeedError {
    if error.is_timeout() { FeedError::TimedOut } else { FeedError::Unreachable(find_root_cause(error)) }
}

/// Returns the text of the innermost cause of an error. The outer causes only repeat the URL.
fn find_root_cause(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(inner) = reason.source() {
        reason = inner;
    }
    shorten_to_one_line(&reason.to_string())
}

/// Replaces control characters by spaces, and shortens the text to [`REASON_CHARS_MAX`] characters.
fn shorten_to_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect()
}
