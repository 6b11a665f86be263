//! What is known after bytes were handed out.

use btc::Access;
use chain::{BroadcastOutcome, Sender};
use rpc::{Endpoint, Role};

use crate::world::World;

fn refused_as(outcome: &BroadcastOutcome, class: &str) -> bool {
    matches!(outcome, BroadcastOutcome::Refused(why) if why.starts_with(class))
}

async fn said(access: Access) {
    let world = World::start().await;
    let bitcoin = world.bitcoin(access);
    let (coin, ours) = (world.payer.take_utxo(), world.ours[0].text.as_str());
    let send = async |hex: &str| bitcoin.broadcast(&const_hex::decode(hex).unwrap()).await;

    let payment = world.payer.sign(coin, &[(ours, 70_000)], 5_000, true).unwrap();
    assert_eq!(send(&payment.hex).await, BroadcastOutcome::Accepted);
    // Core repeats itself without an error; either way it has the bytes.
    assert!(matches!(send(&payment.hex).await, BroadcastOutcome::Accepted | BroadcastOutcome::AlreadyKnown));
    let cheaper = world.payer.sign(coin, &[(ours, 70_001)], 5_000, true).unwrap();
    let cheaper = send(&cheaper.hex).await;
    assert!(refused_as(&cheaper, "occupied"), "{cheaper:?}");
    let free = world.payer.sign(world.payer.take_utxo(), &[(ours, 70_000)], 0, false).unwrap();
    let free = send(&free.hex).await;
    assert!(refused_as(&free, "price"), "{free:?}");
    let other = world.payer.sign(world.payer.take_utxo(), &[(ours, 70_000)], 5_000, true).unwrap();
    let mut unsigned = const_hex::decode(&other.hex).unwrap();
    let signature = unsigned.len() - 60;
    unsigned[signature] ^= 1;
    let unsigned = bitcoin.broadcast(&unsigned).await;
    assert!(refused_as(&unsigned, "build"), "{unsigned:?}");
    let nothing = bitcoin.broadcast(b"no transaction").await;
    assert!(refused_as(&nothing, "build"), "{nothing:?}");

    world.node.mine(1).await.unwrap();
    assert_eq!(send(&payment.hex).await, BroadcastOutcome::AlreadyKnown, "it is in a block");
    let spent = world.payer.sign(coin, &[(ours, 60_000)], 50_000, false).unwrap();
    let spent = send(&spent.hex).await;
    assert!(refused_as(&spent, "inputs"), "{spent:?}");
}

#[tokio::test]
async fn a_node_says_what_became_of_the_bytes() {
    said(Access::Core).await;
}

#[tokio::test]
async fn esplora_passes_on_what_its_node_says() {
    said(Access::Esplora).await;
}

#[tokio::test]
async fn silence_is_no_refusal() {
    let world = World::start().await;
    let mut config = world.config(Access::Core, &[&world.node.url()]);
    let nowhere = Endpoint::new("http://127.0.0.1:1").unwrap().with_roles(&[Role::Broadcast]);
    config.pool.endpoints = vec![Endpoint::new(&world.node.url()).unwrap().with_roles(&[Role::Read]), nowhere];
    let bitcoin = btc::Bitcoin::new(config).unwrap();
    let payment = world.payer.sign(world.payer.take_utxo(), &[(&world.ours[0].text, 70_000)], 5_000, true).unwrap();
    let outcome = bitcoin.broadcast(&const_hex::decode(payment.hex).unwrap()).await;
    assert!(matches!(outcome, BroadcastOutcome::Unknown(_)), "{outcome:?}");
}
