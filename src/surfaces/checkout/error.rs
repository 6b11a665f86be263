//! What this surface refuses: `{"success": false, "error": "<code>", "message": "<text>"}` with a matching status.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

use access::limits::Limited;
use envelope::OpenError;
use shop::orders::CreateError;
use web::body::BadRequest;
use web::http_error::HttpError;
use web::reply;

/// What went wrong.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct Body {
    /// Always `false`.
    success: bool,
    error: Code,
    /// For people; its wording may change.
    message: String,
}

/// Stable: programs decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    ValidationError,
    PaymentMethodUnavailable,
    CouponInvalid,
    Unauthorized,
    InsufficientBalance,
    ProductNotFound,
    OrderNotFound,
    InsufficientStock,
    IdempotencyConflict,
    NotFound,
    MethodNotAllowed,
    RateLimited,
    InternalError,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    #[error("this payment needs the token of a logged-in user")]
    Unauthorized,
    #[error("there is no such product")]
    ProductNotFound,
    #[error("there is no order with this id")]
    OrderNotFound,
    #[error("there is no order with this number and e-mail address")]
    LookupFailed,
    #[error("this payment method is not available at the moment")]
    MethodUnavailable,
    #[error(transparent)]
    Order(CreateError),
    #[error("this Idempotency-Key was used with another request")]
    IdempotencyConflict,
    #[error("too many requests; try again in {} s", .0.after_seconds)]
    RateLimited(#[from] Limited),
    #[error("something went wrong on our side")]
    Db(#[from] db::Error),
    #[error("something went wrong on our side")]
    Goods(#[from] OpenError),
}

impl Error {
    fn code(&self) -> (StatusCode, Code) {
        match self {
            Error::BadRequest(_) => (StatusCode::BAD_REQUEST, Code::ValidationError),
            Error::Unauthorized => (StatusCode::UNAUTHORIZED, Code::Unauthorized),
            Error::ProductNotFound => (StatusCode::NOT_FOUND, Code::ProductNotFound),
            Error::OrderNotFound | Error::LookupFailed => (StatusCode::NOT_FOUND, Code::OrderNotFound),
            Error::MethodUnavailable => (StatusCode::BAD_REQUEST, Code::PaymentMethodUnavailable),
            Error::Order(refused) => order_code(refused),
            Error::IdempotencyConflict => (StatusCode::CONFLICT, Code::IdempotencyConflict),
            Error::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, Code::RateLimited),
            Error::Db(_) | Error::Goods(_) => (StatusCode::INTERNAL_SERVER_ERROR, Code::InternalError),
        }
    }

    /// What only the operator may read.
    fn cause(&self) -> Option<String> {
        match self {
            Error::Db(cause) => Some(cause.to_string()),
            Error::Goods(cause) => Some(cause.to_string()),
            Error::Order(CreateError::Db(cause)) => Some(cause.to_string()),
            Error::Order(CreateError::Issue(cause)) => Some(cause.to_string()),
            Error::Order(_)
            | Error::BadRequest(_)
            | Error::Unauthorized
            | Error::ProductNotFound
            | Error::OrderNotFound
            | Error::LookupFailed
            | Error::MethodUnavailable
            | Error::IdempotencyConflict
            | Error::RateLimited(_) => None,
        }
    }
}

fn order_code(refused: &CreateError) -> (StatusCode, Code) {
    match refused {
        CreateError::ProductNotFound => (StatusCode::NOT_FOUND, Code::ProductNotFound),
        CreateError::BadLines
        | CreateError::QuantityBelowMinimum { .. }
        | CreateError::QuantityAboveMaximum { .. }
        | CreateError::AmountOutOfRange => (StatusCode::BAD_REQUEST, Code::ValidationError),
        CreateError::InsufficientStock => (StatusCode::CONFLICT, Code::InsufficientStock),
        CreateError::CouponInvalid(_) => (StatusCode::BAD_REQUEST, Code::CouponInvalid),
        CreateError::MethodUnavailable => (StatusCode::BAD_REQUEST, Code::PaymentMethodUnavailable),
        CreateError::UserRequired => (StatusCode::UNAUTHORIZED, Code::Unauthorized),
        CreateError::InsufficientBalance => (StatusCode::PAYMENT_REQUIRED, Code::InsufficientBalance),
        CreateError::Issue(_) | CreateError::Db(_) => (StatusCode::INTERNAL_SERVER_ERROR, Code::InternalError),
    }
}

impl From<CreateError> for Error {
    fn from(refused: CreateError) -> Error {
        Error::Order(refused)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = self.code();
        let cause = self.cause();
        if let Some(cause) = &cause {
            error!("a request of the checkout surface failed: {cause}");
        }
        let message = if cause.is_some() { "something went wrong on our side".to_owned() } else { self.to_string() };
        let response = reply::json(status, &Body { success: false, error: code, message });
        match self {
            Error::RateLimited(limited) => reply::with_header(response, RETRY_AFTER, limited.after_seconds.into()),
            Error::Unauthorized => reply::with_header(response, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Error::BadRequest(_)
            | Error::ProductNotFound
            | Error::OrderNotFound
            | Error::LookupFailed
            | Error::MethodUnavailable
            | Error::Order(_)
            | Error::IdempotencyConflict
            | Error::Db(_)
            | Error::Goods(_) => response,
        }
    }
}

/// What the listener refuses, in this surface's shape.
pub fn render_http_error(error: HttpError) -> Response {
    let code = match error {
        HttpError::NotFound => Code::NotFound,
        HttpError::MethodNotAllowed => Code::MethodNotAllowed,
        HttpError::BodyTooLarge | HttpError::BodyIncomplete => Code::ValidationError,
        HttpError::RateLimited { .. } => Code::RateLimited,
        HttpError::TimedOut | HttpError::Panicked => Code::InternalError,
    };
    reply::http_error(error, &Body { success: false, error: code, message: error.message().to_owned() })
}
