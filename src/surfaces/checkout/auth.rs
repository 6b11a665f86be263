//! Finds the user to whom the bearer token of a request belongs. Only payments from a balance need a token.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::SharedState;
use access::tokens;
use ids::UserId;

/// The reason why a request is not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The request has no bearer token; or the token is unknown, expired, revoked or of another shop; or the user of
    /// the token is disabled.
    #[error("this payment needs the token of a logged-in user")]
    Unauthorized,
    /// The database returned an error.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Returns the user to whom the bearer token of the request belongs. Fails when the request has no valid token.
pub async fn authenticate_user(checkout: &SharedState, headers: &HeaderMap) -> Result<UserId, AuthError> {
    let token = find_bearer_token(headers).ok_or(AuthError::Unauthorized)?.to_owned();
    let (now, shop) = (checkout.now(), checkout.shop);
    let user = checkout.db.read("authenticate_token", move |tx| {
        Box::pin(async move { tokens::find_active_user_of_valid_token(tx, now, shop, &token).await })
    });
    let user: Result<Option<UserId>, db::Error> = user.await;
    user?.ok_or(AuthError::Unauthorized)
}

/// Returns the bearer token in the header `Authorization`; `None` when the request has no such header, or when the
/// scheme in the header is not `Bearer`.
fn find_bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
