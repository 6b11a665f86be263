//! Authenticates the user of a request by a bearer token. Only payments from a balance need a token.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::Checkout;
use access::tokens;
use ids::UserId;

/// The reason why a request is not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The request has no token, or the token is unknown, expired or of another shop.
    #[error("this payment needs the token of a logged-in user")]
    Unauthorized,
    /// The database returned an error.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Returns the user to whom the bearer token of the request belongs.
pub async fn authenticate_user(checkout: &Checkout, headers: &HeaderMap) -> Result<UserId, AuthError> {
    let token = find_bearer_token(headers).ok_or(AuthError::Unauthorized)?.to_owned();
    let (now, shop) = (checkout.now(), checkout.shop);
    let user = checkout.db.read("authenticate_token", move |tx| {
        Box::pin(async move { tokens::authenticate_token(tx, now, shop, &token).await })
    });
    let user: Result<Option<UserId>, db::Error> = user.await;
    user?.ok_or(AuthError::Unauthorized)
}

fn find_bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
