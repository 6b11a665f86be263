//! What is read is what happened, whoever is asked.

use std::collections::HashSet;

use btc::{Access, Bitcoin, BitcoinConfig, Kind, Verify};
use chain::{Amount, InternalTransfers, Source, SourceError, TxPart, WatchSet};
use provision::bitcoind::{Bitcoind, BitcoindOptions};
use rpc::Endpoint;
use simnet::conformance::{Subject, check};

use crate::world::{NODE, World, read, transfers};

async fn conforms(access: Access, kind: Kind) {
    let world = World::with(kind).await;
    let source = world.bitcoin(access);
    let addresses = [world.ours[3].clone(), world.ours[4].clone(), world.ours[5].clone()];
    check(Subject { source: &source, assets: &[world.asset()], addresses }, &mut &world).await;
    assert_eq!(source.internal_transfers(), InternalTransfers::None);
}

#[tokio::test]
async fn bitcoin_core_keeps_the_contract() {
    conforms(Access::Core, Kind::P2wpkh).await;
}

#[tokio::test]
async fn esplora_keeps_the_contract() {
    conforms(Access::Esplora, Kind::P2wpkh).await;
}

#[tokio::test]
async fn taproot_keeps_the_contract() {
    conforms(Access::Core, Kind::P2tr).await;
}

#[tokio::test]
async fn every_output_counts_once_and_other_kinds_never() {
    let world = World::start().await;
    let [a, b, c] = &world.ours[..3] else { panic!("three are watched") };
    let taproot = World::with(Kind::P2tr).await.ours;
    let first = world.node.height().await.unwrap() + 1;
    let txid = world.pay(&[(a, 1_001), (b, 1_002), (a, 1_003), (&taproot[0], 1_004), (c, 1_005), (a, 1_006)]).await;
    world.pay(&[(&taproot[1], 1_009)]).await;
    world.node.mine(1).await.unwrap();

    let mut readings = Vec::new();
    for access in [Access::Core, Access::Esplora] {
        let source = world.bitcoin(access);
        let found = transfers(&read(&source, first, first, &world.watched).await);
        let told: Vec<_> = found.iter().map(|found| (found.index.part, found.to, found.amount)).collect();
        let output = |vout, to: &chain::Address, sats: u64| (TxPart::Output(vout), to.key, Amount::from(sats));
        let expected = [(0, a), (1, b), (2, a), (4, c), (5, a)];
        assert_eq!(told, expected.map(|(vout, to)| output(vout, to, 1_001 + u64::from(vout))));
        assert!(found.iter().all(|found| found.txid.to_string() == txid && found.index.tx_index >= 1));
        readings.push(found);
    }
    assert_eq!(readings[0], readings[1]);

    // Without the proofs the reading is the same.
    let unproven = BitcoinConfig {
        verify: Verify { work: false, commitments: false },
        ..world.config(Access::Core, &[&world.node.url()])
    };
    let unproven = Bitcoin::new(unproven).unwrap();
    assert_eq!(transfers(&read(&unproven, first, first, &world.watched).await), readings[0]);
}

#[tokio::test]
async fn a_coinbase_counts_when_it_may_be_spent() {
    let world = World::start().await;
    let first = world.node.height().await.unwrap() + 1;
    world.node.mine_to(&world.ours[0].text, 1).await.unwrap();
    world.node.mine(105).await.unwrap();
    let head = world.node.height().await.unwrap();
    for access in [Access::Core, Access::Esplora] {
        // In one go, and by a driver that was started in between.
        let whole = read(&world.bitcoin(access), first, head, &world.watched).await;
        let late = read(&world.bitcoin(access), first + 97, head, &world.watched).await;
        assert_eq!(whole[97..], late);
        let paid: Vec<u64> =
            whole.iter().filter(|block| !block.transfers.is_empty()).map(|block| block.header.height).collect();
        assert_eq!(paid, [first + 99], "the block with which it is a hundred deep");
        let transfer = &whole[99].transfers[0];
        assert_eq!((transfer.to, transfer.index.tx_index), (world.ours[0].key, 0));
    }
}

#[tokio::test]
async fn a_reorganised_chain_is_read_as_it_now_is() {
    let world = World::start().await;
    for access in [Access::Core, Access::Esplora] {
        let source = world.bitcoin(access);
        world.node.mine(2).await.unwrap();
        world.pay(&[(&world.ours[0], 50_000)]).await;
        world.node.mine(3).await.unwrap();
        let head = world.node.height().await.unwrap();
        let before = read(&source, head - 4, head, &world.watched).await;
        assert_eq!(transfers(&before).len(), 1);
        world.node.reorg(4).await.unwrap();
        let after = read(&source, head - 4, head, &world.watched).await;
        assert!(transfers(&after).is_empty(), "what was in the old blocks waits");
        assert_eq!(before[0], after[0]);
        assert_ne!(before[4].header.hash, after[4].header.hash);
        world.node.mine(1).await.unwrap();
        let again = read(&source, head + 2, head + 2, &world.watched).await;
        assert_eq!(transfers(&again).len(), 1);
        assert_eq!(source.header(head + 3).await.unwrap(), None);
        let above = source.blocks(head + 3, head + 5, &world.watched).await;
        assert_eq!(above, Err(SourceError::BlockNotFound(head + 3)));
    }
}

#[tokio::test]
async fn nothing_is_asked_twice() {
    let world = World::start().await;
    world.node.mine(120).await.unwrap();
    let head = world.node.height().await.unwrap();
    let source = world.bitcoin(Access::Core);
    source.tip().await.unwrap();
    let proof_and_tip = source.requests();
    assert_eq!(proof_and_tip, 3);
    source.tip().await.unwrap();
    assert_eq!(source.requests(), proof_and_tip + 1, "an unmoved head costs one request");
    read(&source, head - 109, head - 10, &world.watched).await;
    let caught_up = source.requests();
    read(&source, head - 9, head - 9, &world.watched).await;
    assert_eq!(source.requests() - caught_up, 2, "a hash and a block");
    assert!(read(&source, head - 8, head, &WatchSet::default()).await.iter().all(|block| block.transfers.is_empty()));
}

#[tokio::test]
async fn a_login_file_opens_a_node() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".cookie");
    let bare = format!("http://127.0.0.1:{}", world.node.port());
    let mut config = world.config(Access::Core, &[]);
    config.pool = rpc::Config::new(vec![Endpoint::new(&bare).unwrap().with_login_file(file.clone())]);
    let source = Bitcoin::new(config).unwrap();
    assert!(matches!(source.tip().await, Err(SourceError::Unavailable(why)) if why.contains("login file")));
    std::fs::write(&file, "settled:of-a-test\n").unwrap();
    assert!(source.tip().await.is_ok());
    std::fs::write(&file, "settled:wrong").unwrap();
    assert!(matches!(source.tip().await, Err(SourceError::Unavailable(why)) if why.contains("401")));
}

#[tokio::test]
async fn what_a_node_is_stands_in_its_report() {
    let world = World::start().await;
    let words = async |source: &Bitcoin| source.check_endpoints().await.remove(0).outcome;
    let whole = words(&world.bitcoin(Access::Core)).await.unwrap();
    assert!(whole.contains("regtest") && whole.contains("complete"), "{whole}");
    assert!(words(&world.bitcoin(Access::Esplora)).await.unwrap().contains("Esplora"));

    // Its newest block is from 2011: for all that it knows, it has years to read.
    let fresh = Bitcoind::start(BitcoindOptions::default()).await.unwrap();
    let syncing = Bitcoin::new(world.config(Access::Core, &[&fresh.url()])).unwrap();
    assert!(words(&syncing).await.unwrap_err().contains("still syncs"));

    let pruning = BitcoindOptions { extra: vec!["-prune=1".into(), "-fastprune".into()], ..BitcoindOptions::default() };
    let pruned = Bitcoind::start(pruning).await.unwrap();
    pruned.mine(1_000).await.unwrap();
    pruned.rpc("pruneblockchain", serde_json::json!([700])).await.unwrap();
    let source = Bitcoin::new(world.config(Access::Core, &[&pruned.url()])).unwrap();
    assert!(words(&source).await.unwrap().contains("pruned below block"));
    let gone = source.blocks(1, 2, &world.watched).await;
    assert!(matches!(&gone, Err(SourceError::Unsupported(why)) if why.contains("pruned")), "{gone:?}");

    let mut config = world.config(Access::Core, &[&world.node.url()]);
    config.network = bitcoin::Network::Signet;
    let other = Bitcoin::new(config).unwrap();
    assert!(words(&other).await.unwrap_err().contains("another network"));
    assert!(matches!(other.identity().await, Err(SourceError::InvalidResponse(_))));
    assert!(other.tip().await.is_err());
}

#[tokio::test]
async fn fees_are_told_within_bounds() {
    let world = World::start().await;
    let core = world.bitcoin(Access::Core).fee_rate(2).await.unwrap();
    assert_eq!(core, btc::fees::LEAST, "a node that saw nothing has no opinion");
    let esplora = world.bitcoin(Access::Esplora);
    assert_eq!(esplora.fee_rate(4).await.unwrap().0, 68_285);
    assert_eq!(esplora.fee_rate(1_000).await.unwrap(), btc::fees::LEAST, "clamped");
}

#[tokio::test]
async fn a_busy_block_is_read_whole() {
    let world = World::start().await;
    let strangers = World::with(Kind::P2wpkh).await.payer.address();
    let first = world.node.height().await.unwrap() + 1;
    for n in 0..10u64 {
        let mut to: Vec<(&str, u64)> = (0..150).map(|_| (strangers.as_str(), 1_000)).collect();
        to[usize::try_from(n).unwrap() * 7] = (&world.ours[1].text, 1_000 + n);
        world.payer.pay(&world.node, &to).await.expect(NODE);
    }
    world.node.mine(1).await.unwrap();
    let found = transfers(&read(&world.bitcoin(Access::Core), first, first, &world.watched).await);
    let sum: u128 = found.iter().map(|found| found.amount.units().to::<u128>()).sum();
    assert_eq!(sum, (0..10u128).map(|n| 1_000 + n).sum());
    let names: HashSet<_> = found.iter().map(|found| (found.txid, found.index.part)).collect();
    assert_eq!(names.len(), 10);
}
