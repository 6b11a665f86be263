//! The conformance suite: tests that every chain driver must pass. Drivers run it in their tests with
//! [`assert_source_keeps_contract`].

use async_trait::async_trait;
use chain::{Address, Amount, Asset, AssetKind, Block, BlockRef, Height, Source, SourceError, Transfer, WatchSet};

/// Controls the chain that the conformance suite reads: pays, mines and reorganises.
#[async_trait]
pub trait ChainOperator: Send {
    /// Sends a payment, which the next mined block includes.
    async fn pay(&mut self, asset: &Asset, to: &Address, amount: Amount);

    /// Mines this number of blocks.
    async fn mine(&mut self, blocks: u64);

    /// Replaces the last `depth` blocks by a longer branch.
    async fn reorg(&mut self, depth: u64);
}

/// The source that the conformance suite tests, with its assets and addresses.
pub struct SourceUnderTest<'a> {
    /// The driver that [`assert_source_keeps_contract`] calls.
    pub source: &'a dyn Source,
    /// The listed assets, with which the operator pays.
    pub assets: &'a [Asset],
    /// Three addresses that have never received a payment. The suite watches the first two only.
    pub addresses: [Address; 3],
}

/// Reads the blocks `from..=to` with as many requests as are needed.
///
/// # Panics
/// Panics when a request fails, or when an answer is empty, has a gap, or has transfers that are not in order.
pub async fn read_blocks(source: &dyn Source, from: Height, to: Height, watched: &WatchSet) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut next = from;
    while next <= to {
        let page = source.blocks(next, to, watched).await.expect("blocks below the head can be read");
        assert!(!page.is_empty(), "an answer has at least one block");
        for block in page {
            assert_eq!(block.header.height, next, "blocks ascend without a gap");
            if let Some(parent) = blocks.last() {
                assert_eq!(block.header.parent, parent.header.hash, "each block is the parent of the next");
            }
            let indices: Vec<_> = block.transfers.iter().map(|transfer| transfer.index).collect();
            assert!(indices.is_sorted_by(|a, b| a < b), "transfers ascend by an index that is unique in the block");
            blocks.push(block);
            next += 1;
        }
    }
    blocks
}

/// Runs the conformance suite against one source.
///
/// # Panics
/// Panics when the source breaks a rule of the contract.
pub async fn assert_source_keeps_contract(subject: SourceUnderTest<'_>, operator: &mut dyn ChainOperator) {
    let SourceUnderTest { source, assets, addresses } = subject;
    assert_eq!(source.identity().await, source.identity().await, "a chain stays the same chain");
    let requests_before = source.requests();
    operator.mine(1).await;
    let before = assert_tip_matches_headers(source).await;
    assert!(source.requests() > requests_before, "requests are counted");

    // The first two addresses are watched; the third one is not.
    let watched = WatchSet::default();
    watched.insert(addresses[0].key);
    watched.insert(addresses[1].key);
    let mut expected = Vec::new();
    for (asset, units) in assets.iter().zip(1_000_000u64..) {
        for address in &addresses {
            operator.pay(asset, address, Amount::from(units)).await;
        }
        expected.extend(addresses[..2].iter().map(|to| (asset.id.clone(), to.key, Amount::from(units))));
    }
    operator.mine(3).await;
    let after = assert_tip_matches_headers(source).await;
    assert!(after.height >= before.height + 3);

    let blocks = read_blocks(source, before.height + 1, after.height, &watched).await;
    assert_eq!(blocks[0].header.parent, before.hash);
    let found = blocks.iter().flat_map(|block| &block.transfers);
    let mut found: Vec<_> = found.map(|t: &Transfer| (t.asset.clone(), t.to, t.amount)).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "every transfer to a watched address is found once, others never");

    let mut one_by_one = Vec::new();
    for height in before.height + 1..=after.height {
        one_by_one.extend(read_blocks(source, height, height, &watched).await);
    }
    assert_eq!(one_by_one, blocks, "the blocks do not depend on the size of the requests");
    let unwatched = read_blocks(source, before.height + 1, after.height, &WatchSet::default()).await;
    assert!(unwatched.iter().all(|block| block.transfers.is_empty()));

    assert_native_balances(source, assets, &addresses, before, after).await;
    for asset in assets {
        if let chain::AssetKind::Token { contract } = &asset.kind {
            assert_eq!(source.decimals(contract).await, Ok(asset.decimals));
        }
    }
    assert!(source.check_endpoints().await.iter().all(|report| report.outcome.is_ok()));

    operator.reorg(2).await;
    let forked = assert_tip_matches_headers(source).await;
    assert_ne!(source.header(after.height).await.unwrap_or(None).map(|header| header.hash), Some(after.hash));
    let fork = after.height - 2;
    let fork = source.header(fork).await.expect("the node answers").expect("below the head").block_ref();
    let branch = read_blocks(source, fork.height + 1, forked.height, &watched).await;
    assert_eq!(branch[0].header.parent, fork.hash, "the new branch starts at the fork");
}

/// Asserts that the newest and the final block of the tip are the blocks at their heights, and that there is no block
/// above the newest one. Returns the newest block.
async fn assert_tip_matches_headers(source: &dyn Source) -> BlockRef {
    let tip = source.tip().await.expect("the node answers");
    if let Some(mark) = tip.finalized {
        let header = source.header(mark.height).await.map(|header| header.map(|header| header.block_ref()));
        assert_eq!(header, Ok(Some(mark)), "the final block is on the node's branch");
    }
    let head = tip.head.block_ref();
    assert_eq!(source.header(head.height).await, Ok(Some(tip.head)));
    assert_eq!(source.header(head.height + 1).await, Ok(None), "there is no header above the head");
    let above = source.blocks(head.height + 1, head.height + 2, &WatchSet::default()).await;
    assert_eq!(above, Err(SourceError::BlockNotFound(head.height + 1)));
    head
}

/// Asserts that the source returns the native balances in the order of `addresses`: zero after the block `before`, and
/// the paid amount after the block `after`. A source that does not support past balances passes.
async fn assert_native_balances(
    source: &dyn Source,
    assets: &[Asset],
    addresses: &[Address],
    before: BlockRef,
    after: BlockRef,
) {
    let paid = assets.iter().zip(1_000_000u64..).find(|(asset, _)| asset.is_native()).map_or(0, |(_, units)| units);
    let balances_at =
        async |block: &BlockRef, asked: &[Address]| match source.balances(block, &AssetKind::Native, asked).await {
            Ok(balances) => Some(balances),
            Err(SourceError::Unsupported(_)) => None,
            Err(other) => panic!("balances at {block:?}: {other}"),
        };
    let empty = vec![Amount::ZERO; addresses.len()];
    let filled = vec![Amount::from(paid); addresses.len()];
    assert!(balances_at(&before, addresses).await.is_none_or(|balances| balances == empty));
    assert!(balances_at(&after, addresses).await.is_none_or(|balances| balances == filled));
}
