//! An endpoint that throttles, sends garbage, omits data, lags or fails costs time, never a payment.

use chain::Amount;
use serde_json::json;

use alloy_primitives::Address;
use db::Backend;

use super::node::{Network, Node};
use super::{EndpointFault, Onchain, PLAIN, StorySetup};
use crate::world::World;

/// Returns all faults that an endpoint can have. `height` is a height that the node has.
fn faults(height: u64) -> [EndpointFault; 5] {
    [
        EndpointFault::Throttled,
        EndpointFault::Garbage,
        EndpointFault::EmptyLogs,
        EndpointFault::StaleHead(height),
        EndpointFault::Silent,
    ]
}

both! {
    async fn the_only_endpoint_fails_and_recovers(world: Onchain = StorySetup { endpoints: 1, ..PLAIN }) {
        let mut expected = Amount::ZERO;
        let height = world.ethereum.anvil.fetch_height().await.unwrap();
        for fault in faults(height) {
            let order = world.place_order("erc20_usdt").await;
            world.endpoints[0].set(fault);
            world.pay(&order, order.due).await;
            world.mine(order.coin, 20).await;
            world.assert_received(&order, Amount::ZERO).await;
            world.endpoints[0].set(EndpointFault::None);
            world.run_until_completed(&order).await;
            expected = expected.checked_add(order.due).unwrap();
        }
        world.mine_deep("eth").await;
        assert_eq!(world.merchant_available("erc20_usdt").await, expected);
    }

    async fn a_second_endpoint_hides_the_outage_of_the_first(world: Onchain = StorySetup { endpoints: 2, ..PLAIN }) {
        let height = world.ethereum.anvil.fetch_height().await.unwrap();
        for fault in faults(height) {
            let order = world.place_order("erc20_usdt").await;
            world.endpoints[0].set(fault);
            world.pay(&order, order.due).await;
            // While the first endpoint shows nothing, the payment needs twice the depth.
            world.mine(order.coin, 45).await;
            world.advance_seconds(60);
            world.run_until_completed(&order).await;
            world.endpoints[0].set(EndpointFault::None);
        }
    }

    async fn a_payment_waits_for_a_lagging_endpoint_or_for_twice_the_depth(world: Onchain = StorySetup { endpoints: 2, ..PLAIN }) {
        for catches_up in [true, false] {
            let order = world.place_order("erc20_usdt").await;
            let height = world.ethereum.anvil.fetch_height().await.unwrap();
            world.endpoints[0].set(EndpointFault::StaleHead(height));
            world.pay(&order, order.due).await;
            world.mine(order.coin, 1).await;
            world.mine(order.coin, 20).await;
            world.assert_status(&order, "pending", "confirming").await;
            if catches_up {
                world.endpoints[0].set(EndpointFault::None);
                world.advance_seconds(30);
            } else {
                world.advance_seconds(2 * 60);
                world.run_until_idle().await;
                world.assert_status(&order, "pending", "confirming").await;
                world.mine(order.coin, 20).await;
                world.advance_seconds(60);
            }
            world.run_until_idle().await;
            world.assert_status(&order, "completed", "paid").await;
        }
    }

    async fn a_lagging_endpoint_confirms_the_blocks_it_has(world: Onchain = StorySetup { endpoints: 2, ..PLAIN }) {
        let (older, newer) = (world.place_order("erc20_usdt").await, world.place_order("erc20_usdt").await);
        let height = world.ethereum.anvil.fetch_height().await.unwrap();
        world.endpoints[0].set(EndpointFault::StaleHead(height + 15));
        world.pay(&older, older.due).await;
        world.ethereum.mine(16, world.clock.now()).await;
        world.pay(&newer, newer.due).await;
        world.mine(newer.coin, 15).await;
        world.assert_status(&older, "completed", "paid").await;
        world.assert_status(&newer, "pending", "confirming").await;
        world.endpoints[0].set(EndpointFault::None);
        world.advance_seconds(1);
        world.run_until_idle().await;
        world.assert_status(&newer, "completed", "paid").await;
    }

    async fn conflicting_endpoints_stop_confirmation(world: Onchain = StorySetup { endpoints: 2, ..PLAIN }) {
        let order = world.place_order("erc20_usdt").await;
        let node = &world.ethereum.anvil;
        world.ethereum.mine(1, world.clock.now()).await;
        let other = node.call_rpc("eth_getBlockByNumber", json!(["latest", false])).await.unwrap();
        node.rollback(1).await.unwrap();
        world.endpoints[1].show(Some(other));
        world.pay(&order, order.due).await;
        world.mine(order.coin, 1).await;
        world.assert_received(&order, order.due).await;
        world.mine_deep(order.coin).await;
        world.assert_status(&order, "pending", "confirming").await;
        assert!(world.has_open_review("deposit.contradicted").await);
        // The end of the window does not expire the invoice, because its money has arrived.
        world.advance_seconds(3_600);
        world.mine(order.coin, 1).await;
        world.assert_status(&order, "pending", "confirming").await;
        world.endpoints[1].show(None);
        // A contradicted deposit is checked again within five minutes.
        world.advance_seconds(300);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert!(!world.has_open_review("deposit.contradicted").await);
        assert_eq!(world.merchant_available(order.coin).await, order.due);
    }

    async fn empty_logs_are_compared_with_the_bloom_filter(world: Onchain = StorySetup { endpoints: 2, ..PLAIN }) {
        world.endpoints[0].set(EndpointFault::OnlyEmptyLogs);
        world.endpoints[1].set(EndpointFault::NoReceipts);
        let order = world.place_order("erc20_usdt").await;
        world.pay(&order, order.due).await;
        world.mine(order.coin, 1).await;
        world.assert_received(&order, order.due).await;
        world.mine_deep(order.coin).await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn an_invented_balance_is_not_credited(world: Onchain = StorySetup { endpoints: 1, ..PLAIN }) {
        let order = world.place_order("eth").await;
        world.endpoints[0].set(EndpointFault::Generous);
        world.mine("eth", 20).await;
        world.assert_received(&order, Amount::ZERO).await;
        assert!(world.endpoints[0].proxy.request_count("eth_getProof") > 0, "balances are compared where nothing is traced");
        // Expiry reads the balance too and waits for a correct answer.
        world.advance_seconds(40 * 60);
        world.mine("eth", 3).await;
        world.assert_received(&order, Amount::ZERO).await;
        world.assert_status(&order, "pending", "pending").await;
        world.endpoints[0].set(EndpointFault::None);
        let second = world.place_order("eth").await;
        world.pay(&second, second.due).await;
        world.ethereum.mine(20, world.clock.now()).await;
        world.run_until_completed(&second).await;
        world.mine_deep("eth").await;
        assert_eq!(world.merchant_available("eth").await, second.due);
    }

    async fn one_of_two_endpoints_fails_during_a_payment(world: Onchain = StorySetup { endpoints: 2, ..PLAIN }) {
        let order = world.place_order("eth").await;
        world.pay(&order, order.due).await;
        world.mine("eth", 6).await;
        world.assert_status(&order, "pending", "confirming").await;
        // While one endpoint is silent, a payment needs twice the depth.
        world.endpoints[0].set(EndpointFault::Silent);
        world.mine("eth", 40).await;
        world.advance_seconds(60);
        world.run_until_completed(&order).await;
        // A daemon also starts while one endpoint is down.
        let second = world.place_order("eth").await;
        world.pay(&second, second.due).await;
        world.ethereum.mine(45, world.clock.now()).await;
        world.crash_and_boot().await;
        world.run_until_completed(&second).await;
    }

    async fn no_invoice_expires_while_the_node_is_stale(world: Onchain = StorySetup { endpoints: 1, ..PLAIN }) {
        let order = world.place_order("eth").await;
        let height = world.ethereum.anvil.fetch_height().await.unwrap();
        world.advance_seconds(20 * 60);
        world.pay(&order, order.due).await;
        world.endpoints[0].set(EndpointFault::Throttled);
        world.mine("eth", 1).await;
        world.advance_seconds(3 * 3_600);
        world.run_until_idle().await;
        assert!(world.ethereum.anvil.fetch_height().await.unwrap() > height);
        world.assert_status(&order, "pending", "pending").await;
        world.endpoints[0].set(EndpointFault::None);
        world.ethereum.mine(20, world.clock.now()).await;
        world.run_until_completed(&order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_a_contract_withholds_its_coin_only() {
    let mut node = Node::start(Network::Ethereum).await;
    node.usdt = Address::repeat_byte(0x42);
    let chain = node.build_chain_config(&[node.anvil.url()], "none");
    let world = World::with(Backend::Sqlite, move |config| {
        config.chains.insert(chain.id.clone(), chain);
    })
    .await;
    let order = world.place_order("eth").await;
    node.send(0, order.address.parse().unwrap(), order.due.units(), &[]).await;
    node.mine(20, world.clock.now()).await;
    world.run_until_completed(&order).await;
    let refused = world
        .post(
            "/api/orders",
            &json!({ "productId": world.product.id, "quantity": 2, "contactEmail": "buyer@example.com",
                "paymentMethod": "crypto", "coin": "erc20_usdt" }),
        )
        .await;
    assert_eq!((refused.status, refused.text_at("error").as_str()), (400, "payment_method_unavailable"));
    let ready = world.get("/readyz").await;
    assert_eq!((ready.status, &ready.body["problems"]), (503, &json!(["USDT on ethereum"])));
}
