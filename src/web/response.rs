//! Builds JSON responses.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;

use crate::http_error::HttpError;

/// The content type of every JSON response.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Returns a response with `body` as JSON. A body that cannot be serialised is logged and becomes an empty 500
/// response.
pub fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => response_from_json_text(status, text),
        Err(e) => {
            error!("a response body cannot be serialised as JSON: {e}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Returns a response with a body that is already JSON text, such as the stored response of an idempotency key.
pub fn response_from_json_text(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, JSON)], text).into_response()
}

/// Returns the response to an error of the HTTP server. `body` has the error format of the surface. An error after which
/// the client should repeat the request adds a `Retry-After` header.
pub fn http_error_response(error: HttpError, body: &impl Serialize) -> Response {
    let response = json_response(error.http_status(), body);
    match error.retry_after_seconds() {
        Some(seconds) => with_response_header(response, RETRY_AFTER, seconds.into()),
        None => response,
    }
}

/// Sets a header of the response, and returns the response.
pub fn with_response_header(mut response: Response, name: HeaderName, value: HeaderValue) -> Response {
    response.headers_mut().insert(name, value);
    response
}
