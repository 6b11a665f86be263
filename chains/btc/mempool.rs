//! The transactions of a node's mempool that were already fetched, so that each one is fetched only once. This module
//! does no I/O.

use std::collections::HashMap;

use chain::{TxId, UnconfirmedTransfer};

/// The transfers to watched addresses, by mempool transaction. The map has one entry per transaction in the node's
/// mempool, so the size of the mempool limits its size.
#[derive(Debug, Default)]
pub struct MempoolIndex(HashMap<TxId, Vec<UnconfirmedTransfer>, ahash::RandomState>);

impl MempoolIndex {
    /// Removes the transactions that the node no longer lists. Returns the listed transactions that the caller must
    /// still fetch and add, in the order of the list.
    pub fn sync_listed_txids(&mut self, listed: &[TxId]) -> Vec<TxId> {
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
    pub fn add_transaction(&mut self, txid: TxId, transfers: Vec<UnconfirmedTransfer>) {
        self.0.insert(txid, transfers);
    }

    /// Returns all transfers to watched addresses, ordered by transaction and output.
    pub fn list_unconfirmed_transfers(&self) -> Vec<UnconfirmedTransfer> {
        let mut all: Vec<UnconfirmedTransfer> = self.0.values().flatten().cloned().collect();
        all.sort_by_key(|unconfirmed| (unconfirmed.txid, unconfirmed.part));
        all
    }
}

#[cfg(test)]
mod tests {
    use chain::{AddressKey, Amount, AssetId, TxPart};

    use super::*;

    fn unconfirmed_transfer(txid: TxId) -> UnconfirmedTransfer {
        let (to, asset) = (AddressKey([1; 20]), AssetId::from_stored("bitcoin/native"));
        UnconfirmedTransfer { txid, part: TxPart::Output(0), asset, to, amount: Amount::from(5), replaceable: true }
    }

    #[test]
    fn each_transaction_is_listed_as_new_once_and_forgotten_when_it_is_gone() {
        let [a, b, c] = [1, 2, 3].map(|n| TxId([n; 32]));
        let mut mempool = MempoolIndex::default();
        assert_eq!(mempool.sync_listed_txids(&[a, b]), [a, b]);
        mempool.add_transaction(a, vec![unconfirmed_transfer(a)]);
        mempool.add_transaction(b, Vec::new());
        assert_eq!(mempool.sync_listed_txids(&[c, b, a]), [c]);
        mempool.add_transaction(c, vec![unconfirmed_transfer(c)]);
        assert_eq!(mempool.list_unconfirmed_transfers(), [unconfirmed_transfer(a), unconfirmed_transfer(c)]);
        assert_eq!(mempool.sync_listed_txids(&[c]), []);
        assert_eq!(mempool.list_unconfirmed_transfers(), [unconfirmed_transfer(c)]);
        assert_eq!(mempool.sync_listed_txids(&[a]), [a], "a transaction that came back is new again");
    }
}
