//! Every payment that reaches an address is credited once, whatever its form.

use chain::Amount;
use config::AddressKind;
use money::ledger::Suspense;
use provision::node;
use serde_json::json;

use super::{COIN, DEEP, NODE, Onchain, PLAIN, PRICES, PlacedOrder, StorySetup, split};

/// Pays the requested amount with a bitcoinjs-lib wallet.
async fn pay_by_wallet(world: &Onchain, order: &PlacedOrder) -> String {
    let coin = world.payer.take_utxo();
    let wish = json!({ "rpc": world.node().url(), "secret": world.payer.secret_hex(), "fee": 5_000,
        "coin": { "txid": coin.outpoint.txid.to_string(), "vout": coin.outpoint.vout, "sats": coin.sats },
        "uri": world.status(&order.id).await.text_at("payment.qr_code") });
    let paid = node::run_node_script("pay-bitcoin", wish).await.unwrap_or_else(|e| panic!("{e}"));
    paid["txid"].as_str().expect("a name").to_owned()
}

/// Mines the payment, then single blocks until the money is final, and asserts the state after each block.
async fn confirm(world: &Onchain, order: &PlacedOrder) {
    let txid = pay_by_wallet(world, order).await;
    world.run_until_idle().await;
    let answer = world.assert_status(order, "pending", "confirming").await;
    assert_eq!(answer.text_at("payment.tx_hash"), txid, "seen in the mempool: {}", answer.text);
    assert_eq!(answer.body["payment"]["confirmations"], 0, "{}", answer.text);
    world.mine(1).await;
    world.assert_status(order, "completed", "paid").await;
    world.assert_received(order, order.due).await;
    let query = format!("/api/orders/query?orderNo={}&email=buyer@example.com", order.order_no);
    let found = world.get_from("10.0.0.1", &query).await;
    assert_eq!(found.body["order"]["credentials"].as_array().map(Vec::len), Some(40), "{}", found.text);
    let before = world.merchant_available(COIN).await;
    world.mine(DEEP).await;
    assert_eq!(world.merchant_available(COIN).await, before.checked_add(order.due).unwrap());
}

ways! {
    async fn a_wallet_of_bitcoinjs_pays_exactly(world: Onchain) {
        let order = world.place_order().await;
        assert!(order.address.starts_with("bcrt1q"), "{}", order.address);
        world.assert_status(&order, "pending", "pending").await;
        confirm(&world, &order).await;
    }

    async fn a_wallet_of_bitcoinjs_pays_to_taproot(world: Onchain = StorySetup { kind: AddressKind::P2tr, ..PLAIN }) {
        let order = world.place_order().await;
        assert!(order.address.starts_with("bcrt1p"), "{}", order.address);
        confirm(&world, &order).await;
    }

    async fn larger_payments_need_more_confirmations(world: Onchain) {
        for (fen, depth) in PRICES {
            let order = world.place_order_worth(fen).await;
            world.pay(&[(&order, order.due)]).await;
            world.run_until_idle().await;
            let answer = world.assert_status(&order, "pending", "confirming").await;
            assert_eq!(answer.body["payment"]["required_confirmations"], depth, "{}", answer.text);
            for mined in 1..depth {
                world.mine(1).await;
                let answer = world.assert_status(&order, "pending", "confirming").await;
                assert_eq!(answer.body["payment"]["confirmations"], mined, "{}", answer.text);
            }
            world.mine(1).await;
            world.assert_status(&order, "completed", "paid").await;
        }
    }

    async fn many_outputs_of_one_transaction_count_once_each(world: Onchain) {
        let (first, second, third) = (world.place_order().await, world.place_order().await, world.place_order().await);
        let part = split(first.due, 1, 2);
        // Two of the four outputs pay the same address.
        let outputs = [(&first, part.0), (&second, second.due), (&first, part.1), (&third, third.due)];
        world.pay(&outputs).await;
        world.mine(1).await;
        for order in [&first, &second, &third] {
            world.assert_status(order, "completed", "paid").await;
            world.assert_received(order, order.due).await;
        }
        world.mine(DEEP).await;
        assert_eq!(Amount::checked_sum([first.due, second.due, third.due]), Some(world.merchant_available(COIN).await));
    }

    async fn partial_payments_add_up(world: Onchain) {
        let order = world.place_order().await;
        let (part, rest) = split(order.due, 1, 3);
        world.pay(&[(&order, part)]).await;
        world.mine(1).await;
        world.assert_status(&order, "pending", "underpaid").await;
        world.assert_received(&order, part).await;
        let scanned = world.status(&order.id).await.text_at("payment.qr_code");
        assert_eq!(scanned, format!("bitcoin:{}?amount={}", order.address, rest.to_decimal(8)), "the rest is asked for");
        world.pay(&[(&order, rest)]).await;
        world.mine(1).await;
        world.assert_status(&order, "completed", "paid").await;
        world.mine(DEEP).await;
        assert_eq!(world.merchant_available(COIN).await, order.due);
    }

    async fn an_overpayment_pays_and_the_surplus_goes_to_suspense(world: Onchain) {
        let order = world.place_order().await;
        world.pay(&[(&order, order.due.checked_add(Amount::from_units(1)).unwrap())]).await;
        world.mine(DEEP).await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.suspense(COIN, Suspense::Surplus).await, Amount::from_units(1));
        assert_eq!(world.merchant_available(COIN).await, order.due);
    }

    async fn a_late_payment_goes_to_suspense_with_a_review(world: Onchain) {
        let order = world.place_order().await;
        world.advance_seconds(30 * 60 + 61);
        world.mine(1).await;
        world.assert_status(&order, "expired", "expired").await;
        world.pay(&[(&order, order.due)]).await;
        world.mine(DEEP).await;
        world.assert_status(&order, "expired", "expired").await;
        assert_eq!(world.suspense(COIN, Suspense::Late).await, order.due);
    }

    async fn a_miner_pays_with_a_coinbase_when_it_is_mature(world: Onchain) {
        let order = world.place_order().await;
        world.node().mine_to(&order.address, 1).await.expect(NODE);
        world.mine(98).await;
        world.assert_status(&order, "pending", "pending").await;
        // The daemon may have been restarted in between.
        world.crash_and_boot().await;
        world.mine(1).await;
        // The block pays 50 BTC, so its deposits need the confirmations of a large amount.
        world.assert_status(&order, "pending", "confirming").await;
        world.mine(5).await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_thousand_blocks_of_downtime_lose_nothing(world: Onchain) {
        let (first, second) = (world.place_order().await, world.place_order().await);
        world.advance_seconds(60);
        world.mine_unseen(300).await;
        world.pay(&[(&first, first.due)]).await;
        world.mine_unseen(400).await;
        world.pay(&[(&second, second.due)]).await;
        world.mine_unseen(300).await;
        world.crash_and_boot().await;
        world.assert_status(&first, "completed", "paid").await;
        world.assert_status(&second, "completed", "paid").await;
        assert_eq!(Some(world.merchant_available(COIN).await), first.due.checked_add(second.due));
    }
}
