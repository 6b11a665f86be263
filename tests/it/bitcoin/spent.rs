//! Unspent outputs of deposit addresses, and spends made outside settled with the same seed.

use config::AddressKind;
use db::Db;
use money::deposits::{self, UnspentOutput};
use provision::node;
use records::reviews::{self, Review};
use serde_json::json;
use signer::accounts::{self, AccountPurpose, KeyAccount};

use super::{COIN, DEEP, NODE, Onchain, PLAIN, StorySetup, sats};
use crate::aftermath::request;
use crate::placed_order::{PlacedOrder, split};
use crate::world::PHRASE;

async fn list_unspent_outputs_in_db(world: &Onchain) -> Vec<UnspentOutput> {
    let chain = world.chain_of(COIN);
    let listed =
        world.db.read("unspent", |tx| Box::pin(async move { deposits::list_unspent_outputs(tx, &chain, 100).await }));
    listed.await.unwrap()
}

async fn list_reviews_of_spends(db: &Db) -> Vec<Review> {
    let open = db
        .read("reviews", |tx| Box::pin(async move { reviews::list_oldest_open_reviews(tx, 100).await }))
        .await
        .unwrap();
    open.into_iter().filter(|review| review.kind.as_str() == "deposit.spent").collect()
}

/// Spends these outputs in one transaction with a bitcoinjs-lib wallet that has the seed.
async fn spend_outputs(world: &Onchain, kind: AddressKind, outputs: &[UnspentOutput]) -> String {
    let account = KeyAccount::with_default_address_kind(
        chain::Family::Bitcoin,
        bitcoin::Network::Bitcoin,
        AccountPurpose::TestDeposit,
        0,
    )
    .unwrap();
    let account = account.with_address_kind(match kind {
        AddressKind::P2wpkh => accounts::AddressKind::P2wpkh,
        AddressKind::P2tr => accounts::AddressKind::P2tr,
    });
    let outputs = outputs.iter().map(|unspent| {
        json!({ "txid": unspent.output.txid.to_string(), "vout": unspent.output.vout, "sats": sats(unspent.amount),
            "index": unspent.index, "address": unspent.address })
    });
    let wish = json!({ "rpc": world.node().url(), "mnemonic": PHRASE, "path": account.derivation_path(), "kind": kind.as_str(),
        "outputs": outputs.collect::<Vec<_>>(), "fee": 2_000 });
    let swept = node::run_node_script("sweep-bitcoin", wish).await.unwrap_or_else(|e| panic!("{e}"));
    swept["txid"].as_str().expect("a name").to_owned()
}

/// Pays one order with two outputs of a transaction and another order with one.
async fn pay_two_orders_with_three_outputs(world: &Onchain) -> [PlacedOrder; 2] {
    let order = [world.place_order().await, world.place_order().await];
    let (part, rest) = split(order[0].due, 1, 2);
    world.pay(&[(&order[0], part), (&order[1], order[1].due), (&order[0], rest)]).await;
    world.mine(1).await;
    order
}

async fn spent_outputs_return_after_a_reorg(world: &mut Onchain, kind: AddressKind) {
    let order = pay_two_orders_with_three_outputs(world).await;
    world.mine(DEEP).await;
    let all = list_unspent_outputs_in_db(world).await;
    assert_eq!(all.iter().map(|unspent| unspent.output.vout).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!([&all[0].address, &all[1].address], [&order[0].address, &order[1].address]);
    assert!(list_reviews_of_spends(&world.db).await.is_empty());
    let chain = world.chain_of(COIN);
    let listed = request(world, "admin", json!({ "list-unspent": { "chain": chain.as_str() } })).await.unwrap();
    let line = format!("{}:2 ", all[2].output.txid);
    assert!(listed.to_string().contains(&line) && listed.to_string().contains("3 outputs, 0.0000"), "{listed}");

    let txid = spend_outputs(world, kind, &all[..2]).await;
    world.mine(1).await;
    // Two outputs are unspent: the remaining output, and the change, which pays one of our addresses.
    let left = list_unspent_outputs_in_db(world).await;
    assert_eq!(left[0], all[2]);
    assert_eq!(left[1..].iter().map(|unspent| unspent.output.txid.to_string()).collect::<Vec<_>>(), [txid.as_str()]);
    let reviews = list_reviews_of_spends(&world.db).await;
    assert_eq!(reviews.len(), 2, "{reviews:?}");
    assert!(reviews.iter().all(|review| review.detail.contains(&txid)), "{reviews:?}");

    // The block that spent the outputs is replaced and later returns. A daemon that was started in between still
    // watches the outputs.
    world.crash_and_boot().await;
    world.node().rollback(1).await.expect(NODE);
    world.node().mine_only(&[]).await.expect(NODE);
    world.node().mine_only(&[]).await.expect(NODE);
    world.run_until_idle().await;
    assert_eq!(list_unspent_outputs_in_db(world).await, all);
    assert!(list_reviews_of_spends(&world.db).await.is_empty());
    world.mine(1).await;
    assert_eq!(list_unspent_outputs_in_db(world).await.len(), 2);
    assert_eq!(list_reviews_of_spends(&world.db).await.len(), 2);
    assert!(world.audit().await.has_no_findings());
}

ways! {
    async fn a_foreign_spend_opens_a_review(world: Onchain) {
        spent_outputs_return_after_a_reorg(&mut world, AddressKind::P2wpkh).await;
    }

    async fn a_taproot_output_is_tracked(world: Onchain = StorySetup { kind: AddressKind::P2tr, ..PLAIN }) {
        spent_outputs_return_after_a_reorg(&mut world, AddressKind::P2tr).await;
    }

    async fn unspent_outputs_survive_a_restart(world: Onchain) {
        pay_two_orders_with_three_outputs(&world).await;
        world.mine(DEEP).await;
        let all = list_unspent_outputs_in_db(&world).await;
        world.crash_and_boot().await;
        spend_outputs(&world, AddressKind::P2wpkh, &all[1..]).await;
        world.mine(1).await;
        assert_eq!(list_unspent_outputs_in_db(&world).await[0], all[0]);
        assert_eq!(list_reviews_of_spends(&world.db).await.len(), 2);
    }
}
