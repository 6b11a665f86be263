//! The hash chain over the postings. The hash of a posting covers its fields and the hash of the previous posting.
//! Therefore a changed posting no longer matches its hash, and a removed posting leaves a gap in the numbers.

use sha2::{Digest, Sha256};

use crate::ledger::store::{self, StoredPosting};
use db::{self, Tx};
use ids::PostingSeq;

/// The hash that the first posting uses as the previous hash.
pub(crate) const GENESIS_HASH: [u8; 32] = [0; 32];

/// The fields of a posting that its hash covers.
#[derive(Debug, Clone)]
pub(super) struct HashedFields<'a> {
    /// The position of the posting in the hash chain, from 1.
    pub hash_chain_no: i64,
    /// The sequence number of the posting.
    pub seq: i64,
    /// The name of the journal entry.
    pub entry: &'a str,
    /// The index of the line in its journal entry, from 0.
    pub line_no: i64,
    /// The stored text of the kind, such as `posted`.
    pub kind: &'a str,
    /// The sequence number of the hold that the posting posts or voids; `None` for other postings.
    pub hold_seq: Option<i64>,
    /// The id of the debited account.
    pub debit_account_id: i64,
    /// The id of the credited account.
    pub credit_account_id: i64,
    /// The amount of the posting: base units of the asset, as 32 big-endian bytes.
    pub amount: [u8; 32],
    /// The reason of the posting, as the journal entry states it.
    pub reason: &'a str,
    /// The time when the journal entry was booked, in Unix milliseconds.
    pub created_at: i64,
}

impl HashedFields<'_> {
    /// Returns the SHA-256 hash of three things: a version text, `previous` (the hash of the previous posting), and the
    /// fields. Each field is preceded by its length, so that two different postings never produce the same bytes.
    pub fn compute_posting_hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"settled posting v1");
        hasher.update(previous);
        let mut field = |bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).expect("a field of a posting is shorter than 4 GiB");
            hasher.update(length.to_be_bytes());
            hasher.update(bytes);
        };
        field(&self.hash_chain_no.to_be_bytes());
        field(&self.seq.to_be_bytes());
        field(self.entry.as_bytes());
        field(&self.line_no.to_be_bytes());
        field(self.kind.as_bytes());
        field(&self.hold_seq.map(i64::to_be_bytes).unwrap_or_default());
        field(&self.debit_account_id.to_be_bytes());
        field(&self.credit_account_id.to_be_bytes());
        field(&self.amount);
        field(self.reason.as_bytes());
        field(&self.created_at.to_be_bytes());
        hasher.finalize().into()
    }
}

impl StoredPosting {
    /// Returns the hash that this posting gets at position `hash_chain_no` of the hash chain, when `previous` is the
    /// hash of the posting before it.
    pub fn compute_hash_after(&self, previous: &[u8; 32], hash_chain_no: i64) -> [u8; 32] {
        let fields = HashedFields {
            hash_chain_no,
            seq: self.seq.0,
            entry: &self.entry,
            line_no: self.line_no,
            kind: self.kind.as_str(),
            hold_seq: self.hold_seq.map(|seq| seq.0),
            debit_account_id: self.debit.0,
            credit_account_id: self.credit.0,
            amount: self.amount.to_be_bytes(),
            reason: &self.reason,
            created_at: self.created_at.0,
        };
        fields.compute_posting_hash(previous)
    }
}

/// Appends at most `limit` stored postings to the hash chain, oldest first, and returns the number of appended
/// postings. Only one instance of the daemon at a time may call this function. On SQLite it always returns 0, because
/// there each posting gets its hash when it is inserted.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn append_postings_to_hash_chain(tx: &mut Tx, limit: i64) -> Result<usize, db::Error> {
    let (mut hash_chain_no, mut previous) = store::find_hash_chain_end(tx).await?;
    let postings = store::list_postings_without_hash(tx, PostingSeq(0), limit).await?;
    let hashes = postings.iter().map(|posting| {
        hash_chain_no += 1;
        previous = posting.compute_hash_after(&previous, hash_chain_no);
        (posting.seq, hash_chain_no, previous)
    });
    let hashes: Vec<_> = hashes.collect();
    store::set_posting_hashes(tx, &hashes).await?;
    Ok(postings.len())
}
