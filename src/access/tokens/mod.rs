//! Access tokens of users. A token is shown to its user once and stored as a hash. It is valid only in the shop of the
//! user.

mod store;

#[cfg(test)]
mod tests;

use rand::CryptoRng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use clock::Instant;
use db::{self, Tx};
use ids::{Shop, UserId};

/// The first characters of every token.
const PREFIX: &str = "ut_";
/// The length of a token in bytes: the prefix and the hexadecimal digits of 32 random bytes. A text of another length
/// is refused without computing its hash.
const LENGTH: usize = PREFIX.len() + 64;

/// A new token in plain text. It is shown to its user once and never stored.
pub struct Token(SecretString);

impl Token {
    /// Generates a token from 32 random bytes.
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

/// Stores the hash of a user's new token, so that the token is valid from now on. When `expires_at` is `None`, the
/// token is valid until it is revoked.
pub async fn store_token_hash(
    tx: &mut Tx,
    now: Instant,
    user: UserId,
    token: &Token,
    expires_at: Option<Instant>,
) -> Result<(), db::Error> {
    store::insert_token_hash(tx, now, user, hash_token(token.reveal_token()), expires_at).await
}

/// Returns the active user of this shop to whom the token belongs; `None` when the token is unknown, expired or
/// revoked, and when the user is disabled or belongs to another shop.
pub async fn find_active_user_of_valid_token(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    presented: &str,
) -> Result<Option<UserId>, db::Error> {
    if presented.len() != LENGTH || !presented.starts_with(PREFIX) {
        return Ok(None);
    }
    store::find_active_user_by_valid_token_hash(tx, now, shop, hash_token(presented)).await
}

/// Revokes one token and returns true. Returns false when the token is unknown or was revoked before.
pub async fn revoke_token(tx: &mut Tx, now: Instant, presented: &str) -> Result<bool, db::Error> {
    store::set_token_revoked(tx, now, hash_token(presented)).await
}

/// Revokes all tokens of a user and returns the number of tokens that were not revoked before.
pub async fn revoke_all_tokens_of_user(tx: &mut Tx, now: Instant, user: UserId) -> Result<u64, db::Error> {
    store::set_all_tokens_revoked(tx, now, user).await
}

/// Returns the SHA-256 hash of a token. A token has 256 random bits and cannot be guessed, so a slow password hash is
/// not needed, and stored hashes need not be compared in constant time.
fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
