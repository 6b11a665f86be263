//! What of a node's mempool was mempool at already: each transaction once, as long as it waits. Pure.

use std::collections::HashMap;

use chain::{TxId, UnconfirmedTransfer};

/// The transactions that wait, and which of their outputs are ours. As large as the node's own mempool and no larger.
#[derive(Debug, Default)]
pub struct MempoolIndex(HashMap<TxId, Vec<UnconfirmedTransfer>, ahash::RandomState>);

impl MempoolIndex {
    /// Forgets what is not listed any more and names what was not mempool at yet, in the order of the list.
    pub fn compare(&mut self, listed: &[TxId]) -> Vec<TxId> {
        let mut still = HashMap::with_capacity_and_hasher(listed.len(), ahash::RandomState::default());
        let mut new = Vec::new();
        for txid in listed {
            match self.0.remove(txid) {
                Some(found) => drop(still.insert(*txid, found)),
                None => new.push(*txid),
            }
        }
        self.0 = still;
        new
    }

    pub fn add(&mut self, txid: TxId, found: Vec<UnconfirmedTransfer>) {
        self.0.insert(txid, found);
    }

    /// What is on its way to us, in a stable order.
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

    fn seen(txid: TxId) -> UnconfirmedTransfer {
        let (to, asset) = (AddressKey([1; 20]), AssetId::from_stored("bitcoin/native"));
        UnconfirmedTransfer { txid, part: TxPart::Output(0), asset, to, amount: Amount::from(5), replaceable: true }
    }

    #[test]
    fn each_transaction_is_looked_at_once_and_forgotten_when_it_is_gone() {
        let [a, b, c] = [1, 2, 3].map(|n| TxId([n; 32]));
        let mut mempool = MempoolIndex::default();
        assert_eq!(mempool.compare(&[a, b]), [a, b]);
        mempool.add(a, vec![seen(a)]);
        mempool.add(b, Vec::new());
        assert_eq!(mempool.compare(&[c, b, a]), [c]);
        mempool.add(c, vec![seen(c)]);
        assert_eq!(mempool.unconfirmed(), [seen(a), seen(c)]);
        assert_eq!(mempool.compare(&[c]), []);
        assert_eq!(mempool.unconfirmed(), [seen(c)]);
        assert_eq!(mempool.compare(&[a]), [a], "it came back and is mempool at again");
    }
}
