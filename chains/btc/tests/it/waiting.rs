//! What is on its way, and what becomes of it.

use btc::Access;
use chain::{Amount, Source, TxPart};
use esplora::Behaviour;

use crate::world::{NODE, World};

async fn seen(source: &btc::Bitcoin, world: &World) -> Vec<(String, u32, u64, bool)> {
    let unconfirmed = source.unconfirmed(&world.watched, &world.ours).await.expect(NODE).expect("it has a mempool");
    let told = unconfirmed.into_iter().map(|seen| {
        let TxPart::Output(vout) = seen.part else { panic!("{seen:?}") };
        (seen.txid.to_string(), vout, seen.amount.units().to::<u64>(), seen.replaceable)
    });
    told.collect()
}

async fn shown(access: Access, mood: Behaviour) {
    let world = World::start().await;
    world.esplora.set_behaviour(mood);
    let source = world.bitcoin(access);
    assert_eq!(seen(&source, &world).await, []);
    let (ours, theirs) = (world.ours[0].text.as_str(), world.payer.address());

    // Replaceable, and replaced by a payment of less.
    let coin = world.payer.take_utxo();
    let first = world.payer.sign(coin, &[(&theirs, 5_000), (ours, 70_000)], 2_000, true).unwrap();
    let second = world.payer.sign(coin, &[(ours, 60_000)], 20_000, true).unwrap();
    world.payer.send(&world.node, &first).await.unwrap();
    assert_eq!(seen(&source, &world).await, [(first.txid, 1, 70_000, true)]);
    world.payer.send(&world.node, &second).await.unwrap();
    assert_eq!(seen(&source, &world).await, [(second.txid.clone(), 0, 60_000, true)]);

    // Final, beside it; strangers' payments show nothing.
    let third = world.pay(&[(&world.ours[1], 9_000), (&world.ours[1], 8_000)]).await;
    world.pay(&[(&world.ours[4], 7_000)]).await;
    let both = seen(&source, &world).await;
    assert_eq!(both.len(), 3);
    assert!(both.contains(&(third.clone(), 0, 9_000, false)) && both.contains(&(third.clone(), 1, 8_000, false)));

    // A look costs that many requests when nothing is new.
    let needed = match (access, mood) {
        (Access::Esplora, Behaviour::HugeMempool) => 1 + u64::try_from(world.ours.len()).unwrap(),
        (Access::Esplora, _) => 2,
        (Access::Core, _) => 1,
    };
    let asked = source.requests();
    assert_eq!(seen(&source, &world).await, both);
    assert_eq!(source.requests(), asked + needed);

    world.node.mine(1).await.unwrap();
    assert_eq!(seen(&source, &world).await, []);
    // A reorganisation puts it back.
    world.node.reorg(1).await.unwrap();
    assert_eq!(seen(&source, &world).await, both);

    // A block that spends the same coin otherwise ends it for good.
    let conflict = world.payer.sign(coin, &[(&theirs, 5_000)], 100_000, false).unwrap();
    world.node.mine_only(&[conflict.hex]).await.unwrap();
    assert!(seen(&source, &world).await.iter().all(|(txid, ..)| *txid != second.txid));
    let balance = Amount::from(17_000u64);
    assert_eq!(
        Amount::checked_sum(
            source.unconfirmed(&world.watched, &world.ours).await.unwrap().unwrap().iter().map(|s| s.amount)
        ),
        Some(balance)
    );
}

#[tokio::test]
async fn a_node_shows_what_waits_and_what_is_replaced() {
    shown(Access::Core, Behaviour::Honest).await;
}

#[tokio::test]
async fn esplora_shows_what_waits_and_what_is_replaced() {
    shown(Access::Esplora, Behaviour::Honest).await;
    // Where too much waits to look through, only the addresses that money is awaited on are asked for.
    shown(Access::Esplora, Behaviour::HugeMempool).await;
}
