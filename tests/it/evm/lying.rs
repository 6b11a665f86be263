//! One lying endpoint of two: nothing that it invents becomes money, in each way in which the driver reads a chain.

use chain::Amount;
use serde_json::{Value, json};

use super::{EndpointFault, Onchain, PLAIN, StorySetup, account};
use crate::aftermath::request;
use crate::placed_order::PlacedOrder;

/// Asserts that the invented money is not counted.
async fn assert_not_confirmed(world: &Onchain, order: &PlacedOrder) {
    let state = world.status(&order.id).await.text_at("payment_status");
    assert!(["pending", "confirming"].contains(&state.as_str()), "{state}");
    assert_eq!(world.merchant_pending(order.coin).await, Amount::ZERO);
    assert_eq!(world.merchant_available(order.coin).await, Amount::ZERO);
}

/// Asserts that each review of a contradicted deposit names both endpoints, and that there is one.
async fn assert_both_endpoints_are_named(world: &Onchain) {
    let reviews = world.open_reviews().await;
    let contradicted: Vec<_> = reviews.iter().filter(|review| review.kind.as_str() == "deposit.contradicted").collect();
    assert!(!contradicted.is_empty(), "{reviews:?}");
    for review in contradicted {
        for endpoint in &world.endpoints {
            let host = endpoint.proxy.url.trim_start_matches("http://").trim_end_matches('/');
            assert!(review.detail.contains(host), "{host} is not named: {}", review.detail);
        }
    }
}

async fn rescan(world: &Onchain) {
    let to = world.ethereum.anvil.fetch_height().await.unwrap();
    let _refused = request(world, "rescan", json!({ "chain": "ethereum", "from": 1, "to": to })).await;
}

both! {
    async fn a_transfer_that_one_endpoint_adds_to_traces_is_never_confirmed(world: Onchain = StorySetup { trace: "debug", bsc: false, endpoints: 2 }) {
        let (order, honest) = (world.place_order("eth").await, world.place_order("eth").await);
        world.endpoints[0].set(EndpointFault::InventedCall(account(&order), order.due.units()));
        world.endpoints[1].set(EndpointFault::NoProofs);
        // A transaction, to whose trace the endpoint adds a call.
        let other = world.place_order("erc20_usdt").await;
        world.pay(&other, Amount::from(1u64)).await;
        world.mine("eth", 30).await;
        assert_not_confirmed(&world, &order).await;
        world.endpoints[1].set(EndpointFault::Silent);
        world.mine("eth", 1).await;
        world.endpoints[1].set(EndpointFault::NoProofs);
        world.mine_deep("eth").await;
        world.crash_and_boot().await;
        world.mine_deep("eth").await;
        assert_not_confirmed(&world, &order).await;
        assert_both_endpoints_are_named(&world).await;
        for endpoint in &world.endpoints {
            endpoint.set(EndpointFault::None);
        }
        world.pay(&honest, honest.due).await;
        world.mine("eth", 20).await;
        world.run_until_completed(&honest).await;
    }

    async fn a_false_balance_or_receipt_of_one_endpoint_is_never_confirmed(world: Onchain = StorySetup { endpoints: 2, ..PLAIN }) {
        for (coin, fault) in [("eth", EndpointFault::Generous), ("erc20_usdt", EndpointFault::ForgedReceipts)] {
            let (order, honest) = (world.place_order(coin).await, world.place_order(coin).await);
            world.endpoints[0].set(fault);
            // A token transfer, whose amount the endpoint raises.
            world.pay(&order, Amount::ZERO).await;
            world.mine(coin, 20).await;
            world.mine_deep(coin).await;
            assert_not_confirmed(&world, &order).await;
            rescan(&world).await;
            world.mine_deep(coin).await;
            assert_not_confirmed(&world, &order).await;
            world.endpoints[1].set(EndpointFault::Silent);
            world.mine(coin, 20).await;
            rescan(&world).await;
            assert_not_confirmed(&world, &order).await;
            for endpoint in &world.endpoints {
                endpoint.set(EndpointFault::None);
            }
            world.pay(&honest, honest.due).await;
            world.mine(coin, 20).await;
            world.run_until_completed(&honest).await;
            world.mine_deep(coin).await;
            assert_eq!(world.merchant_available(coin).await, honest.due);
        }
    }
}

/// Adds a call that pays `wei` to the first traced transaction of a block.
pub fn add_invented_call(traces: &mut Value, to: &str, wei: &str) {
    if let Some(first) = traces.as_array_mut().and_then(|traces| traces.first_mut()) {
        first["result"]["calls"] =
            json!([{ "type": "CALL", "from": format!("0x{}", "77".repeat(20)), "to": to, "value": wei }]);
    }
}

/// Raises the amounts of all token transfers in a list of receipts, or in one receipt, to 1,000,000,000.
pub fn raise_token_amounts(receipts: &mut Value) {
    let raise = |receipt: &mut Value| {
        for log in receipt["logs"].as_array_mut().into_iter().flatten() {
            log["data"] = json!(format!("0x{:064x}", 1_000_000_000u64));
        }
    };
    if receipts.is_object() {
        return raise(receipts);
    }
    receipts.as_array_mut().into_iter().flatten().for_each(raise);
}
