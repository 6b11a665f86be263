//! Tests of reading: the requests that the driver sends, and the answers that it accepts.

use std::time::Duration;

use chain::{Address, AddressKey, Amount, AssetKind, BlockRef, Source, SourceError, TxPart, WatchSet};
use tron::transaction::Operation;
use tronnode::gateway::GatewayFault;

use crate::world::{CHAIN_ID, World};

#[tokio::test]
async fn a_chain_is_identified_by_its_genesis_block() {
    let world = World::start_world().await;
    assert_eq!(world.build_driver().identity().await.unwrap().id, CHAIN_ID.to_string());
    world.gateway.set_fault(GatewayFault::WrongChain);
    assert!(matches!(world.build_driver().identity().await, Err(SourceError::InvalidResponse(_))));
    assert!(
        matches!(world.build_driver().tip().await, Err(SourceError::Unavailable(_))),
        "an endpoint of another chain is not used"
    );
}

#[tokio::test]
async fn the_tip_is_the_solidified_block() {
    let world = World::start_world().await;
    let driver = world.build_driver();
    let tip = driver.tip().await.unwrap();
    let solid = world.node.model().solid_height();
    let head = world.node.model().head_height();
    assert_eq!((tip.head.height, tip.finalized), (solid, Some(tip.head.block_ref())));
    assert_eq!(solid, head - 18);
    assert_eq!(driver.header(solid).await.unwrap(), Some(tip.head));
    assert_eq!(driver.header(solid + 1).await.unwrap(), None);
    let usdt = chain::address::encode_tron_address(world.usdt).text;
    assert_eq!(driver.decimals(&usdt).await.unwrap(), 6);
}

#[tokio::test]
async fn an_endpoint_may_have_two_ports_and_an_api_key() {
    let world = World::start_world().await;
    let (full, solid) =
        (world.node.start_gateway_with_key("secret-key").await, world.node.start_gateway_with_key("secret-key").await);
    let endpoint = |key: &str| {
        let endpoint = rpc::Endpoint::new(&full.url).unwrap().with_path_override("walletsolidity", &solid.url).unwrap();
        endpoint.with_sensitive_header("TRON-PRO-API-KEY", key).unwrap()
    };
    let driver = world.build_driver_for_endpoints(vec![endpoint("secret-key")]);
    let watched = WatchSet::default();
    watched.insert(world.rich[1].account);
    world.node.send_operation(&world.rich[0], &Operation::Transfer { to: world.rich[1].account, sun: 5 });
    world.node.produce_blocks(1, 0);
    let unconfirmed = driver.unconfirmed(&watched, &[]).await.unwrap().unwrap();
    assert_eq!(unconfirmed.len(), 1);
    assert_eq!((unconfirmed[0].amount, unconfirmed[0].part), (Amount::from_units(5), TxPart::Value));
    assert!(full.request_count("getblock") > 0 && full.request_count("walletsolidity/getblock") == 0);
    assert!(solid.request_count("walletsolidity/getblock") > 0 && solid.request_count("wallet/getblock") == 0);
    assert!(world.build_driver_for_endpoints(vec![endpoint("another-key")]).tip().await.is_err());
    let report = driver.check_endpoints().await.remove(0).outcome.unwrap();
    assert!(report.contains("head 18 blocks above it") && !report.contains("secret"), "{report}");
}

#[tokio::test]
async fn a_range_becomes_smaller_where_answers_are_too_large() {
    let world = World::start_world().await;
    for _ in 0..30 {
        for _ in 0..20 {
            world.node.send_operation(&world.rich[0], &Operation::Transfer { to: world.rich[1].account, sun: 5 });
        }
        world.node.produce_blocks(1, 0);
    }
    world.node.produce_blocks(18, 0);
    let watched = WatchSet::default();
    watched.insert(world.rich[1].account);
    let mut pool = rpc::Config::new(vec![rpc::Endpoint::new(&world.gateway.url).unwrap()]);
    pool.body_bytes_max = 120_000;
    let driver = world.build_driver_with_pool(pool);
    let tip = driver.tip().await.unwrap().head.height;
    let mut from = tip - 29;
    let mut transfers = 0;
    while from <= tip {
        let blocks = driver.blocks(from, tip, &watched).await.unwrap();
        assert_eq!(blocks[0].header.height, from);
        from = blocks.last().unwrap().header.height + 1;
        transfers += blocks.iter().map(|block| block.transfers.len()).sum::<usize>();
    }
    assert_eq!(transfers, 600);
}

#[tokio::test]
async fn reading_takes_one_request_per_range_and_one_per_block_with_transactions() {
    let world = World::start_world().await;
    let (full, empty) = (40, 20);
    for _ in 0..full {
        world.node.send_operation(&world.rich[0], &Operation::Transfer { to: world.rich[1].account, sun: 5 });
        world.node.produce_blocks(1, 0);
    }
    world.node.produce_blocks(empty + 18, 0);
    let driver = world.build_driver();
    let tip = driver.tip().await.unwrap().head.height;
    let before = driver.requests();
    let mut from = tip + 1 - full - empty;
    while from <= tip {
        from += u64::try_from(driver.blocks(from, tip, &WatchSet::default()).await.unwrap().len()).unwrap();
    }
    assert_eq!(world.gateway.request_count("gettransactioninfobyblocknum"), full, "an empty block has no receipts");
    assert_eq!(driver.requests() - before, full + (full + empty) / 20, "ranges begin with twenty blocks");
}

#[tokio::test]
async fn past_balances_come_from_nodes_that_keep_their_history() {
    let world = World::start_world().await;
    let driver = world.build_driver();
    let (rich, unknown) = (
        chain::address::encode_tron_address(world.rich[1].account),
        chain::address::encode_tron_address(AddressKey([7; 20])),
    );
    let before = driver.tip().await.unwrap().head.block_ref();
    world.node.send_operation(&world.rich[0], &Operation::Transfer { to: world.rich[1].account, sun: 5 });
    world.node.produce_blocks(30, 0);
    let after = driver.tip().await.unwrap().head.block_ref();
    let balance = async |at: &BlockRef, address: &Address| {
        driver.balances(at, &AssetKind::Native, std::slice::from_ref(address)).await.map(|balances| balances[0])
    };
    // A node without the history of balances reports a balance of zero instead of an error.
    assert_eq!(balance(&after, &rich).await, Ok(Amount::ZERO));
    world.node.model().history = true;
    let (old, new) = (balance(&before, &rich).await.unwrap(), balance(&after, &rich).await.unwrap());
    assert_eq!(new, old.checked_add(Amount::from_units(5)).unwrap());
    assert_eq!(balance(&after, &unknown).await, Ok(Amount::ZERO));
    let mismatched = BlockRef { height: after.height, hash: before.hash };
    assert!(balance(&mismatched, &rich).await.is_err(), "no block has this height and this hash");
    let contract = chain::address::encode_tron_address(world.usdt).text;
    let token = driver.balances(&after, &AssetKind::Token { contract }, std::slice::from_ref(&rich)).await;
    assert!(matches!(token, Err(SourceError::Unsupported(_))), "{token:?}");
}

#[tokio::test]
async fn a_range_becomes_smaller_after_a_timeout() {
    let world = World::start_world().await;
    world.gateway.set_fault(GatewayFault::SlowRanges(6));
    let driver = world.build_driver_with_short_deadline();
    let watched = WatchSet::default();
    let blocks = async {
        loop {
            match driver.blocks(1, 20, &watched).await {
                Ok(blocks) => break blocks,
                Err(SourceError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(300)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let blocks = tokio::time::timeout(Duration::from_secs(60), blocks)
        .await
        .expect("the driver finds a range that is small enough");
    assert!((1..=6).contains(&blocks.len()), "{}", blocks.len());
}

#[tokio::test]
async fn a_node_that_does_not_simulate_calls_is_reported() {
    let world = World::start_world().await;
    world.gateway.set_fault(GatewayFault::NoSimulation);
    let driver = world.build_driver();
    let contract = chain::address::encode_tron_address(world.usdt).text;
    let refused = driver.decimals(&contract).await;
    assert!(matches!(&refused, Err(SourceError::Unsupported(_))), "{refused:?}");
    let report = driver.check_endpoints().await.remove(0).outcome.unwrap_err();
    assert!(report.contains("vm.supportConstant = true"), "{report}");
    // The driver uses another endpoint instead.
    let other = world.node.start_gateway().await;
    let endpoints = [&world.gateway.url, &other.url].map(|url| rpc::Endpoint::new(url).unwrap());
    assert_eq!(world.build_driver_for_endpoints(endpoints.to_vec()).decimals(&contract).await, Ok(6));
}

#[tokio::test]
async fn a_lagging_node_removes_no_unconfirmed_transfer() {
    let world = World::start_world().await;
    let behind = world.node.start_gateway().await;
    behind.set_fault(GatewayFault::Lagging(3));
    let endpoints = [&world.gateway.url, &behind.url].map(|url| rpc::Endpoint::new(url).unwrap());
    let driver = world.build_driver_for_endpoints(endpoints.to_vec());
    let watched = WatchSet::default();
    watched.insert(world.rich[1].account);
    world.node.send_operation(&world.rich[0], &Operation::Transfer { to: world.rich[1].account, sun: 5 });
    world.node.produce_blocks(1, 0);
    let mut seen = Vec::new();
    for _ in 0..6 {
        driver.tip().await.unwrap();
        seen.push(driver.unconfirmed(&watched, &[]).await.unwrap().unwrap().len());
    }
    let first = seen.iter().position(|seen| *seen == 1).expect("one endpoint has the transfer");
    assert!(seen[first..].iter().all(|seen| *seen == 1), "{seen:?}");
    let receipts = world.gateway.request_count("gettransactioninfobyblocknum")
        + behind.request_count("gettransactioninfobyblocknum");
    assert_eq!(receipts, 1, "each block is requested once");
}

#[tokio::test]
async fn a_transfer_stays_unconfirmed_until_its_block_is_stored() {
    let world = World::start_world().await;
    let driver = world.build_driver();
    let watched = WatchSet::default();
    watched.insert(world.rich[1].account);
    let seen = async || driver.unconfirmed(&watched, &[]).await.unwrap().unwrap().len();
    world.node.send_operation(&world.rich[0], &Operation::Transfer { to: world.rich[1].account, sun: 5 });
    world.node.produce_blocks(1, 0);
    assert_eq!(seen().await, 1);
    world.node.produce_blocks(18, 0);
    let tip = driver.tip().await.unwrap().head.height;
    assert_eq!(seen().await, 1, "the block is solidified and not booked yet");
    driver.blocks(tip, tip, &watched).await.unwrap();
    assert_eq!(seen().await, 1, "the block was read, but may not be stored yet");
    world.node.produce_blocks(1, 0);
    driver.tip().await.unwrap();
    driver.blocks(tip + 1, tip + 1, &watched).await.unwrap();
    assert_eq!(seen().await, 0, "a caller that requests the next block has stored this one");
}
