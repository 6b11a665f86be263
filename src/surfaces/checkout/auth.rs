//! The one credential: the token of a logged-in user of this shop, needed to pay from a balance.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::Checkout;
use crate::error::Error;
use access::tokens;
use ids::UserId;

pub async fn user(checkout: &Checkout, headers: &HeaderMap) -> Result<UserId, Error> {
    let token = bearer(headers).ok_or(Error::Unauthorized)?.to_owned();
    let (now, shop) = (checkout.now(), checkout.shop);
    let found = checkout.db.read("authenticate_user", move |tx| {
        Box::pin(async move { tokens::authenticate(tx, now, shop, &token).await })
    });
    found.await?.ok_or(Error::Unauthorized)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
