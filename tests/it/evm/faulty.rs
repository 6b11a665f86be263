//! An endpoint that throttles, babbles, omits, lags or dies costs time, never a payment.

use chain::Amount;
use serde_json::json;

use super::{Fault, Onchain, PLAIN, Plan};

/// Every way to be of no use, at a height that the node has.
fn faults(height: u64) -> [Fault; 5] {
    [Fault::Throttled, Fault::Garbage, Fault::EmptyLogs, Fault::StaleHead(height), Fault::Silent]
}

both! {
    async fn the_only_endpoint_fails_and_recovers(world: Onchain = Plan { endpoints: 1, ..PLAIN }) {
        let mut expected = Amount::ZERO;
        let height = world.ethereum.anvil.height().await.unwrap();
        for fault in faults(height) {
            let placed = world.place("erc20_usdt").await;
            world.endpoints[0].set(fault);
            world.pay(&placed, placed.due).await;
            world.mine(placed.coin, 20).await;
            world.expect_received(&placed, Amount::ZERO).await;
            world.endpoints[0].set(Fault::None);
            world.until_completed(&placed).await;
            expected = expected.checked_add(placed.due).unwrap();
        }
        world.mine_deep("eth").await;
        assert_eq!(world.earned("erc20_usdt").await, expected);
    }

    async fn with_a_second_endpoint_nothing_is_even_late(world: Onchain = Plan { endpoints: 2, ..PLAIN }) {
        let height = world.ethereum.anvil.height().await.unwrap();
        for fault in faults(height) {
            let placed = world.place("erc20_usdt").await;
            world.endpoints[0].set(fault);
            world.pay(&placed, placed.due).await;
            world.mine(placed.coin, 20).await;
            // One that is behind is waited for until it stands still.
            world.advance_seconds(2 * 60);
            world.until_completed(&placed).await;
            world.endpoints[0].set(Fault::None);
        }
    }

    async fn an_endpoint_that_is_behind_is_waited_for_until_it_stands_still(world: Onchain = Plan { endpoints: 2, ..PLAIN }) {
        for catches_up in [true, false] {
            let placed = world.place("erc20_usdt").await;
            let height = world.ethereum.anvil.height().await.unwrap();
            world.endpoints[0].set(Fault::StaleHead(height));
            world.pay(&placed, placed.due).await;
            world.mine(placed.coin, 1).await;
            world.mine(placed.coin, 20).await;
            world.expect(&placed, "pending", "confirming").await;
            if catches_up {
                world.endpoints[0].set(Fault::None);
            } else {
                world.advance_seconds(2 * 60);
            }
            world.run_until_idle().await;
            world.expect(&placed, "completed", "paid").await;
        }
    }

    async fn one_that_is_behind_speaks_for_what_it_has(world: Onchain = Plan { endpoints: 2, ..PLAIN }) {
        let (older, newer) = (world.place("erc20_usdt").await, world.place("erc20_usdt").await);
        let height = world.ethereum.anvil.height().await.unwrap();
        world.endpoints[0].set(Fault::StaleHead(height + 15));
        world.pay(&older, older.due).await;
        world.ethereum.mine(16, world.clock.now()).await;
        world.pay(&newer, newer.due).await;
        world.mine(newer.coin, 15).await;
        world.expect(&older, "completed", "paid").await;
        world.expect(&newer, "pending", "confirming").await;
        world.endpoints[0].set(Fault::None);
        world.advance_seconds(1);
        world.run_until_idle().await;
        world.expect(&newer, "completed", "paid").await;
    }

    async fn what_two_endpoints_show_differently_is_not_confirmed(world: Onchain = Plan { endpoints: 2, ..PLAIN }) {
        let placed = world.place("erc20_usdt").await;
        let node = &world.ethereum.anvil;
        world.ethereum.mine(1, world.clock.now()).await;
        let other = node.rpc("eth_getBlockByNumber", json!(["latest", false])).await.unwrap();
        node.rollback(1).await.unwrap();
        world.endpoints[1].show(Some(other));
        world.pay(&placed, placed.due).await;
        world.mine(placed.coin, 1).await;
        world.expect_received(&placed, placed.due).await;
        world.mine_deep(placed.coin).await;
        world.expect(&placed, "pending", "confirming").await;
        assert!(world.is_reviewed("chain.disputed").await);
        // A window that ends meanwhile ends nothing: the money is there.
        world.advance_seconds(3_600);
        world.mine(placed.coin, 1).await;
        world.expect(&placed, "pending", "confirming").await;
        world.endpoints[1].show(None);
        world.advance_seconds(1);
        world.run_until_idle().await;
        world.expect(&placed, "completed", "paid").await;
        assert!(!world.is_reviewed("chain.disputed").await);
        assert_eq!(world.earned(placed.coin).await, placed.due);
    }

    async fn empty_logs_are_held_against_the_bloom(world: Onchain = Plan { endpoints: 2, ..PLAIN }) {
        world.endpoints[0].set(Fault::OnlyEmptyLogs);
        world.endpoints[1].set(Fault::NoReceipts);
        let placed = world.place("erc20_usdt").await;
        world.pay(&placed, placed.due).await;
        world.mine(placed.coin, 1).await;
        world.expect_received(&placed, placed.due).await;
        world.mine_deep(placed.coin).await;
        world.expect(&placed, "completed", "paid").await;
    }

    async fn a_made_up_balance_is_no_money(world: Onchain = Plan { endpoints: 1, ..PLAIN }) {
        let placed = world.place("eth").await;
        world.endpoints[0].set(Fault::Generous);
        world.mine("eth", 20).await;
        world.expect_received(&placed, Amount::ZERO).await;
        assert!(world.endpoints[0].proxy.request_count("eth_getProof") > 0, "balances are compared where nothing is traced");
        // The end of the window asks as well, and waits for an answer that is right.
        world.advance_seconds(40 * 60);
        world.mine("eth", 3).await;
        world.expect_received(&placed, Amount::ZERO).await;
        world.expect(&placed, "pending", "pending").await;
        world.endpoints[0].set(Fault::None);
        let second = world.place("eth").await;
        world.pay(&second, second.due).await;
        world.ethereum.mine(20, world.clock.now()).await;
        world.until_completed(&second).await;
        world.mine_deep("eth").await;
        assert_eq!(world.earned("eth").await, second.due);
    }

    async fn one_of_two_endpoints_dies_on_the_way(world: Onchain = Plan { endpoints: 2, ..PLAIN }) {
        let placed = world.place("eth").await;
        world.pay(&placed, placed.due).await;
        world.mine("eth", 6).await;
        world.expect(&placed, "pending", "confirming").await;
        world.endpoints[0].set(Fault::Silent);
        world.mine("eth", 6).await;
        world.until_completed(&placed).await;
        // A daemon that starts beside a dead endpoint works too.
        let second = world.place("eth").await;
        world.pay(&second, second.due).await;
        world.ethereum.mine(20, world.clock.now()).await;
        world.crash_and_boot().await;
        world.until_completed(&second).await;
    }

    async fn nothing_expires_while_the_node_is_stale(world: Onchain = Plan { endpoints: 1, ..PLAIN }) {
        let placed = world.place("eth").await;
        let height = world.ethereum.anvil.height().await.unwrap();
        world.advance_seconds(20 * 60);
        world.pay(&placed, placed.due).await;
        world.endpoints[0].set(Fault::Throttled);
        world.mine("eth", 1).await;
        world.advance_seconds(3 * 3_600);
        world.run_until_idle().await;
        assert!(world.ethereum.anvil.height().await.unwrap() > height);
        world.expect(&placed, "pending", "pending").await;
        world.endpoints[0].set(Fault::None);
        world.ethereum.mine(20, world.clock.now()).await;
        world.until_completed(&placed).await;
    }
}
