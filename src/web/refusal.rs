//! What the listener itself refuses, before or instead of an endpoint. Every surface says it in its own shape.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use crate::reply;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    MethodNotAllowed,
    /// The body has more bytes than configured.
    TooLarge,
    /// The body did not arrive, in time or at all.
    Incomplete,
    RateLimited {
        after_seconds: u64,
    },
    /// The answer was not ready in time. What was asked for may still be done.
    TooSlow,
    Panicked,
}

/// A surface's way to say a refusal.
pub type Shape = fn(Refusal) -> Response;

#[derive(Serialize)]
struct Plain {
    error: &'static str,
}

impl Refusal {
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Incomplete => StatusCode::REQUEST_TIMEOUT,
            Refusal::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refusal::TooSlow => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Refusal::NotFound => "there is nothing at this path",
            Refusal::MethodNotAllowed => "this path does not take this method",
            Refusal::TooLarge => "the request body is too large",
            Refusal::Incomplete => "the request body did not arrive in time",
            Refusal::RateLimited { .. } => "too many requests; try again later",
            Refusal::TooSlow => "the answer took too long; ask again before you repeat an order",
            Refusal::Panicked => "something went wrong on our side",
        }
    }

    /// The shape of what belongs to no surface.
    pub fn plain(self) -> Response {
        reply::refusal(self, &Plain { error: self.text() })
    }
}
