//! The errors of requests for prices. Texts from exchanges are shortened to one line, because they appear in the log.

use super::http::RESPONSE_BYTES_MAX;

/// Maximum length, in characters, of a text from an exchange in an error message.
const REASON_CHARS_MAX: usize = 120;

/// The reason why an exchange returned no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The HTTP client cannot be built.
    #[error("cannot build the HTTP client: {0}")]
    Client(String),
    /// No connection to the exchange was possible, or the connection broke.
    #[error("cannot reach the exchange: {0}")]
    Unreachable(String),
    /// The exchange sent no response within the configured time.
    #[error("the exchange did not answer in time")]
    TimedOut,
    /// The exchange returned this HTTP status, which is neither a success nor a known error.
    #[error("the exchange answered with HTTP status {0}")]
    Status(u16),
    /// The exchange received too many requests. `seconds` is the time to wait before the next request.
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

/// Converts an error of the HTTP client to [`FeedError::TimedOut`] or [`FeedError::Unreachable`].
pub fn to_feed_error(error: &reqwest::Error) -> FeedError {
    if error.is_timeout() { FeedError::TimedOut } else { FeedError::Unreachable(describe_root_cause(error)) }
}

/// Returns the text of the innermost cause of an error, as one line. The outer errors only repeat the URL.
pub fn describe_root_cause(error: &reqwest::Error) -> String {
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
