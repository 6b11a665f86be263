//! Errors of the HTTP server itself, such as an unknown path, a rate limit or a timeout.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use crate::response;

/// An error of the HTTP server, which a surface renders in its own error format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// No route has the path of the request.
    NotFound,
    /// The path has no route for the HTTP method of the request.
    MethodNotAllowed,
    /// The body has more bytes than `server.body_bytes_max`.
    BodyTooLarge,
    /// The body did not arrive completely within `server.request_timeout_ms`.
    BodyTimedOut,
    /// The body has malformed chunks, or ended before its announced length.
    BodyMalformed,
    /// The request has no `Host` header, several of them, or an invalid one.
    HostInvalid,
    /// The client sent more requests than `server.requests_per_minute`.
    RateLimited {
        /// The number of seconds until the client may send the next request.
        after_seconds: u64,
    },
    /// The endpoint did not respond within `server.request_timeout_ms`. The endpoint may still complete its work.
    TimedOut,
    /// The database does not work at the moment. Nothing was changed.
    DatabaseUnavailable,
    /// The connection to the database broke while the changes of the request were committed, so it is not known if they
    /// are stored.
    OutcomeUnknown,
    /// The daemon stopped before the body of the request arrived.
    ShuttingDown,
    /// The endpoint failed or panicked.
    Internal,
}

/// Seconds after which clients should repeat a request that failed because of an outage: about the time that a restart
/// of the daemon or of the database takes.
const OUTAGE_RETRY_SECONDS: u64 = 10;

/// A function that renders errors of the HTTP server in the error format of one surface.
pub type ErrorRenderer = fn(HttpError) -> Response;

/// The JSON body of an error on a path that belongs to no surface.
#[derive(Serialize)]
struct PlainBody {
    error: &'static str,
}

impl HttpError {
    /// Returns the HTTP status of the response.
    pub fn http_status(self) -> StatusCode {
        match self {
            HttpError::NotFound => StatusCode::NOT_FOUND,
            HttpError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            HttpError::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            HttpError::BodyTimedOut => StatusCode::REQUEST_TIMEOUT,
            HttpError::BodyMalformed | HttpError::HostInvalid => StatusCode::BAD_REQUEST,
            HttpError::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            HttpError::TimedOut
            | HttpError::DatabaseUnavailable
            | HttpError::OutcomeUnknown
            | HttpError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            HttpError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the message for the client.
    pub fn client_message(self) -> &'static str {
        match self {
            HttpError::NotFound => "there is nothing at this path",
            HttpError::MethodNotAllowed => "this path does not accept this method",
            HttpError::BodyTooLarge => "the request body is too large",
            HttpError::BodyTimedOut => "the request body did not arrive in time",
            HttpError::BodyMalformed => "the request body is malformed or incomplete",
            HttpError::HostInvalid => "the request must have one valid Host header",
            HttpError::RateLimited { .. } => "too many requests; try again later",
            HttpError::TimedOut => "the request took too long; check whether it was completed before you repeat it",
            HttpError::DatabaseUnavailable => "the service is not available at the moment; try again later",
            HttpError::OutcomeUnknown => {
                "the service failed while it processed the request; check whether it was completed before you repeat it"
            }
            HttpError::ShuttingDown => "the service is being restarted; try again later",
            HttpError::Internal => "an internal error occurred",
        }
    }

    /// Returns the seconds after which the client should repeat the request; `None` when a repetition cannot help.
    pub fn retry_after_seconds(self) -> Option<u64> {
        match self {
            HttpError::RateLimited { after_seconds } => Some(after_seconds),
            HttpError::DatabaseUnavailable | HttpError::OutcomeUnknown | HttpError::ShuttingDown => {
                Some(OUTAGE_RETRY_SECONDS)
            }
            HttpError::NotFound
            | HttpError::MethodNotAllowed
            | HttpError::BodyTooLarge
            | HttpError::BodyTimedOut
            | HttpError::BodyMalformed
            | HttpError::HostInvalid
            | HttpError::TimedOut
            | HttpError::Internal => None,
        }
    }

    /// Renders the error for paths that belong to no surface.
    pub fn render_plain_error(self) -> Response {
        response::http_error_response(self, &PlainBody { error: self.client_message() })
    }
}
