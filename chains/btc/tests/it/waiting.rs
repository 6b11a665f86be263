//! Tests of transfers in the mempool: new, replaced, mined and reorganised.

use btc::Backend;
use chain::{Amount, Source, TxPart};
use esplora::Behaviour;

use crate::world::{NODE, World};

/// Returns txid, output index, amount in satoshi and replaceability of each unconfirmed transfer.
async fn list_unconfirmed(source: &btc::Bitcoin, world: &World) -> Vec<(String, u32, u64, bool)> {
    let unconfirmed =
        source.unconfirmed(&world.watched, &world.ours).await.expect(NODE).expect("the backend shows its mempool");
    let rows = unconfirmed.into_iter().map(|transfer| {
        let TxPart::Output(vout) = transfer.part else { panic!("{transfer:?}") };
        (transfer.txid.to_string(), vout, transfer.amount.units().to::<u64>(), transfer.replaceable)
    });
    rows.collect()
}

async fn assert_unconfirmed_transfers(backend: Backend, behaviour: Behaviour) {
    let world = World::start().await;
    world.esplora.set_behaviour(behaviour);
    let source = world.build_driver(backend);
    assert_eq!(list_unconfirmed(&source, &world).await, []);
    let (ours, theirs) = (world.ours[0].text.as_str(), world.payer.address());

    // A replaceable payment, replaced by a smaller one.
    let utxo = world.payer.take_utxo();
    let first = world.payer.sign_payment(utxo, &[(&theirs, 5_000), (ours, 70_000)], 2_000, true).unwrap();
    let second = world.payer.sign_payment(utxo, &[(ours, 60_000)], 20_000, true).unwrap();
    world.payer.broadcast_payment(&world.node, &first).await.unwrap();
    assert_eq!(list_unconfirmed(&source, &world).await, [(first.txid, 1, 70_000, true)]);
    world.payer.broadcast_payment(&world.node, &second).await.unwrap();
    assert_eq!(list_unconfirmed(&source, &world).await, [(second.txid.clone(), 0, 60_000, true)]);

    // Another payment, which is not replaceable, and one to an address that is not watched.
    let third = world.pay(&[(&world.ours[1], 9_000), (&world.ours[1], 8_000)]).await;
    world.pay(&[(&world.ours[4], 7_000)]).await;
    let expected = list_unconfirmed(&source, &world).await;
    assert_eq!(expected.len(), 3);
    assert!(
        expected.contains(&(third.clone(), 0, 9_000, false)) && expected.contains(&(third.clone(), 1, 8_000, false))
    );

    // The number of requests that the driver sends when the mempool has nothing new.
    let needed = match (backend, behaviour) {
        (Backend::Esplora, Behaviour::HugeMempool) => 1 + u64::try_from(world.ours.len()).unwrap(),
        (Backend::Esplora, _) => 2,
        (Backend::Core, _) => 1,
    };
    let before = source.requests();
    assert_eq!(list_unconfirmed(&source, &world).await, expected);
    assert_eq!(source.requests(), before + needed);

    world.node.mine(1).await.unwrap();
    assert_eq!(list_unconfirmed(&source, &world).await, []);
    // A reorganisation puts the payments back into the mempool.
    world.node.reorg(1).await.unwrap();
    assert_eq!(list_unconfirmed(&source, &world).await, expected);

    // A block that spends the same output in another transaction removes the payment.
    let conflict = world.payer.sign_payment(utxo, &[(&theirs, 5_000)], 100_000, false).unwrap();
    world.node.mine_only(&[conflict.hex]).await.unwrap();
    assert!(list_unconfirmed(&source, &world).await.iter().all(|(txid, ..)| *txid != second.txid));
    let balance = Amount::from(17_000u64);
    assert_eq!(
        Amount::checked_sum(
            source.unconfirmed(&world.watched, &world.ours).await.unwrap().unwrap().iter().map(|s| s.amount)
        ),
        Some(balance)
    );
}

#[tokio::test]
async fn a_node_lists_unconfirmed_transfers_and_drops_replaced_ones() {
    assert_unconfirmed_transfers(Backend::Core, Behaviour::Honest).await;
}

#[tokio::test]
async fn esplora_lists_unconfirmed_transfers_and_drops_replaced_ones() {
    assert_unconfirmed_transfers(Backend::Esplora, Behaviour::Honest).await;
    // If the mempool is too large to fetch, the driver looks up only the addresses that expect a payment.
    assert_unconfirmed_transfers(Backend::Esplora, Behaviour::HugeMempool).await;
}
