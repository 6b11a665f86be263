//! One HTTP question, bounded in time and size.

use std::time::Duration;

use reqwest::{
    Client, StatusCode, Url,
    header::{ACCEPT, HeaderMap, RETRY_AFTER},
    redirect,
};

/// Largest answer in bytes, after decompression.
const ANSWER_MAX: usize = 1 << 20;

/// How long a source is left alone that says "too many requests" without saying for how long, and at most.
const REST_SECONDS: u32 = 60;
const REST_SECONDS_MAX: u32 = 3_600;

/// Longest text of a source that is repeated in a message.
const WORDS_MAX: usize = 120;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it did not answer in time")]
    TimedOut,
    #[error("it answers with status {0}")]
    Status(u16),
    #[error("too many requests; it is left alone for {seconds} s")]
    Limited { seconds: u32 },
    #[error("it is left alone for a while")]
    Resting,
    #[error("its answer is longer than {ANSWER_MAX} bytes")]
    TooLong,
    #[error("its answer is not understood: {0}")]
    Malformed(String),
    /// It understood the question and does not answer it, for the reason that it gives.
    #[error("it refuses: {0}")]
    Refused(String),
}

impl FeedError {
    pub fn malformed(problem: impl ToString) -> FeedError {
        FeedError::Malformed(short(&problem.to_string()))
    }

    pub fn refused(reason: &str) -> FeedError {
        FeedError::Refused(short(reason))
    }
}

pub fn client(timeout: Duration) -> Result<Client, FeedError> {
    Client::builder()
        .timeout(timeout)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("settled/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| FeedError::Client(words(&e)))
}

pub async fn get(client: &Client, url: Url) -> Result<Vec<u8>, FeedError> {
    let mut answer = client.get(url).header(ACCEPT, "application/json").send().await.map_err(|e| failure(&e))?;
    let status = answer.status();
    // Binance bans with 418 whoever does not heed its 429.
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::IM_A_TEAPOT {
        return Err(FeedError::Limited { seconds: rest_asked_for(answer.headers()) });
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| failure(&e))? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(FeedError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        Ok(body)
    } else if status == StatusCode::BAD_REQUEST || status == StatusCode::NOT_FOUND {
        // How Binance and Coinbase say that they do not know a pair.
        Err(FeedError::refused(&String::from_utf8_lossy(&body)))
    } else {
        Err(FeedError::Status(status.as_u16()))
    }
}

fn rest_asked_for(headers: &HeaderMap) -> u32 {
    let asked =
        headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse().ok());
    asked.unwrap_or(REST_SECONDS).clamp(1, REST_SECONDS_MAX)
}

fn failure(error: &reqwest::Error) -> FeedError {
    if error.is_timeout() { FeedError::TimedOut } else { FeedError::Unreachable(words(error)) }
}

/// The innermost reason: the outer ones only repeat the address.
fn words(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(inner) = reason.source() {
        reason = inner;
    }
    short(&reason.to_string())
}

/// One line without control characters, of bounded length.
fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect()
}
