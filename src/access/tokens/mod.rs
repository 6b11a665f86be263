//! Access tokens of users. A token is shown once, stored as a hash, and valid only in the shop of its user.

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
/// Length of a token in characters: the prefix, and 32 bytes in hexadecimal digits. A text of another length is not
/// hashed.
const LENGTH: usize = PREFIX.len() + 64;

/// A new token in plain text. It is shown to its user once and never stored.
pub struct Token(SecretString);

impl Token {
    /// Draws a random token.
    pub fn draw(rng: &mut impl CryptoRng) -> Token {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Token(format!("{PREFIX}{}", const_hex::encode(bytes)).into())
    }

    /// Returns the token in plain text, to be shown to its user.
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Stores the hash of a token; without `expires_at` the token is valid until it is revoked.
pub async fn issue(
    tx: &mut Tx,
    now: Instant,
    user: UserId,
    token: &Token,
    expires_at: Option<Instant>,
) -> Result<(), db::Error> {
    store::insert_token(tx, now, user, hash(token.reveal()), expires_at).await
}

/// Returns the active user of this shop to whom the token belongs; `None` when the token is unknown, expired or
/// revoked.
pub async fn authenticate(tx: &mut Tx, now: Instant, shop: Shop, presented: &str) -> Result<Option<UserId>, db::Error> {
    if presented.len() != LENGTH || !presented.starts_with(PREFIX) {
        return Ok(None);
    }
    store::find_user(tx, now, shop, hash(presented)).await
}

/// Revokes one token. Returns false when the token is unknown or was revoked before.
pub async fn revoke(tx: &mut Tx, now: Instant, presented: &str) -> Result<bool, db::Error> {
    store::set_revoked(tx, now, hash(presented)).await
}

/// Revokes all tokens of a user and returns the number that were not revoked yet.
pub async fn revoke_all(tx: &mut Tx, now: Instant, user: UserId) -> Result<u64, db::Error> {
    store::set_all_revoked(tx, now, user).await
}

/// Returns the SHA-256 of a token. A token has 256 random bits, so it cannot be guessed: no slow hash is needed, and
/// the hash need not be compared in constant time.
fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
