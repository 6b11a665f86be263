//! The hash chain over postings. Canonical bytes are versioned and length-prefixed, so that no field bleeds into another.

use sha2::{Digest, Sha256};

use crate::ledger::store;
use db::{self, Tx};

/// The hash before the first posting.
pub(super) const GENESIS: [u8; 32] = [0; 32];

/// A posting as it is hashed.
#[derive(Debug, Clone)]
pub(super) struct Canonical<'a> {
    pub seal_no: i64,
    pub seq: i64,
    pub entry: &'a str,
    pub leg: i64,
    pub kind: &'a str,
    pub pending_seq: Option<i64>,
    pub debit_id: i64,
    pub credit_id: i64,
    pub amount: [u8; 32],
    pub reason: &'a str,
    pub at: i64,
}

impl Canonical<'_> {
    /// SHA-256 over the version, the previous hash and every field behind its length.
    pub fn hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"settled posting v1");
        hasher.update(previous);
        let mut field = |bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).expect("fields of a posting are short");
            hasher.update(length.to_be_bytes());
            hasher.update(bytes);
        };
        field(&self.seal_no.to_be_bytes());
        field(&self.seq.to_be_bytes());
        field(self.entry.as_bytes());
        field(&self.leg.to_be_bytes());
        field(self.kind.as_bytes());
        field(&self.pending_seq.map(i64::to_be_bytes).unwrap_or_default());
        field(&self.debit_id.to_be_bytes());
        field(&self.credit_id.to_be_bytes());
        field(&self.amount);
        field(self.reason.as_bytes());
        field(&self.at.to_be_bytes());
        hasher.finalize().into()
    }
}

/// Chains postings that are stored but not sealed, at most `limit`; returns how many. Only the instance that leads does it.
/// On SQLite there are none: the one writer seals each posting as it stores it.
pub async fn append_to_hash_chain(tx: &mut Tx, limit: i64) -> Result<usize, db::Error> {
    let (mut no, mut previous) = store::find_last_append_to_hash_chain(tx).await?;
    let unsealed = store::list_unsealed(tx, limit).await?;
    let seals = unsealed.iter().map(|posting| {
        no += 1;
        previous = posting.canonical(no).hash(&previous);
        (posting.seq, no, previous)
    });
    let seals: Vec<_> = seals.collect();
    store::set_seals(tx, &seals).await?;
    Ok(unsealed.len())
}
