//! The error responses of this surface. The body is `{"success": false, "error": "<code>", "message": "<text>"}`. Each
//! operation has its own `RouteError`, which uses these functions to build its response.

use std::fmt::Display;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use access::limits::Limited;
use web::failure;
use web::fields::BadRequest;
use web::http_error::HttpError;
use web::response;

/// The JSON body of every error response.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct Body {
    /// Always `false`, because every response with this body is an error.
    success: bool,
    error: Code,
    /// A sentence for people. Its wording may change, so a program should use the field `error` instead.
    message: String,
}

/// The reason for an error. A code never changes, so that programs can depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A field of the request is missing or wrong.
    ValidationError,
    /// The payment method or the coin cannot be used at the moment, or not for so small an amount.
    PaymentMethodUnavailable,
    /// The coupon cannot be used for this order.
    CouponInvalid,
    /// The request needs a valid user token.
    Unauthorized,
    /// The user's balance is lower than the amount due.
    InsufficientBalance,
    /// There is no active product with this id or slug.
    ProductNotFound,
    /// There is no order with this id, or with this number and e-mail address.
    OrderNotFound,
    /// Fewer units are in stock than the order asks for.
    InsufficientStock,
    /// The idempotency key was used with another request before.
    IdempotencyConflict,
    /// No endpoint of this API has the path of the request.
    NotFound,
    /// The endpoint does not accept this HTTP method.
    MethodNotAllowed,
    /// The client sent too many requests; the header `Retry-After` holds the seconds to wait.
    RateLimited,
    /// The server failed to process the request. With status 503 the failure is temporary; the header `Retry-After` holds
    /// the seconds to wait.
    InternalError,
}

/// Returns an error response of this surface with this HTTP status and error code.
pub fn error_response(status: StatusCode, code: Code, message: impl Display) -> Response {
    response::json_response(status, &Body { success: false, error: code, message: message.to_string() })
}

/// Returns the response (400) to a request with a missing or wrong field.
pub fn bad_request_response(error: &BadRequest) -> Response {
    error_response(StatusCode::BAD_REQUEST, Code::ValidationError, error)
}

/// Returns the response (401) to a request without a valid user token.
pub fn unauthorized_response(message: impl Display) -> Response {
    let response = error_response(StatusCode::UNAUTHORIZED, Code::Unauthorized, message);
    response::with_response_header(response, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// Returns the response (429) to a request that exceeds a rate limit, with the header `Retry-After`.
pub fn rate_limited_response(limited: Limited) -> Response {
    let after_seconds = limited.after_seconds;
    let message = format_args!("too many requests; try again in {after_seconds} s");
    let response = error_response(StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, message);
    response::with_response_header(response, RETRY_AFTER, after_seconds.into())
}

/// Returns the response (500) to a request that failed for a reason other than the database. The client does not see
/// the cause; the request log shows it.
pub fn failed_response(cause: impl Display) -> Response {
    failure::build_failure_response_with_cause(render_http_error, cause, None)
}

/// Returns the response to a request that failed because of a database error: status 503 while the database does not
/// work, otherwise 500.
pub fn database_error_response(cause: &db::Error) -> Response {
    failure::build_failure_response_with_cause(render_http_error, cause, Some(cause))
}

/// Returns the response to an error of the HTTP server, such as a timeout, in the error format of this surface.
pub fn render_http_error(error: HttpError) -> Response {
    let code = match error {
        HttpError::NotFound => Code::NotFound,
        HttpError::MethodNotAllowed => Code::MethodNotAllowed,
        HttpError::BodyTooLarge | HttpError::BodyTimedOut | HttpError::BodyMalformed | HttpError::HostInvalid => {
            Code::ValidationError
        }
        HttpError::RateLimited { .. } => Code::RateLimited,
        HttpError::TimedOut
        | HttpError::DatabaseUnavailable
        | HttpError::OutcomeUnknown
        | HttpError::ShuttingDown
        | HttpError::Internal => Code::InternalError,
    };
    response::http_error_response(
        error,
        &Body { success: false, error: code, message: error.client_message().to_owned() },
    )
}
