//! Stories of endpoints that invent money, hide it or are silent, on model chains: a deposit is confirmed when an endpoint
//! of another provider shows it. While none can be asked, a limited value is confirmed at twice the depth.

use chain::{Amount, ChainId};
use serde_json::json;
use simnet::NodeFault;

use crate::aftermath::{close_review, request};
use crate::placed_order::PlacedOrder;
use crate::world::World;

/// The coins of the chains whose blocks cost nothing to invent: tokens and native coins, on EVM and on TRON.
const COINS: [&str; 4] = ["erc20_usdt", "eth", "trc20_usdt", "bnb"];
/// The value of an order of the world's product is 1 CNY, which is 14 US cents.
const ORDER_CENTS: i64 = 14;

fn set_fault(world: &World, coin: &str, fault: NodeFault, on: bool) {
    world.simnet.set_fault(&world.chain_of(coin), fault, on);
}

fn invent_payment(world: &World, order: &PlacedOrder) {
    let asset = world.asset(order.coin);
    world
        .simnet
        .invent_transfer_at_first_endpoint(&asset.chain, &asset.id, &order.address, order.due)
        .expect("a known address");
}

/// Places an order, pays it and mines until the payment has one confirmation.
async fn pay_new_order(world: &World, coin: &'static str) -> PlacedOrder {
    let order = world.place_order(coin).await;
    world.pay_order(&order, order.due);
    world.mine(coin, 1);
    order
}

/// Returns the text of the only open review of this kind.
async fn only_review(world: &World, kind: &str) -> String {
    let reviews = world.open_reviews().await;
    let mut found = reviews.iter().filter(|review| review.kind.as_str() == kind);
    let review = found.next().unwrap_or_else(|| panic!("no open review {kind} in {reviews:?}"));
    assert!(found.next().is_none(), "{reviews:?}");
    review.detail.clone()
}

async fn rescan(world: &World, chain: &ChainId) {
    let to = world.simnet.tip(chain).head.height;
    request(world, "rescan", json!({ "chain": chain.as_str(), "from": 1, "to": to })).await.expect("a rescan");
}

async fn reject(world: &World, deposit: i64) -> Result<(), String> {
    let arguments = json!({ "reject-deposit": { "deposit": deposit, "note": "the explorer does not show it" } });
    request(world, "admin", arguments).await.map(|_| ())
}

/// Asserts that the invented payment of the order is booked as seen, is never confirmed, and has a review that names
/// both endpoints.
async fn assert_never_confirmed(world: &World, order: &PlacedOrder) {
    world.assert_status(order, "pending", "confirming").await;
    assert_eq!(world.merchant_available(order.coin).await, Amount::ZERO);
    assert_eq!(world.merchant_pending(order.coin).await, Amount::ZERO);
    let detail = only_review(world, "deposit.contradicted").await;
    assert!(detail.contains("a model node shows") && detail.contains("another model node does not"), "{detail}");
}

both! {
    async fn an_invented_transfer_is_never_confirmed(world: World) {
        for coin in COINS {
            let order = world.place_order(coin).await;
            invent_payment(&world, &order);
            world.mine_deep(coin);
            world.run_until_idle().await;
            assert_never_confirmed(&world, &order).await;
            // Neither time nor a silent second endpoint turns a contradicted deposit into money.
            set_fault(&world, coin, NodeFault::SilentSecondEndpoint, true);
            world.advance_seconds(600);
            world.mine_deep(coin);
            world.crash_and_boot().await;
            assert_never_confirmed(&world, &order).await;
            set_fault(&world, coin, NodeFault::SilentSecondEndpoint, false);
            close_review(&world, "deposit.contradicted").await;
            // The operator has decided, so the next checks do not open the review again.
            world.advance_seconds(600);
            world.mine_deep(coin);
            world.run_until_idle().await;
            world.assert_status(&order, "pending", "confirming").await;
            assert!(!world.has_open_review("deposit.contradicted").await, "{coin}");
        }
    }

    async fn a_rejected_deposit_frees_its_invoice_for_the_true_payment(world: World) {
        for coin in ["erc20_usdt", "trc20_usdt"] {
            let order = world.place_order(coin).await;
            invent_payment(&world, &order);
            world.mine_deep(coin);
            world.run_until_idle().await;
            let reviews = world.open_reviews().await;
            let review = reviews.iter().find(|review| review.kind.as_str() == "deposit.contradicted").unwrap();
            let id: i64 = review.subject.strip_prefix("deposit/").unwrap().parse().unwrap();
            assert!(review.detail.contains(&format!("`settled admin deposit reject {id}`")), "{}", review.detail);
            reject(&world, id).await.unwrap();
            assert!(!world.has_open_review("deposit.contradicted").await);
            world.assert_status(&order, "pending", "pending").await;
            assert_eq!(
                reject(&world, id).await,
                Err(format!("deposit {id} is orphaned and contradicted; only a deposit that is seen and contradicted can be rejected"))
            );
            world.pay_order(&order, order.due);
            world.mine_deep(coin);
            world.run_until_idle().await;
            world.assert_status(&order, "completed", "paid").await;
            assert_eq!(world.merchant_available(coin).await, order.due);
            assert!(reject(&world, id + 1).await.unwrap_err().contains("final and shown"));
        }
        assert_eq!(reject(&world, 99).await, Err("there is no deposit 99".to_owned()));
        assert!(world.audit().await.has_no_findings(), "{}", world.audit().await);
    }

    async fn a_rejected_deposit_does_not_keep_its_invoice_from_expiring(world: World) {
        let order = world.place_order("eth").await;
        invent_payment(&world, &order);
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.advance_seconds(3_600);
        world.mine("eth", 1);
        world.run_until_idle().await;
        assert_never_confirmed(&world, &order).await;
        world.simnet.remove_inventions(&world.chain_of("eth"));
        reject(&world, 1).await.unwrap();
        world.advance_seconds(60);
        world.mine("eth", 1);
        world.run_until_idle().await;
        world.assert_status(&order, "expired", "expired").await;
    }

    async fn an_invented_balance_is_never_confirmed(world: World) {
        let chain = world.chain_of("eth");
        world.simnet.set_internal_transfers_hidden(&chain, true);
        let order = world.place_order("eth").await;
        world.mine("eth", 40);
        world.run_until_idle().await;
        world.simnet.invent_balance_at_first_endpoint(&chain, &order.address, order.due).unwrap();
        world.mine("eth", 20);
        world.run_until_idle().await;
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        assert!(only_review(&world, "deposit.contradicted").await.contains("another model node"));
        assert_eq!(world.merchant_available("eth").await, Amount::ZERO);
    }

    async fn a_true_payment_of_an_address_with_an_invented_balance_is_confirmed(world: World) {
        let chain = world.chain_of("eth");
        world.simnet.set_internal_transfers_hidden(&chain, true);
        let order = world.place_order("eth").await;
        world.simnet.invent_balance_at_first_endpoint(&chain, &order.address, world.amount("eth", "0.00000001")).unwrap();
        world.mine("eth", 40);
        world.run_until_idle().await;
        world.simnet.pay_from_contract(&chain, &order.address, order.due).unwrap();
        world.mine("eth", 40);
        world.run_until_idle().await;
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_available("eth").await, order.due);
    }

    async fn a_rescan_books_an_invented_transfer_without_confirming_it(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let chain = world.chain_of(order.coin);
        set_fault(&world, order.coin, NodeFault::HideTransfers, true);
        invent_payment(&world, &order);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        set_fault(&world, order.coin, NodeFault::HideTransfers, false);
        rescan(&world, &chain).await;
        world.run_until_idle().await;
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert_never_confirmed(&world, &order).await;
    }

    async fn a_shown_payment_is_confirmed_in_the_block_that_gives_it_enough_confirmations(world: World) {
        for coin in COINS {
            let order = pay_new_order(&world, coin).await;
            world.run_until_idle().await;
            let needed = world.required_confirmations(&order).await;
            if needed > 1 {
                world.mine(coin, needed - 2);
                world.run_until_idle().await;
                world.assert_status(&order, "pending", "confirming").await;
                world.mine(coin, 1);
                world.run_until_idle().await;
            }
            world.assert_status(&order, "completed", "paid").await;
        }
        assert_eq!(world.open_reviews().await.len(), 0);
    }

    async fn a_hidden_payment_is_confirmed_when_the_second_endpoint_shows_it(world: World) {
        for coin in COINS {
            set_fault(&world, coin, NodeFault::SecondEndpointHidesTransfers, true);
            let order = pay_new_order(&world, coin).await;
            world.mine_deep(coin);
            world.run_until_idle().await;
            assert_never_confirmed(&world, &order).await;
            set_fault(&world, coin, NodeFault::SecondEndpointHidesTransfers, false);
            world.advance_seconds(1);
            world.run_until_idle().await;
            world.assert_status(&order, "completed", "paid").await;
            assert!(!world.has_open_review("deposit.contradicted").await, "the endpoints agree");
            world.mine_deep(coin);
            world.run_until_idle().await;
            assert_eq!(world.merchant_available(coin).await, order.due);
        }
    }

    async fn a_payment_is_confirmed_at_twice_its_depth_while_the_second_endpoint_is_silent(world: World) {
        for (coin, fault) in COINS.into_iter().zip([
            NodeFault::SilentSecondEndpoint,
            NodeFault::SingleEndpoint,
            NodeFault::SilentSecondEndpoint,
            NodeFault::SecondEndpointBehind(1_000),
        ]) {
            set_fault(&world, coin, fault, true);
            let order = pay_new_order(&world, coin).await;
            world.run_until_idle().await;
            let needed = world.required_confirmations(&order).await;
            // TRON confirms solidified blocks, of which 20 further ones are needed.
            let further = if coin == "trc20_usdt" { needed + 19 } else { 2 * needed - 1 };
            world.mine(coin, further - 1);
            world.advance_seconds(60);
            world.run_until_idle().await;
            world.assert_status(&order, "pending", "confirming").await;
            world.mine(coin, 1);
            world.advance_seconds(60);
            world.run_until_idle().await;
            world.assert_status(&order, "completed", "paid").await;
            assert_eq!(world.open_reviews().await.len(), 0, "{coin}");
            set_fault(&world, coin, fault, false);
        }
    }

    async fn a_single_source_confirms_no_more_than_its_limit_in_24_hours(world: World = |config| {
        config.policy.single_source_max_usd_cents = 2 * ORDER_CENTS;
    }) {
        for coin in ["erc20_usdt", "trc20_usdt"] {
            set_fault(&world, coin, NodeFault::SilentSecondEndpoint, true);
            let mut orders = Vec::new();
            for _ in 0..3 {
                orders.push(pay_new_order(&world, coin).await);
                world.mine_deep(coin);
                world.advance_seconds(60);
                world.run_until_idle().await;
            }
            world.assert_status(&orders[0], "completed", "paid").await;
            world.assert_status(&orders[1], "completed", "paid").await;
            world.assert_status(&orders[2], "pending", "confirming").await;
            let detail = only_review(&world, "deposit.uncorroborated").await;
            assert!(detail.contains("another model node does not answer"), "{detail}");
            assert!(detail.contains("`policy.single_source_max_usd`"), "{detail}");
            // The second endpoint answers again, so the waiting deposit is confirmed and its review is closed.
            set_fault(&world, coin, NodeFault::SilentSecondEndpoint, false);
            world.advance_seconds(300);
            world.run_until_idle().await;
            world.assert_status(&orders[2], "completed", "paid").await;
            assert!(!world.has_open_review("deposit.uncorroborated").await);
            // The deposits that a single source confirmed were shown, too, so they do not count any more.
            set_fault(&world, coin, NodeFault::SilentSecondEndpoint, true);
            let later = pay_new_order(&world, coin).await;
            world.mine_deep(coin);
            world.advance_seconds(60);
            world.run_until_idle().await;
            world.assert_status(&later, "completed", "paid").await;
        }
    }

    async fn the_limit_of_a_single_source_ends_after_24_hours(world: World = |config| {
        config.policy.single_source_max_usd_cents = ORDER_CENTS;
    }) {
        set_fault(&world, "erc20_usdt", NodeFault::SingleEndpoint, true);
        let first = pay_new_order(&world, "erc20_usdt").await;
        world.mine_deep(first.coin);
        world.run_until_idle().await;
        world.assert_status(&first, "completed", "paid").await;
        let second = pay_new_order(&world, "erc20_usdt").await;
        world.mine_deep(second.coin);
        world.run_until_idle().await;
        world.assert_status(&second, "pending", "confirming").await;
        assert!(only_review(&world, "deposit.uncorroborated").await.contains("no endpoint of another provider"));
        world.advance_seconds(86_400);
        world.mine(second.coin, 1);
        world.run_until_idle().await;
        world.assert_status(&second, "completed", "paid").await;
        assert!(!world.has_open_review("deposit.uncorroborated").await);
    }

    async fn money_that_a_single_source_confirmed_is_reviewed_when_the_second_endpoint_contradicts_it(world: World) {
        for coin in ["erc20_usdt", "trc20_usdt"] {
            set_fault(&world, coin, NodeFault::SilentSecondEndpoint, true);
            let order = world.place_order(coin).await;
            invent_payment(&world, &order);
            world.mine_deep(coin);
            world.run_until_idle().await;
            world.assert_status(&order, "completed", "paid").await;
            set_fault(&world, coin, NodeFault::SilentSecondEndpoint, false);
            world.advance_seconds(60);
            world.mine(coin, 1);
            world.run_until_idle().await;
            let detail = only_review(&world, "deposit.contradicted").await;
            assert!(detail.contains("it was confirmed before"), "{detail}");
            close_review(&world, "deposit.contradicted").await;
        }
    }

    async fn a_payment_of_unknown_value_waits_for_a_second_source(world: World = |config| {
        config.policy.single_source_max_usd_cents = 0;
    }) {
        set_fault(&world, "eth", NodeFault::SilentSecondEndpoint, true);
        let order = pay_new_order(&world, "eth").await;
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        // The end of the window does not expire the invoice, because its money has arrived.
        world.advance_seconds(3_600);
        world.mine("eth", 1);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        set_fault(&world, "eth", NodeFault::SilentSecondEndpoint, false);
        world.advance_seconds(60);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_reorg_closes_the_review_of_a_waiting_deposit(world: World = |config| {
        config.policy.single_source_max_usd_cents = 0;
    }) {
        set_fault(&world, "erc20_usdt", NodeFault::SilentSecondEndpoint, true);
        let order = pay_new_order(&world, "erc20_usdt").await;
        world.run_until_idle().await;
        let depth = 2 * world.required_confirmations(&order).await;
        world.mine(order.coin, depth);
        world.advance_seconds(60);
        world.run_until_idle().await;
        assert!(world.has_open_review("deposit.uncorroborated").await);
        let now = world.clock.now().unix_seconds();
        world.simnet.reorg(&world.chain_of(order.coin), depth + 1, simnet::ReplacedTxs::Drop, now);
        world.run_until_idle().await;
        assert!(!world.has_open_review("deposit.uncorroborated").await);
    }
}
