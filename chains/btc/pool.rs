//! What of a node's mempool was looked at already: each transaction once, as long as it waits. Pure.

use std::collections::HashMap;

use chain::{Sighting, TxId};

/// The transactions that wait, and which of their outputs are ours. As large as the node's own mempool and no larger.
#[derive(Debug, Default)]
pub struct Looked(HashMap<TxId, Vec<Sighting>, ahash::RandomState>);

impl Looked {
    /// Forgets what is not listed any more and names what was not looked at yet, in the order of the list.
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

    pub fn add(&mut self, txid: TxId, found: Vec<Sighting>) {
        self.0.insert(txid, found);
    }

    /// What is on its way to us, in a stable order.
    pub fn sightings(&self) -> Vec<Sighting> {
        let mut all: Vec<Sighting> = self.0.values().flatten().cloned().collect();
        all.sort_by_key(|sighting| (sighting.txid, sighting.part));
        all
    }
}

#[cfg(test)]
mod tests {
    use chain::{AddressKey, Amount, AssetId, Part};

    use super::*;

    fn seen(txid: TxId) -> Sighting {
        let (to, asset) = (AddressKey([1; 20]), AssetId::stored("bitcoin/native"));
        Sighting { txid, part: Part::Output(0), asset, to, amount: Amount::from(5), replaceable: true }
    }

    #[test]
    fn each_transaction_is_looked_at_once_and_forgotten_when_it_is_gone() {
        let [a, b, c] = [1, 2, 3].map(|n| TxId([n; 32]));
        let mut looked = Looked::default();
        assert_eq!(looked.compare(&[a, b]), [a, b]);
        looked.add(a, vec![seen(a)]);
        looked.add(b, Vec::new());
        assert_eq!(looked.compare(&[c, b, a]), [c]);
        looked.add(c, vec![seen(c)]);
        assert_eq!(looked.sightings(), [seen(a), seen(c)]);
        assert_eq!(looked.compare(&[c]), []);
        assert_eq!(looked.sightings(), [seen(c)]);
        assert_eq!(looked.compare(&[a]), [a], "it came back and is looked at again");
    }
}
