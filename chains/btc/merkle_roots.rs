//! The two Merkle roots of a block: that of its transactions, which the header contains, and that of their witnesses,
//! which the coinbase contains (BIP141).

use bitcoin::{
    block::Header,
    hashes::{Hash, HashEngine, sha256d},
};

use crate::{block::InvalidBlock, transaction::ParsedTransaction};

/// The hashes of a block's transactions, from which its two Merkle roots are computed.
pub struct MerkleRoots<'a> {
    txids: Vec<sha256d::Hash>,
    wtxids: Vec<sha256d::Hash>,
    has_witness: bool,
    commitment: Option<&'a [u8]>,
    reserved: Option<&'a [u8]>,
}

impl<'a> MerkleRoots<'a> {
    /// Creates an empty list of hashes with room for `count` transactions, at most 16,384.
    pub fn new(count: usize) -> MerkleRoots<'a> {
        // Until the block is verified, its transaction count must not decide how much memory is allocated.
        let capacity = count.min(1 << 14);
        let (txids, wtxids) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
        MerkleRoots { txids, wtxids, has_witness: false, commitment: None, reserved: None }
    }

    /// Adds the hashes of the next transaction of the block. For the first transaction, the coinbase, `commitment` is
    /// the witness root that it contains; for other transactions it is ignored.
    pub fn add_transaction(&mut self, tx: &ParsedTransaction<'a>, commitment: Option<&'a [u8]>) {
        let txid = tx.compute_txid();
        self.txids.push(txid);
        self.has_witness |= tx.has_witness;
        if self.wtxids.is_empty() {
            // In the list of witness hashes, the coinbase has a zero hash (BIP141), because the coinbase contains the
            // root of this list.
            self.wtxids.push(sha256d::Hash::all_zeros());
            self.commitment = commitment;
            self.reserved = tx.first_witness_item();
        } else {
            self.wtxids.push(if tx.has_witness { tx.compute_wtxid() } else { txid });
        }
    }

    /// Returns the id of the transaction that was added last, in hash order.
    pub fn last_txid(&self) -> sha256d::Hash {
        *self.txids.last().expect("a transaction was added before")
    }

    /// Compares the computed roots with the root in the header and with the witness root in the coinbase. The witness
    /// root is not compared if no transaction of the block has a witness.
    pub fn verify_merkle_roots(mut self, header: &Header) -> Result<(), InvalidBlock> {
        if compute_merkle_root_unless_repeated(&mut self.txids) != Some(header.merkle_root.to_raw_hash()) {
            return Err(InvalidBlock::TransactionRoot);
        }
        let Some(commitment) = self.commitment else {
            return if self.has_witness { Err(InvalidBlock::WitnessRoot) } else { Ok(()) };
        };
        if !self.has_witness {
            return Ok(());
        }
        let reserved = self.reserved.filter(|reserved| reserved.len() == 32).ok_or(InvalidBlock::WitnessRoot)?;
        let witnesses = compute_merkle_root_unless_repeated(&mut self.wtxids).ok_or(InvalidBlock::WitnessRoot)?;
        let mut engine = sha256d::Hash::engine();
        engine.input(witnesses.as_byte_array());
        engine.input(reserved);
        if sha256d::Hash::from_engine(engine).as_byte_array() == commitment {
            Ok(())
        } else {
            Err(InvalidBlock::WitnessRoot)
        }
    }
}

/// Computes the Merkle root of `hashes` and overwrites them. Returns `None` if the list is empty or two neighbouring
/// hashes are equal: a list whose last entries are repeated has the same root as the original list, so the payments in
/// the repeated entries would be credited twice (CVE-2012-2459).
fn compute_merkle_root_unless_repeated(hashes: &mut Vec<sha256d::Hash>) -> Option<sha256d::Hash> {
    while hashes.len() > 1 {
        if hashes.chunks_exact(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        let half = hashes.len().div_ceil(2);
        for i in 0..half {
            let left = hashes[2 * i];
            let right = *hashes.get(2 * i + 1).unwrap_or(&left);
            let mut both = [0; 64];
            both[..32].copy_from_slice(left.as_byte_array());
            both[32..].copy_from_slice(right.as_byte_array());
            hashes[i] = sha256d::Hash::hash(&both);
        }
        hashes.truncate(half);
    }
    hashes.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_its_end_repeated_has_no_root() {
        let hash = |n: u8| sha256d::Hash::hash(&[n]);
        let three: Vec<_> = (1..=3).map(hash).collect();
        assert!(compute_merkle_root_unless_repeated(&mut three.clone()).is_some());
        assert_eq!(compute_merkle_root_unless_repeated(&mut [three, vec![hash(3)]].concat()), None);
        assert_eq!(compute_merkle_root_unless_repeated(&mut Vec::new()), None);
        assert_eq!(compute_merkle_root_unless_repeated(&mut vec![hash(9)]), Some(hash(9)));
    }
}
