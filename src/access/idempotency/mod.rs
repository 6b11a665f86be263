//! Idempotency keys: a repeated call gets the answer of the first one. A call with the same key and another request is
//! refused.
//!
//! The key is claimed in the transaction that does the work and stores the answer, so the key and the work are stored
//! together or not at all. Of two calls at the same time, the second waits at the claim until the first has ended. A
//! refused call stores no key and may be repeated.

mod store;

#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};

use clock::Instant;
use db::{self, Tx};

/// Maximum length of a key, in bytes. The surfaces refuse longer keys.
pub const KEY_LENGTH_MAX: usize = 255;

/// A call with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Surface, shop, operation and caller, such as `checkout/1/live/orders/user/5`. A key is unique within its scope.
    pub scope: String,
    /// The key that the client sent, at most [`KEY_LENGTH_MAX`] characters.
    pub key: String,
    /// SHA-256 of the request, by which a repetition is distinguished from another request.
    pub fingerprint: [u8; 32],
}

impl Call {
    /// Returns the call. `body` is the parsed request in a form that is the same for equal requests, such as its
    /// serialisation.
    pub fn new(scope: impl Into<String>, key: impl Into<String>, body: &[u8]) -> Call {
        Call { scope: scope.into(), key: key.into(), fingerprint: Sha256::digest(body).into() }
    }
}

/// The stored answer of the first call: its HTTP status and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status code of the response.
    pub status: u16,
    /// The body of the response, as it was sent.
    pub body: String,
}

/// The time for which a key and its answer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyExpiry {
    /// The key never expires: for calls that move money.
    Never,
    /// The key is deleted at this time or later; then the same call is executed again.
    At(Instant),
}

/// The result of claiming a key.
#[derive(Debug)]
pub enum ClaimResult {
    /// The key is new: the caller does the work and stores the answer.
    New(ClaimedKey),
    /// The same request was answered before, with this answer.
    Same(StoredAnswer),
    /// The key was used with another request.
    Mismatch,
}

/// A key that this transaction has claimed. The transaction must store the answer with [`ClaimedKey::keep`] before it
/// ends.
#[must_use = "the answer is kept with the key"]
#[derive(Debug)]
pub struct ClaimedKey {
    scope: String,
    key: String,
}

/// Claims a key. This must be the first statement of the transaction, so that a repeated call does nothing else.
pub async fn claim_idempotency_key(
    tx: &mut Tx,
    now: Instant,
    keep: KeyExpiry,
    call: &Call,
) -> Result<ClaimResult, db::Error> {
    let expires_at = match keep {
        KeyExpiry::Never => None,
        KeyExpiry::At(at) => Some(at),
    };
    if store::insert_idempotency_key(tx, now, expires_at, call).await? {
        return Ok(ClaimResult::New(ClaimedKey { scope: call.scope.clone(), key: call.key.clone() }));
    }
    Ok(match store::find_stored_answer(tx, call).await? {
        Some((fingerprint, answer)) if fingerprint == call.fingerprint => ClaimResult::Same(answer),
        Some(_) | None => ClaimResult::Mismatch,
    })
}

impl ClaimedKey {
    /// Stores the answer of the call with its key.
    pub async fn keep(self, tx: &mut Tx, answer: &StoredAnswer) -> Result<(), db::Error> {
        store::set_answer(tx, &self.scope, &self.key, answer).await
    }
}

/// Deletes at most `limit` expired keys and returns the number of deleted keys.
pub async fn delete_expired_keys(tx: &mut Tx, now: Instant, limit: u32) -> Result<u64, db::Error> {
    store::delete_expired_keys(tx, now, limit).await
}
