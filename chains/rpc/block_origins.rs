//! Remembers which endpoints returned the transfers of recent blocks, so that an endpoint of another provider can be
//! asked to confirm these transfers.

use std::collections::BTreeMap;

use chain::{BlockHash, BlockRef, Height};

/// Maximum number of blocks whose endpoints are stored. To confirm a transfer of an older block, two providers are
/// asked.
const BLOCKS_MAX: usize = 10_000;

/// The endpoints that returned each recent block, by height.
#[derive(Debug, Default)]
pub struct BlockOrigins(BTreeMap<Height, Origin>);

/// The endpoints that returned one block.
#[derive(Debug)]
struct Origin {
    hash: BlockHash,
    /// The endpoints that returned transfers of the block, each by its index in the configuration. There can be
    /// several, because the block may have been read more than once, and a transfer of each reply may have been booked.
    endpoints: Vec<usize>,
    /// True when the block also has transfers whose endpoint is not known.
    is_unknown: bool,
}

impl BlockOrigins {
    /// Stores that an endpoint returned transfers of the block, or the data from which they were computed.
    pub fn record_endpoint(&mut self, block: BlockRef, endpoint: usize) {
        let origin = self.get_or_replace_and_drop_lowest(block);
        if !origin.endpoints.contains(&endpoint) {
            origin.endpoints.push(endpoint);
        }
    }

    /// Stores that the block has transfers whose endpoint is not known.
    pub fn record_unknown(&mut self, block: BlockRef) {
        self.get_or_replace_and_drop_lowest(block).is_unknown = true;
    }

    /// Returns the endpoints that returned the transfers of the block; `None` when these endpoints are not known, for
    /// example because the block was read before the last start of the daemon.
    pub fn find_endpoints(&self, block: &BlockRef) -> Option<Vec<usize>> {
        let origin = self.0.get(&block.height).filter(|origin| origin.hash == block.hash)?;
        (!origin.is_unknown && !origin.endpoints.is_empty()).then(|| origin.endpoints.clone())
    }

    /// Returns the origin of a block and adds an empty one if needed. The origin of another block at the same height is
    /// replaced. When [`BLOCKS_MAX`] blocks are stored, the lowest one is dropped first.
    fn get_or_replace_and_drop_lowest(&mut self, block: BlockRef) -> &mut Origin {
        if self.0.len() >= BLOCKS_MAX && !self.0.contains_key(&block.height) {
            self.0.pop_first();
        }
        let new = || Origin { hash: block.hash, endpoints: Vec::new(), is_unknown: false };
        let origin = self.0.entry(block.height).or_insert_with(new);
        if origin.hash != block.hash {
            *origin = new();
        }
        origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_of_a_block_is_an_origin_and_another_branch_starts_anew() {
        let block = |height, byte| BlockRef { height, hash: BlockHash([byte; 32]) };
        let mut origins = BlockOrigins::default();
        assert_eq!(origins.find_endpoints(&block(1, 1)), None);
        for endpoint in [2, 0, 2] {
            origins.record_endpoint(block(1, 1), endpoint);
        }
        assert_eq!(origins.find_endpoints(&block(1, 1)), Some(vec![2, 0]));
        origins.record_unknown(block(1, 1));
        assert_eq!(origins.find_endpoints(&block(1, 1)), None);
        origins.record_endpoint(block(1, 9), 1);
        assert_eq!(origins.find_endpoints(&block(1, 9)), Some(vec![1]));
        assert_eq!(origins.find_endpoints(&block(1, 1)), None);
        for height in 2..=u64::try_from(BLOCKS_MAX).unwrap() + 1 {
            origins.record_endpoint(block(height, 1), 0);
        }
        assert_eq!(origins.find_endpoints(&block(1, 9)), None, "the lowest block was dropped");
        assert_eq!(origins.find_endpoints(&block(2, 1)), Some(vec![0]));
    }
}
