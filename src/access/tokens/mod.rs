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
    pub fn generate(rng: &mut impl CryptoRng) -> Token {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Token(format!("{PREFIX}{}", const_hex::encode(bytes)).into())
    }

    /// Returns the token in plain text, to be shown to its user.
    pub fn reveal_token(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Stores the hash of a token; without `expires_at` the token is valid until it is revoked.
pub async fn issue_token(
    tx: &mut Tx,
    now: Instant,
    user: UserId,
    token: &Token,
    expires_at: Option<Instant>,
) -> Result<(), db::Error> {
    store::insert_token(tx, now, user, hash_token(token.reveal_token()), expires_at).await
}

/// Returns the active user of this shop to whom the token belongs; `None` when the token is unknown, expired or
/// revoked.
pub async fn authenticate_token(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    presented: &str,
) -> Result<Option<UserId>, db::Error> {
    if presented.len() != LENGTH || !presented.starts_with(PREFIX) {
        return Ok(None);
    }
    store::find_user_by_token_hash(tx, now, shop, hash_token(presented)).await
}

/// Revokes one token. Returns false when the token is unknown or was revoked before.
pub async fn revoke_token(tx: &mut Tx, now: Instant, presented: &str) -> Result<bool, db::Error> {
    store::set_token_revoked(tx, now, hash_token(presented)).await
}

/// Revokes all tokens of a user and returns the number that were not revoked yet.
pub async fn revoke_all_tokens(tx: &mut Tx, now: Instant, user: UserId) -> Result<u64, db::Error> {
    store::set_all_tokens_revoked(tx, now, user).await
}

/// Returns the SHA-256 of a token. A token has 256 random bits, so it cannot be guessed: no slow hash is needed, and
/// the hash need not be compared in constant time.
fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
