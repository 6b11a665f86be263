//! Errors of the HTTP server itself, such as an unknown path, a rate limit or a timeout. Each surface renders them in
//! its own error format.

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
    BodyIncomplete,
    /// The client sent more requests than `server.requests_per_minute`.
    RateLimited {
        /// The number of seconds until the client may send the next request.
        after_seconds: u64,
    },
    /// The endpoint did not respond within `server.request_timeout_ms`. The endpoint may still complete its work.
    TimedOut,
    /// The endpoint panicked.
    Panicked,
}

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
            HttpError::BodyIncomplete => StatusCode::REQUEST_TIMEOUT,
            HttpError::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            HttpError::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
            HttpError::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the message for the client.
    pub fn client_message(self) -> &'static str {
        match self {
            HttpError::NotFound => "there is nothing at this path",
            HttpError::MethodNotAllowed => "this path does not accept this method",
            HttpError::BodyTooLarge => "the request body is too large",
            HttpError::BodyIncomplete => "the request body did not arrive in time",
            HttpError::RateLimited { .. } => "too many requests; try again later",
            HttpError::TimedOut => "the request took too long; check whether it was completed before you repeat it",
            HttpError::Panicked => "an internal error occurred",
        }
    }

    /// Renders the error for paths that belong to no surface.
    pub fn render_plain_error(self) -> Response {
        response::http_error_response(self, &PlainBody { error: self.client_message() })
    }
}
