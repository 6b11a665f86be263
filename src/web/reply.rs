//! Answers in JSON.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;

use crate::refusal::Refusal;

pub const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => text_as_json(status, text),
        Err(e) => {
            error!("an answer could not be written as JSON: {e}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The same for a body that was written before, such as a kept answer.
pub fn text_as_json(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, JSON)], text).into_response()
}

pub fn refusal(refusal: Refusal, body: &impl Serialize) -> Response {
    let response = json(refusal.status(), body);
    match refusal {
        Refusal::RateLimited { after_seconds } => with(response, RETRY_AFTER, after_seconds.into()),
        Refusal::NotFound
        | Refusal::MethodNotAllowed
        | Refusal::TooLarge
        | Refusal::Incomplete
        | Refusal::TooSlow
        | Refusal::Panicked => response,
    }
}

pub fn with(mut response: Response, name: HeaderName, value: HeaderValue) -> Response {
    response.headers_mut().insert(name, value);
    response
}
