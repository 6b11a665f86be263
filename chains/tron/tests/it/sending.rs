//! Tests of broadcasts: the answers of nodes, and the outcomes that the driver derives from them.

use chain::{BroadcastOutcome, Sender, SourceError};
use tron::{Tron, transaction::TransactionParams};
use tronnode::{FundedAccount, gateway::GatewayFault};

use crate::world::{World, build_unsigned_transfer};

async fn fetch_params(driver: &Tron) -> Result<TransactionParams, SourceError> {
    driver.fetch_transaction_params(120_000, 1_770_000_000_123).await
}

/// Returns the code of a rejection, or the name of any other outcome.
fn outcome_class(outcome: &BroadcastOutcome) -> &str {
    match outcome {
        BroadcastOutcome::Rejected(text) => text.split(':').next().unwrap(),
        BroadcastOutcome::Accepted => "accepted",
        BroadcastOutcome::AlreadyKnown => "known",
        BroadcastOutcome::Unknown(_) => "unknown",
    }
}

#[tokio::test]
async fn the_same_bytes_are_accepted_once_and_known_afterwards() {
    let world = World::start_world().await;
    let driver = world.build_driver();
    let signed = build_unsigned_transfer(&world, &fetch_params(&driver).await.unwrap())
        .sign_if_owner(&world.rich[0].key)
        .unwrap();
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::Accepted);
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::AlreadyKnown);
    assert_eq!(driver.fetch_solidified_outcome(signed.txid).await.unwrap(), None);
    world.node.produce_blocks(1, 0);
    let height = world.node.model().head_height();
    assert_eq!(driver.fetch_solidified_outcome(signed.txid).await.unwrap(), None, "the block is not solidified yet");
    world.node.produce_blocks(18, 0);
    assert_eq!(driver.fetch_solidified_outcome(signed.txid).await.unwrap(), Some((height, Ok(()))));
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::AlreadyKnown);
}

#[tokio::test]
async fn broadcast_rejections_are_classified() {
    let world = World::start_world().await;
    let driver = world.build_driver();
    let good = fetch_params(&driver).await.unwrap();
    let sign = |params: &TransactionParams| {
        build_unsigned_transfer(&world, params).sign_if_owner(&world.rich[0].key).unwrap().bytes
    };

    let late = TransactionParams { expiration_ms: good.expiration_ms - 120_000, ..good.clone() };
    assert_eq!(outcome_class(&driver.broadcast(&sign(&late)).await), "expired");
    let mut unknown_reference = good.clone();
    unknown_reference.reference.hash.0[9] ^= 1;
    assert_eq!(outcome_class(&driver.broadcast(&sign(&unknown_reference)).await), "reference");

    let mut forged = sign(&good);
    let last = forged.len() - 3;
    forged[last] ^= 1;
    assert_eq!(outcome_class(&driver.broadcast(&forged).await), "build");
    assert_eq!(outcome_class(&driver.broadcast(&forged[..20]).await), "build");

    let empty = FundedAccount::new([9; 32]);
    let operation = tron::transaction::Operation::Transfer { to: world.rich[1].account, sun: 1 };
    let poor =
        tron::transaction::build_transaction(empty.account, &operation, &good).sign_if_owner(&empty.key).unwrap();
    assert_eq!(outcome_class(&driver.broadcast(&poor.bytes).await), "contract");
    world.node.set_balance(empty.account, 0);
    let poor = tron::transaction::build_transaction(
        empty.account,
        &operation,
        &TransactionParams { timestamp_ms: 1, ..good.clone() },
    );
    assert_eq!(outcome_class(&driver.broadcast(&poor.sign_if_owner(&empty.key).unwrap().bytes).await), "contract");

    assert_eq!(driver.broadcast(&sign(&good)).await, BroadcastOutcome::Accepted);
}

#[tokio::test]
async fn a_rejection_of_every_broadcast_leaves_the_outcome_unknown() {
    let world = World::start_world().await;
    let driver = world.build_driver();
    let signed = build_unsigned_transfer(&world, &fetch_params(&driver).await.unwrap())
        .sign_if_owner(&world.rich[0].key)
        .unwrap();
    let answer = async || {
        let outcome = driver.broadcast(&signed.bytes).await;
        let BroadcastOutcome::Unknown(text) = outcome else { panic!("{outcome:?}") };
        text
    };
    world.node.model().busy = true;
    assert!(answer().await.contains("SERVER_BUSY Server busy."));
    world.node.model().busy = false;
    let peers = std::mem::take(&mut world.node.model().peers);
    assert!(answer().await.contains("NO_CONNECTION"));
    world.node.model().peers = peers;
    world.node.model().unsolidified_max = Some(18);
    assert!(answer().await.contains("BLOCK_UNSOLIDIFIED"));
    world.node.model().unsolidified_max = Some(19);
    assert_eq!(world.node.model().pending.len(), 0);
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::Accepted);
}

#[tokio::test]
async fn a_failing_gateway_leaves_the_outcome_unknown() {
    let world = World::start_world().await;
    let signed = build_unsigned_transfer(&world, &fetch_params(&world.build_driver()).await.unwrap())
        .sign_if_owner(&world.rich[0].key)
        .unwrap();
    let endpoint = rpc::Endpoint::new(&world.gateway.url).unwrap();
    for fault in [
        GatewayFault::Throttled,
        GatewayFault::Unavailable,
        GatewayFault::ErrorIn200,
        GatewayFault::WebPage,
        GatewayFault::Suspended(30),
    ] {
        world.gateway.set_fault(fault);
        let outcome = world.build_driver_for_endpoints(vec![endpoint.clone()]).broadcast(&signed.bytes).await;
        assert_eq!(outcome_class(&outcome), "unknown", "{fault:?}: {outcome:?}");
        assert_eq!(world.node.model().pending.len(), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn broadcasting_again_reveals_a_transaction_whose_answer_was_lost() {
    for fault in [GatewayFault::LostAnswer, GatewayFault::TruncatedAnswer, GatewayFault::Slow] {
        let world = World::start_world().await;
        let driver =
            if fault == GatewayFault::Slow { world.build_driver_with_short_deadline() } else { world.build_driver() };
        let signed = build_unsigned_transfer(&world, &fetch_params(&driver).await.unwrap())
            .sign_if_owner(&world.rich[0].key)
            .unwrap();
        world.gateway.set_fault(fault);
        assert_eq!(outcome_class(&driver.broadcast(&signed.bytes).await), "unknown", "{fault:?}");
        assert_eq!(world.node.model().pending.len(), 1, "{fault:?}: the node has accepted it");
        world.gateway.set_fault(GatewayFault::None);
        assert_eq!(world.build_driver().broadcast(&signed.bytes).await, BroadcastOutcome::AlreadyKnown, "{fault:?}");
        world.node.produce_blocks(19, 0);
        assert!(
            matches!(world.build_driver().fetch_solidified_outcome(signed.txid).await, Ok(Some((_, Ok(()))))),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn a_pending_transaction_fails_after_its_expiration() {
    let world = World::start_world().await;
    let driver = world.build_driver();
    let good = fetch_params(&driver).await.unwrap();
    let signed = build_unsigned_transfer(&world, &good).sign_if_owner(&world.rich[0].key).unwrap();
    world.node.model().hold_pending = true;
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::Accepted);
    world.node.produce_blocks(1, good.expiration_ms);
    world.node.model().hold_pending = false;
    world.node.produce_blocks(30, 0);
    assert_eq!(outcome_class(&driver.broadcast(&signed.bytes).await), "expired");
    assert_eq!(driver.fetch_solidified_outcome(signed.txid).await.unwrap(), None, "it was accepted and is in no block");
    let again = TransactionParams { timestamp_ms: good.timestamp_ms + 1, ..fetch_params(&driver).await.unwrap() };
    let signed = build_unsigned_transfer(&world, &again).sign_if_owner(&world.rich[0].key).unwrap();
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::Accepted);
}

#[tokio::test]
async fn a_broadcast_is_accepted_when_one_endpoint_accepts_it() {
    let world = World::start_world().await;
    let broken = world.node.start_gateway().await;
    broken.set_fault(GatewayFault::WebPage);
    let endpoints = [&broken.url, &world.gateway.url].map(|url| rpc::Endpoint::new(url).unwrap());
    let driver = world.build_driver_for_endpoints(endpoints.to_vec());
    let signed = build_unsigned_transfer(&world, &fetch_params(&driver).await.unwrap())
        .sign_if_owner(&world.rich[0].key)
        .unwrap();
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::Accepted);
    let only = world.build_driver_for_endpoints(vec![rpc::Endpoint::new(&broken.url).unwrap()]);
    assert_eq!(outcome_class(&only.broadcast(&signed.bytes).await), "unknown");
}

#[tokio::test]
async fn two_equal_payments_are_the_same_transaction() {
    let world = World::start_world().await;
    let driver = world.build_driver();
    let good = fetch_params(&driver).await.unwrap();
    let (first, same) = (build_unsigned_transfer(&world, &good), build_unsigned_transfer(&world, &good));
    assert_eq!(first.txid, same.txid);
    let other = build_unsigned_transfer(&world, &TransactionParams { timestamp_ms: good.timestamp_ms + 1, ..good });
    assert_ne!(first.txid, other.txid);
}
