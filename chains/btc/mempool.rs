//! The transactions of a node's mempool that were already fetched, so that each one is fetched only once. This module
//! does no I/O.

use std::collections::HashMap;

use chain::{TxId, UnconfirmedTransfer};

/// The transfers to watched addresses of each transaction in the mempool. It has one entry per mempool transaction, so
/// it grows no larger than the node's mempool.
#[derive(Debug, Default)]
pub struct MempoolIndex(HashMap<TxId, Vec<UnconfirmedTransfer>, ahash::RandomState>);

impl MempoolIndex {
    /// Removes the transactions that are no longer listed. Returns the listed transactions that were not added yet, in
    /// order.
    pub fn update(&mut self, listed: &[TxId]) -> Vec<TxId> {
        let mut kept = HashMap::with_capacity_and_hasher(listed.len(), ahash::RandomState::default());
        let mut new = Vec::new();
        for txid in listed {
            match self.0.remove(txid) {
                Some(transfers) => drop(kept.insert(*txid, transfers)),
                None => new.push(*txid),
            }
        }
        self.0 = kept;
        new
    }

    /// Adds a transaction with its transfers to watched addresses. The list of transfers may be empty.
    pub fn add(&mut self, txid: TxId, transfers: Vec<UnconfirmedTransfer>) {
        self.0.insert(txid, transfers);
    }

    /// Returns all transfers to watched addresses, ordered by transaction and output.
    pub fn unconfirmed(&self) -> Vec<UnconfirmedTransfer> {
        let mut all: Vec<UnconfirmedTransfer> = self.0.values().flatten().cloned().collect();
        all.sort_by_key(|unconfirmed| (unconfirmed.txid, unconfirmed.part));
        all
    }
}

#[cfg(test)]
mod tests {
    use chain::{AddressKey, Amount, AssetId, TxPart};

    use super::*;

    fn transfer(txid: TxId) -> UnconfirmedTransfer {
        let (to, asset) = (AddressKey([1; 20]), AssetId::from_stored("bitcoin/native"));
        UnconfirmedTransfer { txid, part: TxPart::Output(0), asset, to, amount: Amount::from(5), replaceable: true }
    }

    #[test]
    fn each_transaction_is_listed_as_new_once_and_forgotten_when_it_is_gone() {
        let [a, b, c] = [1, 2, 3].map(|n| TxId([n; 32]));
        let mut mempool = MempoolIndex::default();
        assert_eq!(mempool.update(&[a, b]), [a, b]);
        mempool.add(a, vec![transfer(a)]);
        mempool.add(b, Vec::new());
        assert_eq!(mempool.update(&[c, b, a]), [c]);
        mempool.add(c, vec![transfer(c)]);
        assert_eq!(mempool.unconfirmed(), [transfer(a), transfer(c)]);
        assert_eq!(mempool.update(&[c]), []);
        assert_eq!(mempool.unconfirmed(), [transfer(c)]);
        assert_eq!(mempool.update(&[a]), [a], "a transaction that came back is new again");
    }
}
