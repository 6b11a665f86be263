//! What a node is asked, and what of its answers is believed.

use chain::{Amount, Part, Source, SourceError, WatchSet};
use tron::transaction::Act;
use tronnode::gateway::Fault;

use crate::world::{CHAIN_ID, World};

#[tokio::test]
async fn a_chain_is_known_by_its_genesis_block() {
    let world = World::start().await;
    assert_eq!(world.driver().identity().await.unwrap().id, CHAIN_ID.to_string());
    world.gateway.set(Fault::Foreign);
    assert!(matches!(world.driver().identity().await, Err(SourceError::Wrong(_))));
    assert!(matches!(world.driver().tip().await, Err(SourceError::Unavailable(_))), "nor is it asked anything else");
}

#[tokio::test]
async fn the_tip_is_solidified() {
    let world = World::start().await;
    let driver = world.driver();
    let tip = driver.tip().await.unwrap();
    let solid = world.node.model().solid_height();
    let head = world.node.model().head_height();
    assert_eq!((tip.head.height, tip.finalized), (solid, Some(solid)));
    assert_eq!(solid, head - 18);
    assert_eq!(driver.header(solid).await.unwrap(), Some(tip.head));
    assert_eq!(driver.header(solid + 1).await.unwrap(), None);
    let usdt = chain::derive::tron_address(world.usdt).text;
    assert_eq!(driver.decimals(&usdt).await.unwrap(), 6);
}

#[tokio::test]
async fn a_node_with_two_ports_and_a_key() {
    let world = World::start().await;
    let (full, solid) =
        (world.node.gateway_with_key("secret-key").await, world.node.gateway_with_key("secret-key").await);
    let endpoint = |key: &str| {
        let endpoint = rpc::Endpoint::new(&full.url).unwrap().with_elsewhere("walletsolidity", &solid.url).unwrap();
        endpoint.with_header("TRON-PRO-API-KEY", key).unwrap()
    };
    let driver = world.driver_of(vec![endpoint("secret-key")]);
    let watched = WatchSet::default();
    watched.insert(world.rich[1].account);
    world.node.send(&world.rich[0], &Act::Transfer { to: world.rich[1].account, sun: 5 });
    world.node.produce(1, 0);
    let sightings = driver.sightings(&watched, &[]).await.unwrap().unwrap();
    assert_eq!(sightings.len(), 1);
    assert_eq!((sightings[0].amount, sightings[0].part), (Amount::from_units(5), Part::Value));
    assert!(full.asked("getblock") > 0 && full.asked("walletsolidity/getblock") == 0);
    assert!(solid.asked("walletsolidity/getblock") > 0 && solid.asked("wallet/getblock") == 0);
    assert!(world.driver_of(vec![endpoint("another-key")]).tip().await.is_err());
    let report = driver.check().await.remove(0).outcome.unwrap();
    assert!(report.contains("head 18 blocks above it") && !report.contains("secret"), "{report}");
}

#[tokio::test]
async fn a_long_range_is_cut_where_answers_are_too_large() {
    let world = World::start().await;
    for _ in 0..30 {
        for _ in 0..20 {
            world.node.send(&world.rich[0], &Act::Transfer { to: world.rich[1].account, sun: 5 });
        }
        world.node.produce(1, 0);
    }
    world.node.produce(18, 0);
    let watched = WatchSet::default();
    watched.insert(world.rich[1].account);
    let mut pool = rpc::Config::new(vec![rpc::Endpoint::new(&world.gateway.url).unwrap()]);
    pool.body_bytes_max = 120_000;
    let driver = world.driver_with(pool);
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
async fn a_block_costs_one_request_and_a_range_one_more() {
    let world = World::start().await;
    let (full, empty) = (40, 20);
    for _ in 0..full {
        world.node.send(&world.rich[0], &Act::Transfer { to: world.rich[1].account, sun: 5 });
        world.node.produce(1, 0);
    }
    world.node.produce(empty + 18, 0);
    let driver = world.driver();
    let tip = driver.tip().await.unwrap().head.height;
    let before = driver.requests();
    let mut from = tip + 1 - full - empty;
    while from <= tip {
        from += u64::try_from(driver.blocks(from, tip, &WatchSet::default()).await.unwrap().len()).unwrap();
    }
    assert_eq!(world.gateway.asked("gettransactioninfobyblocknum"), full, "an empty block has no receipts");
    assert_eq!(driver.requests() - before, full + (full + empty) / 20, "ranges begin with twenty blocks");
}

#[tokio::test]
async fn past_balances_are_not_made_up() {
    let world = World::start().await;
    let driver = world.driver();
    let at = driver.tip().await.unwrap().head.position();
    let of = [chain::derive::tron_address(world.rich[0].account)];
    let native = driver.balances(&at, &chain::AssetKind::Native, &of).await;
    assert!(matches!(native, Err(SourceError::Unsupported(_))), "{native:?}");
}
