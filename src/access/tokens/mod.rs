//! User tokens: shown once, stored as a hash, bound to the shop of their user.

mod store;

#[cfg(test)]
mod tests;

use rand::CryptoRng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use clock::Instant;
use db::{self, Tx};
use ids::{Shop, UserId};

const PREFIX: &str = "ut_";
/// The prefix and 32 bytes in hexadecimal digits: what is longer is no token and is not hashed.
const LENGTH: usize = PREFIX.len() + 64;

/// A new token in plain text: for its user's eyes, once.
pub struct Token(SecretString);

impl Token {
    pub fn draw(rng: &mut impl CryptoRng) -> Token {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Token(format!("{PREFIX}{}", const_hex::encode(bytes)).into())
    }

    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Stores the token's hash; without `expires_at` it holds until it is revoked.
pub async fn issue(
    tx: &mut Tx,
    now: Instant,
    user: UserId,
    token: &Token,
    expires_at: Option<Instant>,
) -> Result<(), db::Error> {
    store::insert_token(tx, now, user, hash(token.reveal()), expires_at).await
}

/// The active user of this shop that presents the token.
pub async fn authenticate(tx: &mut Tx, now: Instant, shop: Shop, presented: &str) -> Result<Option<UserId>, db::Error> {
    if presented.len() != LENGTH || !presented.starts_with(PREFIX) {
        return Ok(None);
    }
    store::find_user(tx, now, shop, hash(presented)).await
}

/// Ends one token; false when there is none, or when it has ended before.
pub async fn revoke(tx: &mut Tx, now: Instant, presented: &str) -> Result<bool, db::Error> {
    store::set_revoked(tx, now, hash(presented)).await
}

/// Ends every token of a user and returns how many there were.
pub async fn revoke_all(tx: &mut Tx, now: Instant, user: UserId) -> Result<u64, db::Error> {
    store::set_all_revoked(tx, now, user).await
}

/// A token has 256 random bits, so that a plain hash is as good as a slow one, and the look-up by it needs no comparison
/// in constant time.
fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
