//! Chains that cannot be followed: their coins are not on offer and the operator is told in the same moment, while all
//! other coins stay on offer.

use chain::ChainId;
use serde_json::{Value, json};
use simnet::{NodeFault, ReplacedTxs};

use crate::aftermath::request;
use crate::world::World;

/// Tries to order with a coin and returns the status of the response and its error code.
async fn try_to_order(world: &World, coin: &str) -> (u16, String) {
    let body = json!({ "productId": world.product.id, "quantity": 2, "contactEmail": "buyer@example.com",
        "paymentMethod": "crypto", "coin": coin });
    let answer = world.post("/api/orders", &body).await;
    (answer.status, answer.body["error"].as_str().unwrap_or_default().to_owned())
}

async fn assert_on_offer(world: &World, coins: &[&str]) {
    for coin in coins {
        assert_eq!(try_to_order(world, coin).await.0, 201, "{coin}");
    }
}

async fn assert_not_on_offer(world: &World, coins: &[&str]) {
    for coin in coins {
        let refused = try_to_order(world, coin).await;
        assert_eq!(refused, (400, "payment_method_unavailable".to_owned()), "{coin}");
    }
}

/// Asserts that `/readyz` names exactly these parts.
async fn assert_not_ready(world: &World, parts: &[&str]) {
    let answer = world.get("/readyz").await;
    let expected = if parts.is_empty() { (200, Value::Null) } else { (503, json!(parts)) };
    assert_eq!((answer.status, answer.body["problems"].clone()), expected, "{}", answer.text);
}

/// Returns what `settled status` prints.
async fn status(world: &World) -> String {
    request(world, "status", Value::Null).await.unwrap().as_str().unwrap().to_owned()
}

fn ethereum() -> ChainId {
    ChainId::parse("ethereum").unwrap()
}

both! {
    async fn a_dead_node_withdraws_the_coins_of_its_chain_at_once(world: World) {
        assert_on_offer(&world, &["eth", "erc20_usdt", "trx"]).await;
        world.simnet.set_fault(&ethereum(), NodeFault::Unavailable, true);
        world.run_until_idle().await;
        assert_not_on_offer(&world, &["eth", "erc20_usdt"]).await;
        assert_on_offer(&world, &["trx", "btc", "bnb", "bep20_usdt"]).await;
        assert_not_ready(&world, &["follow ethereum"]).await;
        let said = status(&world).await;
        assert!(said.contains("PROBLEM follow ethereum: no endpoint answered: the model chain is switched off"), "{said}");

        world.simnet.set_fault(&ethereum(), NodeFault::Unavailable, false);
        world.run_until_idle().await;
        assert_on_offer(&world, &["eth", "erc20_usdt"]).await;
        assert_not_ready(&world, &[]).await;
        assert!(status(&world).await.contains("there are no problems"));
    }

    async fn one_failed_run_for_another_reason_withdraws_nothing(world: World) {
        // The node is reorganised while it is read: the next run succeeds.
        world.simnet.set_fault(&ethereum(), NodeFault::MissingBlocks, true);
        world.mine("eth", 1);
        world.run_until_idle().await;
        assert_on_offer(&world, &["eth"]).await;
        assert_not_ready(&world, &[]).await;
        world.run_until_idle().await;
        world.run_until_idle().await;
        assert_not_on_offer(&world, &["eth"]).await;
        assert_not_ready(&world, &["follow ethereum"]).await;
    }

    async fn missing_balances_withdraw_nothing(world: World) {
        let order = world.place_order("eth").await;
        world.simnet.set_internal_transfers_hidden(&ethereum(), true);
        world.simnet.set_fault(&ethereum(), NodeFault::NoBalances, true);
        for _ in 0..5 {
            world.advance_seconds(3_600);
            world.mine("eth", 1);
            world.run_until_idle().await;
        }
        assert_on_offer(&world, &["eth"]).await;
        world.simnet.set_fault(&ethereum(), NodeFault::NoBalances, false);
        world.run_until_idle().await;
        world.assert_status(&order, "expired", "expired").await;
    }

    async fn a_halted_chain_is_reported_at_once(world: World) {
        let order = world.place_order("erc20_usdt").await;
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert_not_ready(&world, &[]).await;
        world.simnet.reorg(&ethereum(), 120, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert!(world.has_open_review("chain.halted").await);
        assert_not_ready(&world, &["follow ethereum"]).await;
        assert_not_on_offer(&world, &["eth"]).await;
        let said = status(&world).await;
        let advice = "PROBLEM follow ethereum: ethereum is halted until an operator decides: read the review";
        assert!(said.contains("ethereum: HALTED") && said.contains(advice), "{said}");
        assert!(!said.contains("there are no problems"), "{said}");
    }

    async fn a_wrong_token_withholds_its_coin_and_not_its_chain(world: World) {
        world.simnet.set_fault(&ethereum(), NodeFault::WrongDecimals, true);
        world.crash_and_boot().await;
        assert_not_on_offer(&world, &["erc20_usdt"]).await;
        assert_not_ready(&world, &["USDC on ethereum", "USDT on ethereum"]).await;
        let said = status(&world).await;
        assert!(said.contains("has 7 decimals on the chain and 6 in the configuration"), "{said}");
        let order = world.place_order("eth").await;
        world.pay_order(&order, order.due);
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;

        world.simnet.set_fault(&ethereum(), NodeFault::WrongDecimals, false);
        world.advance_seconds(60);
        world.run_until_idle().await;
        assert_on_offer(&world, &["erc20_usdt"]).await;
        assert_not_ready(&world, &[]).await;
    }
}
