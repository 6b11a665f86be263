//! Tests of the outcomes of broadcasts.

use btc::Backend;
use chain::{BroadcastOutcome, Sender};
use rpc::{Endpoint, Role};

use crate::world::World;

fn is_rejected_with_code(outcome: &BroadcastOutcome, code: &str) -> bool {
    matches!(outcome, BroadcastOutcome::Rejected(why) if why.starts_with(code))
}

async fn assert_broadcast_outcomes(backend: Backend) {
    let world = World::start().await;
    let bitcoin = world.build_driver(backend);
    let (utxo, ours) = (world.payer.take_utxo(), world.ours[0].text.as_str());
    let broadcast = async |hex: &str| bitcoin.broadcast(&const_hex::decode(hex).unwrap()).await;

    let payment = world.payer.sign_payment(utxo, &[(ours, 70_000)], 5_000, true).unwrap();
    assert_eq!(broadcast(&payment.hex).await, BroadcastOutcome::Accepted);
    // Bitcoin Core accepts the same transaction again; Esplora may return an error.
    assert!(matches!(broadcast(&payment.hex).await, BroadcastOutcome::Accepted | BroadcastOutcome::AlreadyKnown));
    let cheaper = world.payer.sign_payment(utxo, &[(ours, 70_001)], 5_000, true).unwrap();
    let cheaper = broadcast(&cheaper.hex).await;
    assert!(is_rejected_with_code(&cheaper, "replacement_underpriced"), "{cheaper:?}");
    let free = world.payer.sign_payment(world.payer.take_utxo(), &[(ours, 70_000)], 0, false).unwrap();
    let free = broadcast(&free.hex).await;
    assert!(is_rejected_with_code(&free, "fee_too_low"), "{free:?}");
    let other = world.payer.sign_payment(world.payer.take_utxo(), &[(ours, 70_000)], 5_000, true).unwrap();
    let mut unsigned = const_hex::decode(&other.hex).unwrap();
    let signature_index = unsigned.len() - 60;
    unsigned[signature_index] ^= 1;
    let unsigned = bitcoin.broadcast(&unsigned).await;
    assert!(is_rejected_with_code(&unsigned, "invalid_transaction"), "{unsigned:?}");
    let malformed = bitcoin.broadcast(b"no transaction").await;
    assert!(is_rejected_with_code(&malformed, "invalid_transaction"), "{malformed:?}");

    world.node.mine(1).await.unwrap();
    assert_eq!(broadcast(&payment.hex).await, BroadcastOutcome::AlreadyKnown, "the transaction is in a block");
    let spent = world.payer.sign_payment(utxo, &[(ours, 60_000)], 50_000, false).unwrap();
    let spent = broadcast(&spent.hex).await;
    assert!(is_rejected_with_code(&spent, "missing_inputs"), "{spent:?}");
}

#[tokio::test]
async fn every_outcome_of_a_node_is_recognised() {
    assert_broadcast_outcomes(Backend::Core).await;
}

#[tokio::test]
async fn every_outcome_of_esplora_is_recognised() {
    assert_broadcast_outcomes(Backend::Esplora).await;
}

#[tokio::test]
async fn an_unreachable_endpoint_leaves_the_outcome_unknown() {
    let world = World::start().await;
    let mut config = world.build_config(Backend::Core, &[&world.node.url()]);
    let unreachable = Endpoint::new("http://127.0.0.1:1").unwrap().with_roles(&[Role::Broadcast]);
    config.pool.endpoints = vec![Endpoint::new(&world.node.url()).unwrap().with_roles(&[Role::Read]), unreachable];
    let bitcoin = btc::Bitcoin::from_config(config).unwrap();
    let payment =
        world.payer.sign_payment(world.payer.take_utxo(), &[(&world.ours[0].text, 70_000)], 5_000, true).unwrap();
    let outcome = bitcoin.broadcast(&const_hex::decode(payment.hex).unwrap()).await;
    assert!(matches!(outcome, BroadcastOutcome::Unknown(_)), "{outcome:?}");
}
