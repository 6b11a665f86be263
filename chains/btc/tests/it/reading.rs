//! Tests of the blocks that the driver returns, over each backend.

use std::collections::HashSet;

use btc::{AddressType, Backend, Bitcoin, BitcoinConfig, Verify};
use chain::{Amount, InternalTransfers, Source, SourceError, TxPart, WatchSet};
use provision::bitcoind::{Bitcoind, BitcoindOptions};
use rpc::Endpoint;
use simnet::conformance::{SourceUnderTest, assert_source_keeps_contract};

use crate::world::{NODE, World, collect_transfers, read_blocks};

async fn assert_source_contract(backend: Backend, address_type: AddressType) {
    let world = World::start_with_address_type(address_type).await;
    let source = world.build_driver(backend);
    let addresses = [world.ours[3].clone(), world.ours[4].clone(), world.ours[5].clone()];
    assert_source_keeps_contract(
        SourceUnderTest { source: &source, assets: &[world.native_asset()], addresses },
        &mut &world,
    )
    .await;
    assert_eq!(source.internal_transfers(), InternalTransfers::None);
}

#[tokio::test]
async fn bitcoin_core_meets_the_contract_of_a_source() {
    assert_source_contract(Backend::Core, AddressType::P2wpkh).await;
}

#[tokio::test]
async fn esplora_meets_the_contract_of_a_source() {
    assert_source_contract(Backend::Esplora, AddressType::P2wpkh).await;
}

#[tokio::test]
async fn taproot_meets_the_contract_of_a_source() {
    assert_source_contract(Backend::Core, AddressType::P2tr).await;
}

#[tokio::test]
async fn every_output_counts_once_and_outputs_of_another_type_do_not_count() {
    let world = World::start().await;
    let [a, b, c] = &world.ours[..3] else { panic!("three addresses are watched") };
    let taproot = World::start_with_address_type(AddressType::P2tr).await.ours;
    let first = world.node.fetch_height().await.unwrap() + 1;
    let txid = world.pay(&[(a, 1_001), (b, 1_002), (a, 1_003), (&taproot[0], 1_004), (c, 1_005), (a, 1_006)]).await;
    world.pay(&[(&taproot[1], 1_009)]).await;
    world.node.mine(1).await.unwrap();

    let mut results = Vec::new();
    for backend in [Backend::Core, Backend::Esplora] {
        let source = world.build_driver(backend);
        let found = collect_transfers(&read_blocks(&source, first, first, &world.watched).await);
        let outputs: Vec<_> =
            found.iter().map(|transfer| (transfer.index.part, transfer.to, transfer.amount)).collect();
        let output = |vout, to: &chain::Address, sats: u64| (TxPart::Output(vout), to.key, Amount::from(sats));
        let expected = [(0, a), (1, b), (2, a), (4, c), (5, a)];
        assert_eq!(outputs, expected.map(|(vout, to)| output(vout, to, 1_001 + u64::from(vout))));
        assert!(found.iter().all(|transfer| transfer.txid.to_string() == txid && transfer.index.tx_index >= 1));
        results.push(found);
    }
    assert_eq!(results[0], results[1]);

    // Without verification the result is the same.
    let unverified = BitcoinConfig {
        verify: Verify { work: false, commitments: false },
        ..world.build_config(Backend::Core, &[&world.node.url()])
    };
    let unverified = Bitcoin::from_config(unverified).unwrap();
    assert_eq!(collect_transfers(&read_blocks(&unverified, first, first, &world.watched).await), results[0]);
}

#[tokio::test]
async fn a_coinbase_output_counts_when_it_may_be_spent() {
    let world = World::start().await;
    let first = world.node.fetch_height().await.unwrap() + 1;
    world.node.mine_to(&world.ours[0].text, 1).await.unwrap();
    world.node.mine(105).await.unwrap();
    let head = world.node.fetch_height().await.unwrap();
    for backend in [Backend::Core, Backend::Esplora] {
        // One driver reads all blocks; another one starts to read in the middle.
        let complete = read_blocks(&world.build_driver(backend), first, head, &world.watched).await;
        let late = read_blocks(&world.build_driver(backend), first + 97, head, &world.watched).await;
        assert_eq!(complete[97..], late);
        let heights_with_transfers: Vec<u64> =
            complete.iter().filter(|block| !block.transfers.is_empty()).map(|block| block.header.height).collect();
        assert_eq!(heights_with_transfers, [first + 99], "the hundredth block, the coinbase's own counted");
        let transfer = &complete[99].transfers[0];
        assert_eq!((transfer.to, transfer.index.tx_index), (world.ours[0].key, 0));
    }
}

#[tokio::test]
async fn after_a_reorg_the_new_branch_is_returned() {
    let world = World::start().await;
    for backend in [Backend::Core, Backend::Esplora] {
        let source = world.build_driver(backend);
        world.node.mine(2).await.unwrap();
        world.pay(&[(&world.ours[0], 50_000)]).await;
        world.node.mine(3).await.unwrap();
        let head = world.node.fetch_height().await.unwrap();
        let before = read_blocks(&source, head - 4, head, &world.watched).await;
        assert_eq!(collect_transfers(&before).len(), 1);
        world.node.reorg(4).await.unwrap();
        let after = read_blocks(&source, head - 4, head, &world.watched).await;
        assert!(collect_transfers(&after).is_empty(), "the payment is back in the mempool");
        assert_eq!(before[0], after[0]);
        assert_ne!(before[4].header.hash, after[4].header.hash);
        world.node.mine(1).await.unwrap();
        let again = read_blocks(&source, head + 2, head + 2, &world.watched).await;
        assert_eq!(collect_transfers(&again).len(), 1);
        assert_eq!(source.header(head + 3).await.unwrap(), None);
        let above = source.blocks(head + 3, head + 5, &world.watched).await;
        assert_eq!(above, Err(SourceError::BlockNotFound(head + 3)));
    }
}

#[tokio::test]
async fn known_headers_and_blocks_are_not_requested_again() {
    let world = World::start().await;
    world.node.mine(120).await.unwrap();
    let head = world.node.fetch_height().await.unwrap();
    let source = world.build_driver(Backend::Core);
    source.tip().await.unwrap();
    let chain_check_and_tip = source.requests();
    assert_eq!(chain_check_and_tip, 3);
    source.tip().await.unwrap();
    assert_eq!(source.requests(), chain_check_and_tip + 1, "an unmoved head costs one request");
    read_blocks(&source, head - 109, head - 10, &world.watched).await;
    let before = source.requests();
    read_blocks(&source, head - 9, head - 9, &world.watched).await;
    assert_eq!(source.requests() - before, 2, "one request for the hash and one for the block");
    assert!(
        read_blocks(&source, head - 8, head, &WatchSet::default()).await.iter().all(|block| block.transfers.is_empty())
    );
}

#[tokio::test]
async fn the_login_file_is_read_for_every_request() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".cookie");
    let bare = format!("http://127.0.0.1:{}", world.node.port());
    let mut config = world.build_config(Backend::Core, &[]);
    config.pool = rpc::Config::new(vec![Endpoint::new(&bare).unwrap().with_login_file(file.clone())]);
    let source = Bitcoin::from_config(config).unwrap();
    assert!(matches!(source.tip().await, Err(SourceError::Unavailable(why)) if why.contains("login file")));
    std::fs::write(&file, "settled:of-a-test\n").unwrap();
    assert!(source.tip().await.is_ok());
    std::fs::write(&file, "settled:wrong").unwrap();
    assert!(matches!(source.tip().await, Err(SourceError::Unavailable(why)) if why.contains("401")));
}

#[tokio::test]
async fn the_report_describes_the_node() {
    let world = World::start().await;
    let report = async |source: &Bitcoin| source.check_endpoints().await.remove(0).outcome;
    let complete = report(&world.build_driver(Backend::Core)).await.unwrap();
    assert!(complete.contains("regtest") && complete.contains("complete"), "{complete}");
    assert!(report(&world.build_driver(Backend::Esplora)).await.unwrap().contains("Esplora"));

    // Its newest block is from 2011, so the node reports that it is still syncing.
    let fresh = Bitcoind::start_node(BitcoindOptions::default()).await.unwrap();
    let syncing = Bitcoin::from_config(world.build_config(Backend::Core, &[&fresh.url()])).unwrap();
    assert!(report(&syncing).await.unwrap_err().contains("still syncs"));

    let pruning = BitcoindOptions { extra: vec!["-prune=1".into(), "-fastprune".into()], ..BitcoindOptions::default() };
    let pruned = Bitcoind::start_node(pruning).await.unwrap();
    pruned.mine(1_000).await.unwrap();
    pruned.call_rpc("pruneblockchain", serde_json::json!([700])).await.unwrap();
    let source = Bitcoin::from_config(world.build_config(Backend::Core, &[&pruned.url()])).unwrap();
    assert!(report(&source).await.unwrap().contains("pruned below block"));
    let pruned_blocks = source.blocks(1, 2, &world.watched).await;
    assert!(
        matches!(&pruned_blocks, Err(SourceError::Unsupported(why)) if why.contains("pruned")),
        "{pruned_blocks:?}"
    );

    let mut config = world.build_config(Backend::Core, &[&world.node.url()]);
    config.network = bitcoin::Network::Signet;
    let other = Bitcoin::from_config(config).unwrap();
    assert!(report(&other).await.unwrap_err().contains("another network"));
    assert!(matches!(other.identity().await, Err(SourceError::InvalidResponse(_))));
    assert!(other.tip().await.is_err());
}

#[tokio::test]
async fn fee_rates_stay_within_their_bounds() {
    let world = World::start().await;
    let core = world.build_driver(Backend::Core).estimate_bounded_fee_rate(2).await.unwrap();
    assert_eq!(core, btc::fees::FeeRate::MIN, "a new node has no estimate");
    let esplora = world.build_driver(Backend::Esplora);
    assert_eq!(esplora.estimate_bounded_fee_rate(4).await.unwrap().0, 68_285);
    assert_eq!(
        esplora.estimate_bounded_fee_rate(1_000).await.unwrap(),
        btc::fees::FeeRate::MIN,
        "an estimate below the minimum"
    );
}

#[tokio::test]
async fn all_transfers_of_a_large_block_are_found() {
    let world = World::start().await;
    let other_address = World::start_with_address_type(AddressType::P2wpkh).await.payer.address();
    let first = world.node.fetch_height().await.unwrap() + 1;
    for n in 0..10u64 {
        let mut to: Vec<(&str, u64)> = (0..150).map(|_| (other_address.as_str(), 1_000)).collect();
        to[usize::try_from(n).unwrap() * 7] = (&world.ours[1].text, 1_000 + n);
        world.payer.pay(&world.node, &to).await.expect(NODE);
    }
    world.node.mine(1).await.unwrap();
    let found = collect_transfers(&read_blocks(&world.build_driver(Backend::Core), first, first, &world.watched).await);
    let sum: u128 = found.iter().map(|transfer| transfer.amount.units().to::<u128>()).sum();
    assert_eq!(sum, (0..10u128).map(|n| 1_000 + n).sum());
    let unique: HashSet<_> = found.iter().map(|transfer| (transfer.txid, transfer.index.part)).collect();
    assert_eq!(unique.len(), 10);
}
