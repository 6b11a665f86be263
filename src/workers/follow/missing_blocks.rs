//! The advice to the operator when no endpoint of a chain has the next block to read.

use chain::{ChainId, Family, Height};

/// Returns the advice to the operator when no endpoint of a chain returns the block `height`, which is the next one to
/// read. The follower never skips a block, because a payment in it would be lost.
pub fn describe_missing_blocks(family: Family, chain: &ChainId, height: Height) -> String {
    let node = match family {
        Family::Bitcoin => "a node that is not pruned below it, or an Esplora server with api = \"esplora\"",
        Family::Evm | Family::Tron => "a node that keeps the blocks and receipts of that time, such as an archive node",
    };
    format!(
        "no endpoint of {chain} returns block {height}, which is the next one to read, so no payment from there on is \
         seen; name {node} in [chains.{chain}], and following continues there without a gap"
    )
}
