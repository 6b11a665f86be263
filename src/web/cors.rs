//! Cross-origin requests (CORS): lets pages of configured origins call a surface from a browser.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

/// The methods that pages may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
/// The request headers that pages may set.
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, x-request-id");
/// The response headers that pages may read.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static("retry-after, x-request-id");
/// Time, in seconds, for which a browser may reuse the answer to a preflight request.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");

/// Lets pages of these origins call the surface, and answers their preflight requests. An origin is written
/// `https://shop.example`. Without origins the surface is not changed.
pub fn allow_origins(surface: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return surface;
    }
    let origins: Arc<[String]> = origins.into();
    surface.layer(middleware::from_fn_with_state(origins, add_cors_headers_or_answer_preflight))
}

async fn add_cors_headers_or_answer_preflight(
    State(origins): State<Arc<[String]>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(ORIGIN).filter(|origin| origins.iter().any(|allowed| *origin == allowed));
    let origin = origin.cloned();
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (&origin, is_preflight) {
        (Some(_), true) => StatusCode::NO_CONTENT.into_response(),
        (Some(_), false) | (None, _) => next.run(request).await,
    };
    let headers = response.headers_mut();
    // A cache must not give the response for one origin to a page of another one.
    headers.append(VARY, HeaderValue::from_static("origin"));
    let Some(origin) = origin else { return response };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if is_preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
    } else {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    }
    response
}
