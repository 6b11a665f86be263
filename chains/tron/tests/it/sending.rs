//! What nodes say to a broadcast, and what is made of it.

use chain::{BroadcastOutcome, Sender, SourceError};
use tron::{Tron, transaction::TransactionParams};
use tronnode::{FundedAccount, gateway::GatewayFault};

use crate::world::{World, draft};

async fn frame(driver: &Tron) -> Result<TransactionParams, SourceError> {
    driver.transaction_params(120_000, 1_770_000_000_123).await
}

fn word(outcome: &BroadcastOutcome) -> &str {
    match outcome {
        BroadcastOutcome::Refused(text) => text.split(':').next().unwrap(),
        BroadcastOutcome::Accepted => "accepted",
        BroadcastOutcome::AlreadyKnown => "known",
        BroadcastOutcome::Unknown(_) => "unknown",
    }
}

#[tokio::test]
async fn the_same_bytes_are_taken_once_and_known_afterwards() {
    let world = World::start().await;
    let driver = world.driver();
    let signed = draft(&world, &frame(&driver).await.unwrap()).sign(&world.rich[0].key).unwrap();
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::Accepted);
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::AlreadyKnown);
    assert_eq!(driver.solid_outcome(signed.txid).await.unwrap(), None);
    world.node.produce(1, 0);
    let height = world.node.model().head_height();
    assert_eq!(driver.solid_outcome(signed.txid).await.unwrap(), None, "included is not solidified");
    world.node.produce(18, 0);
    assert_eq!(driver.solid_outcome(signed.txid).await.unwrap(), Some((height, Ok(()))));
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::AlreadyKnown);
}

#[tokio::test]
async fn refusals_are_sorted() {
    let world = World::start().await;
    let driver = world.driver();
    let good = frame(&driver).await.unwrap();
    let sign = |frame: &TransactionParams| draft(&world, frame).sign(&world.rich[0].key).unwrap().bytes;

    let late = TransactionParams { expiration_ms: good.expiration_ms - 120_000, ..good.clone() };
    assert_eq!(word(&driver.broadcast(&sign(&late)).await), "expired");
    let mut elsewhere = good.clone();
    elsewhere.reference.hash.0[9] ^= 1;
    assert_eq!(word(&driver.broadcast(&sign(&elsewhere)).await), "reference");

    let mut forged = sign(&good);
    let last = forged.len() - 3;
    forged[last] ^= 1;
    assert_eq!(word(&driver.broadcast(&forged).await), "build");
    assert_eq!(word(&driver.broadcast(&forged[..20]).await), "build");

    let nobody = FundedAccount::new([9; 32]);
    let act = tron::transaction::Operation::Transfer { to: world.rich[1].account, sun: 1 };
    let poor = tron::transaction::build(nobody.account, &act, &good).sign(&nobody.key).unwrap();
    assert_eq!(word(&driver.broadcast(&poor.bytes).await), "contract");
    world.node.set_balance(nobody.account, 0);
    let poor = tron::transaction::build(nobody.account, &act, &TransactionParams { timestamp_ms: 1, ..good.clone() });
    assert_eq!(word(&driver.broadcast(&poor.sign(&nobody.key).unwrap().bytes).await), "contract");

    assert_eq!(driver.broadcast(&sign(&good)).await, BroadcastOutcome::Accepted);
}

#[tokio::test]
async fn a_node_that_takes_nothing_now_says_nothing_of_the_transaction() {
    let world = World::start().await;
    let driver = world.driver();
    let signed = draft(&world, &frame(&driver).await.unwrap()).sign(&world.rich[0].key).unwrap();
    let said = async || {
        let outcome = driver.broadcast(&signed.bytes).await;
        let BroadcastOutcome::Unknown(text) = outcome else { panic!("{outcome:?}") };
        text
    };
    world.node.model().busy = true;
    assert!(said().await.contains("SERVER_BUSY Server busy."));
    world.node.model().busy = false;
    let peers = std::mem::take(&mut world.node.model().peers);
    assert!(said().await.contains("NO_CONNECTION"));
    world.node.model().peers = peers;
    world.node.model().unsolidified_max = Some(18);
    assert!(said().await.contains("BLOCK_UNSOLIDIFIED"));
    world.node.model().unsolidified_max = Some(19);
    assert_eq!(world.node.model().pending.len(), 0);
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::Accepted);
}

#[tokio::test]
async fn a_gateway_that_fails_leaves_the_outcome_open() {
    let world = World::start().await;
    let signed = draft(&world, &frame(&world.driver()).await.unwrap()).sign(&world.rich[0].key).unwrap();
    let endpoint = rpc::Endpoint::new(&world.gateway.url).unwrap();
    for fault in [
        GatewayFault::Throttled,
        GatewayFault::Unavailable,
        GatewayFault::ErrorIn200,
        GatewayFault::Babbling,
        GatewayFault::Suspended(30),
    ] {
        world.gateway.set_fault(fault);
        let outcome = world.driver_of(vec![endpoint.clone()]).broadcast(&signed.bytes).await;
        assert_eq!(word(&outcome), "unknown", "{fault:?}: {outcome:?}");
        assert_eq!(world.node.model().pending.len(), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_is_found_out_by_sending_again() {
    for fault in [GatewayFault::Lost, GatewayFault::Cut, GatewayFault::Slow] {
        let world = World::start().await;
        let driver = if fault == GatewayFault::Slow { world.impatient() } else { world.driver() };
        let signed = draft(&world, &frame(&driver).await.unwrap()).sign(&world.rich[0].key).unwrap();
        world.gateway.set_fault(fault);
        assert_eq!(word(&driver.broadcast(&signed.bytes).await), "unknown", "{fault:?}");
        assert_eq!(world.node.model().pending.len(), 1, "{fault:?}: taken all the same");
        world.gateway.set_fault(GatewayFault::None);
        assert_eq!(world.driver().broadcast(&signed.bytes).await, BroadcastOutcome::AlreadyKnown, "{fault:?}");
        world.node.produce(19, 0);
        assert!(matches!(world.driver().solid_outcome(signed.txid).await, Ok(Some((_, Ok(()))))), "{fault:?}");
    }
}

#[tokio::test]
async fn what_waits_past_its_expiration_is_dead() {
    let world = World::start().await;
    let driver = world.driver();
    let good = frame(&driver).await.unwrap();
    let signed = draft(&world, &good).sign(&world.rich[0].key).unwrap();
    world.node.model().hold_pending = true;
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::Accepted);
    world.node.produce(1, good.expiration_ms);
    world.node.model().hold_pending = false;
    world.node.produce(30, 0);
    assert_eq!(word(&driver.broadcast(&signed.bytes).await), "expired");
    assert_eq!(driver.solid_outcome(signed.txid).await.unwrap(), None, "it was taken and is in no block");
    let again = TransactionParams { timestamp_ms: good.timestamp_ms + 1, ..frame(&driver).await.unwrap() };
    let signed = draft(&world, &again).sign(&world.rich[0].key).unwrap();
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::Accepted);
}

#[tokio::test]
async fn one_endpoint_that_takes_it_is_enough() {
    let world = World::start().await;
    let silent = world.node.gateway().await;
    silent.set_fault(GatewayFault::Babbling);
    let endpoints = [&silent.url, &world.gateway.url].map(|url| rpc::Endpoint::new(url).unwrap());
    let driver = world.driver_of(endpoints.to_vec());
    let signed = draft(&world, &frame(&driver).await.unwrap()).sign(&world.rich[0].key).unwrap();
    assert_eq!(driver.broadcast(&signed.bytes).await, BroadcastOutcome::Accepted);
    let only = world.driver_of(vec![rpc::Endpoint::new(&silent.url).unwrap()]);
    assert_eq!(word(&only.broadcast(&signed.bytes).await), "unknown");
}

#[tokio::test]
async fn two_payments_that_are_equal_are_one() {
    let world = World::start().await;
    let driver = world.driver();
    let good = frame(&driver).await.unwrap();
    let (first, same) = (draft(&world, &good), draft(&world, &good));
    assert_eq!(first.txid, same.txid);
    let other = draft(&world, &TransactionParams { timestamp_ms: good.timestamp_ms + 1, ..good });
    assert_ne!(first.txid, other.txid);
}
