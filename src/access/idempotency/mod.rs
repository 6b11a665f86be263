//! Idempotency keys: a repeated call gets the answer of the first call. A call with the same key and another request is
//! refused.
//!
//! The key is claimed in the transaction that does the work and stores the answer, so the key, the work and the answer
//! are stored together or not at all. When two calls claim a key at the same time, the second call waits until the
//! transaction of the first call has ended. A refused call stores no key, so the client may repeat it.

mod store;

#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};

use clock::Instant;
use db::{self, Tx};

/// The maximum length of an idempotency key, in bytes. The surfaces refuse longer keys.
pub const KEY_LENGTH_MAX: usize = 255;

/// A call with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The scope within which the key is unique: surface, merchant, mode, operation and caller, such as
    /// `checkout/1/live/orders/user/5`.
    pub scope: String,
    /// The key that the client sent, at most [`KEY_LENGTH_MAX`] bytes.
    pub key: String,
    /// The SHA-256 hash of the request. It distinguishes a repeated request from another request.
    pub fingerprint: [u8; 32],
}

impl Call {
    /// Returns a call with the SHA-256 hash of its request. `body` is a canonical serialisation of the parsed request:
    /// equal requests must give equal bytes.
    pub fn from_request_body(scope: impl Into<String>, key: impl Into<String>, body: &[u8]) -> Call {
        Call { scope: scope.into(), key: key.into(), fingerprint: Sha256::digest(body).into() }
    }
}

/// The stored answer of the first call: the HTTP status and the body of the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status code of the response.
    pub status: u16,
    /// The body of the response, as it was sent.
    pub body: String,
}

/// The time until which an idempotency key and its answer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyExpiry {
    /// The key never expires. This value is for calls that move money.
    Never,
    /// The key is deleted at this time or later. After the deletion, a repeated call is executed again.
    At(Instant),
}

/// The result of an attempt to claim an idempotency key.
#[derive(Debug)]
pub enum ClaimResult {
    /// The key is new. The caller does the work and stores the answer.
    New(ClaimedKey),
    /// A call with the same key and the same request was answered before. The field is the stored answer.
    Same(StoredAnswer),
    /// The key was used with another request before.
    Mismatch,
}

/// An idempotency key that this transaction has claimed. The transaction must store the answer with
/// [`ClaimedKey::store_answer`] before it ends.
#[must_use = "the answer must be stored with the key"]
#[derive(Debug)]
pub struct ClaimedKey {
    scope: String,
    key: String,
}

/// Claims an idempotency key that is new; otherwise returns the stored answer of the first call with the key, or
/// [`ClaimResult::Mismatch`] when the first call had another request. This must be the first statement of the
/// transaction, so that a repeated call does nothing else.
pub async fn claim_key_or_find_answer(
    tx: &mut Tx,
    now: Instant,
    expiry: KeyExpiry,
    call: &Call,
) -> Result<ClaimResult, db::Error> {
    let expires_at = match expiry {
        KeyExpiry::Never => None,
        KeyExpiry::At(at) => Some(at),
    };
    loop {
        if store::insert_key_without_answer_if_new(tx, now, expires_at, call).await? {
            return Ok(ClaimResult::New(ClaimedKey { scope: call.scope.clone(), key: call.key.clone() }));
        }
        match store::find_fingerprint_and_answer(tx, call).await? {
            Some((fingerprint, answer)) if fingerprint == call.fingerprint => return Ok(ClaimResult::Same(answer)),
            Some(_) => return Ok(ClaimResult::Mismatch),
            // Another transaction deleted the expired key between the insert and the select. Insert the key again.
            None => {}
        }
    }
}

impl ClaimedKey {
    /// Stores the answer of the call with the claimed key.
    pub async fn store_answer(self, tx: &mut Tx, answer: &StoredAnswer) -> Result<(), db::Error> {
        store::set_first_answer(tx, &self.scope, &self.key, answer).await
    }
}

/// Deletes at most `limit` expired idempotency keys and returns the number of deleted keys.
pub async fn delete_expired_keys(tx: &mut Tx, now: Instant, limit: u32) -> Result<u64, db::Error> {
    store::delete_expired_keys(tx, now, limit).await
}
