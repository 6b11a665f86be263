//! Reads the unconfirmed transfers from the blocks above the newest solidified block. These blocks are cached, so that
//! the driver requests each block only once.

use std::{collections::VecDeque, sync::atomic::Ordering};

use chain::{Block, Header, Height, SourceError, UnconfirmedTransfer, WatchSet};

use crate::{Tron, http_api::ApiView};

/// The maximum number of cached blocks. When fewer than 19 block producers work, they still produce blocks, but none
/// becomes solidified. Without this limit, the cache would then grow without end.
const KEEP_MAX: usize = 600;

/// The cached blocks, oldest first. Each is the parent of the next one.
#[derive(Debug, Default)]
pub struct UnsolidifiedBlocks {
    blocks: VecDeque<Block>,
}

impl UnsolidifiedBlocks {
    /// Returns the first and last height that must be read so that the cache covers the blocks above `solid` up to
    /// `head`. Returns `None` when no block is missing, or when `head` is lower than the newest cached block: block
    /// producers extend the longest branch, so a node that is behind or on a shorter branch returned this `head`.
    /// Removes the cached block that `head` replaces, or all cached blocks when the newest of them is below `solid`.
    pub fn drop_stale_and_find_missing(&mut self, solid: Height, head: &Header) -> Option<(Height, Height)> {
        if self.blocks.back().is_some_and(|last| last.header.height < solid) {
            self.blocks.clear();
        }
        if let Some(last) = self.blocks.back().map(|block| block.header) {
            if head.height < last.height || head.block_ref() == last.block_ref() {
                return None;
            }
            if head.height == last.height {
                self.blocks.pop_back();
            }
        }
        let from = self.blocks.back().map_or(solid + 1, |last| last.header.height + 1);
        (from <= head.height).then_some((from, head.height))
    }

    /// Returns true when no block is cached.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Appends blocks to the cache, and removes the oldest blocks above [`KEEP_MAX`]. When a block is not the child of
    /// the newest cached block, clears the cache and returns false.
    pub fn extend_or_clear(&mut self, blocks: Vec<Block>) -> bool {
        for block in blocks {
            if self.blocks.back().is_some_and(|last| last.header.hash != block.header.parent) {
                self.blocks.clear();
                return false;
            }
            self.blocks.push_back(block);
            if self.blocks.len() > KEEP_MAX {
                self.blocks.pop_front();
            }
        }
        true
    }

    /// Removes the cached blocks up to and including a height.
    pub fn remove_blocks_up_to(&mut self, up_to: Height) {
        while self.blocks.front().is_some_and(|block| block.header.height <= up_to) {
            self.blocks.pop_front();
        }
    }

    /// Returns the transfers of all cached blocks.
    pub fn list_unconfirmed_transfers(&self) -> Vec<UnconfirmedTransfer> {
        let transfers = self.blocks.iter().flat_map(|block| &block.transfers);
        let unconfirmed = |transfer: &chain::Transfer| UnconfirmedTransfer {
            txid: transfer.txid,
            part: transfer.index.part,
            asset: transfer.asset.clone(),
            to: transfer.to,
            amount: transfer.amount,
            replaceable: false,
        };
        transfers.map(unconfirmed).collect()
    }
}

impl Tron {
    /// Returns the transfers in blocks that are not solidified, or that the follower has not stored yet. Reads only the
    /// blocks that are not in the cache.
    pub(crate) async fn refresh_and_list_unconfirmed(
        &self,
        watched: &WatchSet,
    ) -> Result<Vec<UnconfirmedTransfer>, SourceError> {
        let mut cached = self.unsolidified_blocks.lock().await;
        // The follower has requested the solidified height shortly before, so use that height.
        let solid = match self.solid_height.load(Ordering::Relaxed) {
            0 => self.fetch_and_record_newest_header(ApiView::Solid).await?.height,
            height => height,
        };
        let head = self.fetch_and_record_newest_header(ApiView::Head).await?;
        let lowest_kept = head.height.saturating_sub(u64::try_from(KEEP_MAX).unwrap_or(u64::MAX));
        let above = solid.max(lowest_kept);
        // If the new blocks do not follow the cached blocks, the chain has forked and the cache is now empty. The
        // second round reads all blocks above the solidified one again.
        for _ in 0..2 {
            while let Some((from, to)) = cached.drop_stale_and_find_missing(above, &head) {
                let blocks = match self.fetch_complete_blocks_until_failure(ApiView::Head, from, to, watched).await {
                    Ok(blocks) => blocks,
                    // The request may have reached a node that does not have the newer blocks. The cached blocks are
                    // still valid.
                    Err(_) if !cached.is_empty() => break,
                    Err(error) => return Err(error),
                };
                let read_to = blocks.last().map(|block| block.header.height);
                if !cached.extend_or_clear(blocks) || read_to == Some(to) {
                    break;
                }
            }
        }
        if cached.is_empty() && head.height > above {
            return Err(SourceError::Unavailable("the head changed while its blocks were read".to_owned()));
        }
        // A transfer stays unconfirmed until the follower has stored its block, even if the block is solidified.
        cached.remove_blocks_up_to(solid.min(self.stored_height.load(Ordering::Relaxed)));
        Ok(cached.list_unconfirmed_transfers())
    }
}

#[cfg(test)]
mod tests {
    use chain::BlockHash;

    use super::*;

    fn test_header(branch: u8, height: Height, parent: u8) -> Header {
        let hash = |branch: u8, height: Height| {
            let mut hash = [branch; 32];
            hash[..8].copy_from_slice(&height.to_be_bytes());
            BlockHash(hash)
        };
        Header { height, hash: hash(branch, height), parent: hash(parent, height - 1), time: 0 }
    }

    fn test_block(branch: u8, height: Height, parent: u8) -> Block {
        Block { header: test_header(branch, height, parent), transfers: Vec::new(), spends: Vec::new() }
    }

    #[test]
    fn each_block_is_requested_once() {
        let mut cached = UnsolidifiedBlocks::default();
        assert_eq!(cached.drop_stale_and_find_missing(10, &test_header(0, 12, 0)), Some((11, 12)));
        assert!(cached.extend_or_clear(vec![test_block(0, 11, 0), test_block(0, 12, 0)]));
        assert_eq!(cached.drop_stale_and_find_missing(10, &test_header(0, 12, 0)), None);
        assert_eq!(cached.drop_stale_and_find_missing(11, &test_header(0, 14, 0)), Some((13, 14)));
        cached.remove_blocks_up_to(11);
        assert!(cached.extend_or_clear(vec![test_block(0, 13, 0)]));
        assert_eq!(cached.drop_stale_and_find_missing(11, &test_header(0, 14, 0)), Some((14, 14)));
    }

    #[test]
    fn a_fork_is_detected_at_its_tip_or_below() {
        let mut cached = UnsolidifiedBlocks::default();
        assert!(cached.extend_or_clear((11..=14).map(|height| test_block(0, height, 0)).collect()));
        // A branch of the same length as the cached one. Only its last block differs.
        assert_eq!(cached.drop_stale_and_find_missing(10, &test_header(1, 14, 0)), Some((14, 14)));
        assert!(cached.extend_or_clear(vec![test_block(1, 14, 0)]));
        // A longer branch. Already a block below the newest cached one differs.
        assert_eq!(cached.drop_stale_and_find_missing(10, &test_header(2, 15, 2)), Some((15, 15)));
        assert!(!cached.extend_or_clear(vec![test_block(2, 15, 2)]));
        assert_eq!(cached.drop_stale_and_find_missing(10, &test_header(2, 15, 2)), Some((11, 15)));
    }

    #[test]
    fn the_head_of_a_lagging_node_changes_nothing() {
        let mut cached = UnsolidifiedBlocks::default();
        assert!(cached.extend_or_clear((11..=15).map(|height| test_block(0, height, 0)).collect()));
        for head in [test_header(0, 13, 0), test_header(1, 14, 1), test_header(0, 9, 0)] {
            assert_eq!(cached.drop_stale_and_find_missing(10, &head), None);
        }
        assert_eq!(
            cached.drop_stale_and_find_missing(10, &test_header(0, 16, 0)),
            Some((16, 16)),
            "the cached blocks are kept"
        );
    }
}
