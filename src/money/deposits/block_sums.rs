//! The values of the counted deposits of blocks, which determine the confirmations that these deposits need.

use std::collections::{BTreeMap, BTreeSet};

use chain::{ChainId, Height};

use crate::assets::Depths;
use crate::deposits::store;
use db::{self, Tx};

/// The sum of the values of the counted deposits in each block, in US cents, by block height. A sum is `None` when the
/// value of one of its deposits is unknown or the sum is out of range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BlockSums(BTreeMap<Height, Option<i64>>);

impl BlockSums {
    /// Returns the sums of the stored deposits that invoices count, for the blocks at these heights.
    pub async fn sum_stored_counted_deposits(
        tx: &mut Tx,
        chain: &ChainId,
        heights: impl Iterator<Item = Height>,
    ) -> Result<BlockSums, db::Error> {
        let heights: BTreeSet<Height> = heights.collect();
        let mut sums = BlockSums::default();
        for (height, value) in store::list_counted_deposit_values(tx, chain, &heights).await? {
            sums.add_value(height, value);
        }
        Ok(sums)
    }

    /// Returns true when no block has a counted deposit.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the value of a counted deposit, in US cents, to the sum of the block at `height`.
    pub fn add_value(&mut self, height: Height, usd_cents: Option<i64>) {
        let sum = self.0.entry(height).or_insert(Some(0));
        *sum = sum.zip(usd_cents).and_then(|(sum, value)| sum.checked_add(value));
    }

    /// Returns the number of confirmations that the deposits of each block need, by block height.
    pub fn required_confirmations(&self, depths: &Depths) -> BTreeMap<Height, u32> {
        self.0.iter().map(|(height, sum)| (*height, depths.required_confirmations(*sum))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deposits_of_one_block_need_the_confirmations_of_their_sum() {
        let depths = Depths { tiers: vec![(100_000, 1), (1_000_000, 2)], largest: 6, last: 6, least: 0 };
        let mut sums = BlockSums::default();
        for _ in 0..50 {
            sums.add_value(7, Some(99_900));
        }
        sums.add_value(8, Some(99_900));
        sums.add_value(9, Some(99_900));
        sums.add_value(9, Some(100));
        for value in [Some(1), None, Some(1)] {
            sums.add_value(10, value);
        }
        for _ in 0..2 {
            sums.add_value(11, Some(i64::MAX));
        }
        let expected = [(7, 6), (8, 1), (9, 2), (10, 6), (11, 6)];
        assert_eq!(sums.required_confirmations(&depths), expected.into());
    }
}
