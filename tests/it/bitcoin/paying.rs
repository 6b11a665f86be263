//! What reaches an address is credited, once, however it is sent.

use chain::Amount;
use config::AddressKind;
use money::ledger::Suspense;
use provision::node;
use serde_json::json;

use super::{COIN, DEEP, NODE, Onchain, PLAIN, PRICES, Placed, Plan, split};

/// A wallet on bitcoinjs-lib pays what the surface asked for.
async fn pay_by_wallet(world: &Onchain, placed: &Placed) -> String {
    let coin = world.payer.take_utxo();
    let wish = json!({ "rpc": world.node().url(), "secret": world.payer.secret_hex(), "fee": 5_000,
        "coin": { "txid": coin.outpoint.txid.to_string(), "vout": coin.outpoint.vout, "sats": coin.sats },
        "uri": world.status(&placed.id).await.text_at("payment.qr_code") });
    let paid = node::run_script("pay-bitcoin", wish).await.unwrap_or_else(|e| panic!("{e}"));
    paid["txid"].as_str().expect("a name").to_owned()
}

/// From the mempool to final money.
async fn confirm(world: &Onchain, placed: &Placed) {
    let txid = pay_by_wallet(world, placed).await;
    world.run_until_idle().await;
    let answer = world.expect(placed, "pending", "confirming").await;
    assert_eq!(answer.text_at("payment.tx_hash"), txid, "seen in the mempool: {}", answer.text);
    assert_eq!(answer.body["payment"]["confirmations"], 0, "{}", answer.text);
    world.mine(1).await;
    world.expect(placed, "completed", "paid").await;
    world.expect_received(placed, placed.due).await;
    let query = format!("/api/orders/query?orderNo={}&email=buyer@example.com", placed.order_no);
    let found = world.get_from("10.0.0.1", &query).await;
    assert_eq!(found.body["order"]["credentials"].as_array().map(Vec::len), Some(40), "{}", found.text);
    let before = world.earned(COIN).await;
    world.mine(DEEP).await;
    assert_eq!(world.earned(COIN).await, before.checked_add(placed.due).unwrap());
}

ways! {
    async fn a_wallet_of_bitcoinjs_pays_exactly(world: Onchain) {
        let placed = world.place().await;
        assert!(placed.address.starts_with("bcrt1q"), "{}", placed.address);
        world.expect(&placed, "pending", "pending").await;
        confirm(&world, &placed).await;
    }

    async fn a_wallet_of_bitcoinjs_pays_to_taproot(world: Onchain = Plan { kind: AddressKind::P2tr, ..PLAIN }) {
        let placed = world.place().await;
        assert!(placed.address.starts_with("bcrt1p"), "{}", placed.address);
        confirm(&world, &placed).await;
    }

    async fn the_more_it_is_worth_the_deeper_it_must_lie(world: Onchain) {
        for (fen, depth) in PRICES {
            let placed = world.place_worth(fen).await;
            world.pay(&[(&placed, placed.due)]).await;
            world.run_until_idle().await;
            let answer = world.expect(&placed, "pending", "confirming").await;
            assert_eq!(answer.body["payment"]["required_confirmations"], depth, "{}", answer.text);
            for mined in 1..depth {
                world.mine(1).await;
                let answer = world.expect(&placed, "pending", "confirming").await;
                assert_eq!(answer.body["payment"]["confirmations"], mined, "{}", answer.text);
            }
            world.mine(1).await;
            world.expect(&placed, "completed", "paid").await;
        }
    }

    async fn many_outputs_of_one_transaction_count_once_each(world: Onchain) {
        let (first, second, third) = (world.place().await, world.place().await, world.place().await);
        let part = split(first.due, 1, 2);
        // Two of the four outputs go to one address.
        let outputs = [(&first, part.0), (&second, second.due), (&first, part.1), (&third, third.due)];
        world.pay(&outputs).await;
        world.mine(1).await;
        for placed in [&first, &second, &third] {
            world.expect(placed, "completed", "paid").await;
            world.expect_received(placed, placed.due).await;
        }
        world.mine(DEEP).await;
        assert_eq!(Amount::checked_sum([first.due, second.due, third.due]), Some(world.earned(COIN).await));
    }

    async fn a_part_and_the_rest_pay_together(world: Onchain) {
        let placed = world.place().await;
        let (part, rest) = split(placed.due, 1, 3);
        world.pay(&[(&placed, part)]).await;
        world.mine(1).await;
        world.expect(&placed, "pending", "underpaid").await;
        world.expect_received(&placed, part).await;
        let scanned = world.status(&placed.id).await.text_at("payment.qr_code");
        assert_eq!(scanned, format!("bitcoin:{}?amount={}", placed.address, rest.to_decimal(8)), "the rest is asked for");
        world.pay(&[(&placed, rest)]).await;
        world.mine(1).await;
        world.expect(&placed, "completed", "paid").await;
        world.mine(DEEP).await;
        assert_eq!(world.earned(COIN).await, placed.due);
    }

    async fn too_much_pays_and_the_surplus_is_kept(world: Onchain) {
        let placed = world.place().await;
        world.pay(&[(&placed, placed.due.checked_add(Amount::from_units(1)).unwrap())]).await;
        world.mine(DEEP).await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.held_apart(COIN, Suspense::Surplus).await, Amount::from_units(1));
        assert_eq!(world.earned(COIN).await, placed.due);
    }

    async fn what_comes_late_is_kept_for_a_person(world: Onchain) {
        let placed = world.place().await;
        world.advance_seconds(30 * 60 + 61);
        world.mine(1).await;
        world.expect(&placed, "expired", "expired").await;
        world.pay(&[(&placed, placed.due)]).await;
        world.mine(DEEP).await;
        world.expect(&placed, "expired", "expired").await;
        assert_eq!(world.held_apart(COIN, Suspense::Late).await, placed.due);
    }

    async fn a_miner_pays_with_a_coinbase_when_it_is_mature(world: Onchain) {
        let placed = world.place().await;
        world.node().mine_to(&placed.address, 1).await.expect(NODE);
        world.mine(98).await;
        world.expect(&placed, "pending", "pending").await;
        // The daemon may have been started in between.
        world.crash_and_boot().await;
        world.mine(1).await;
        world.expect(&placed, "completed", "paid").await;
    }

    async fn a_thousand_blocks_of_downtime_lose_nothing(world: Onchain) {
        let (first, second) = (world.place().await, world.place().await);
        world.advance_seconds(60);
        world.mine_unseen(300).await;
        world.pay(&[(&first, first.due)]).await;
        world.mine_unseen(400).await;
        world.pay(&[(&second, second.due)]).await;
        world.mine_unseen(300).await;
        world.crash_and_boot().await;
        world.expect(&first, "completed", "paid").await;
        world.expect(&second, "completed", "paid").await;
        assert_eq!(Some(world.earned(COIN).await), first.due.checked_add(second.due));
    }
}
