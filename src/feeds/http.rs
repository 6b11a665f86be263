//! One HTTP request to an exchange, with limits on time and size.

use std::time::Duration;

use reqwest::{
    Client, StatusCode, Url,
    header::{ACCEPT, HeaderMap, RETRY_AFTER},
    redirect,
};

use super::error::{FeedError, describe_root_cause, to_feed_error};

/// Maximum size of a response after decompression, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// The time, in seconds, for which an exchange gets no requests after it has sent "429 Too Many Requests" without a
/// `Retry-After` header.
const PAUSE_DEFAULT_S: u32 = 60;
/// The maximum time, in seconds, for which an exchange gets no requests, even if its `Retry-After` header names a
/// longer time.
const PAUSE_MAX_S: u32 = 3_600;

/// Builds an HTTP client that follows no redirects. `timeout` is the total time of one request.
pub fn build_http_client_without_redirects(timeout: Duration) -> Result<Client, FeedError> {
    Client::builder()
        .timeout(timeout)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("settled/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| FeedError::Client(describe_root_cause(&e)))
}

/// Sends a GET request and returns the body of a successful response. Every other response is an error. For a response
/// that limits the request rate, the error has the number of seconds to wait.
pub async fn fetch_successful_response_body(client: &Client, url: Url) -> Result<Vec<u8>, FeedError> {
    let mut response =
        client.get(url).header(ACCEPT, "application/json").send().await.map_err(|e| to_feed_error(&e))?;
    let status = response.status();
    // Binance returns status 418 when a client continues to send requests after status 429.
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::IM_A_TEAPOT {
        return Err(FeedError::RateLimited { seconds: parse_bounded_retry_after_seconds(response.headers()) });
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
fn parse_bounded_retry_after_seconds(headers: &HeaderMap) -> u32 {
    let seconds =
        headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse().ok());
    seconds.unwrap_or(PAUSE_DEFAULT_S).clamp(1, PAUSE_MAX_S)
}
