//! Idempotency keys: a repeated call gets the first one's answer, and the same key with another body is told apart.
//!
//! The key is claimed in the transaction that does the work and stores its answer, so that both exist or neither. Two
//! calls at once wait for each other at the claim; a refused call leaves no key behind and may be repeated.

mod store;

#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};

use clock::Instant;
use db::{self, Tx};

/// Longer keys are refused by the surfaces.
pub const KEY_LENGTH_MAX: usize = 255;

/// What identifies a call. The scope names surface, shop and operation: `checkout/1/live/orders`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub scope: String,
    pub key: String,
    pub fingerprint: [u8; 32],
}

impl Call {
    /// `body` is the request as it was understood, in a form that is the same for equal requests.
    pub fn new(scope: impl Into<String>, key: impl Into<String>, body: &[u8]) -> Call {
        Call { scope: scope.into(), key: key.into(), fingerprint: Sha256::digest(body).into() }
    }
}

/// The stored answer of the first call: its HTTP status and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// How long a key is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// For calls that move money.
    ForEver,
    Until(Instant),
}

#[derive(Debug)]
pub enum Claim {
    New(Claimed),
    Same(Answer),
    /// The key was used with another body.
    Mismatch,
}

/// A key that is ours in this transaction: it must get its answer before the transaction ends.
#[must_use = "the answer is kept with the key"]
#[derive(Debug)]
pub struct Claimed {
    scope: String,
    key: String,
}

/// First statement of a transaction that may be asked for twice.
pub async fn claim(tx: &mut Tx, now: Instant, keep: Keep, call: &Call) -> Result<Claim, db::Error> {
    let expires_at = match keep {
        Keep::ForEver => None,
        Keep::Until(at) => Some(at),
    };
    if store::insert_key(tx, now, expires_at, call).await? {
        return Ok(Claim::New(Claimed { scope: call.scope.clone(), key: call.key.clone() }));
    }
    Ok(match store::find_answer(tx, call).await? {
        Some((fingerprint, answer)) if fingerprint == call.fingerprint => Claim::Same(answer),
        Some(_) | None => Claim::Mismatch,
    })
}

impl Claimed {
    pub async fn keep(self, tx: &mut Tx, answer: &Answer) -> Result<(), db::Error> {
        store::set_answer(tx, &self.scope, &self.key, answer).await
    }
}

/// Removes up to `limit` keys whose time is over and returns how many there were.
pub async fn forget_expired(tx: &mut Tx, now: Instant, limit: u32) -> Result<u64, db::Error> {
    store::delete_expired(tx, now, limit).await
}
