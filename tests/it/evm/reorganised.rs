//! A reorg reverses the deposits of the lost blocks and no others.

use alloy_primitives::B256;
use chain::Amount;

use super::{Onchain, PlacedOrder, account, split};

/// Pays in a separate block and mines until it is confirmed.
async fn settle(world: &Onchain, order: &PlacedOrder, amount: Amount) -> (B256, u64) {
    let txid = world.pay(order, amount).await;
    world.mine(order.coin, 1).await;
    let answer = world.status(&order.id).await;
    let needed = answer.body["payment"]["required_confirmations"].as_u64().unwrap();
    world.mine(order.coin, needed - 1).await;
    (txid, needed)
}

both! {
    async fn a_reorg_before_confirmation_moves_the_payment(world: Onchain) {
        for coin in ["erc20_usdt", "eth"] {
            let order = world.place_order(coin).await;
            let txid = world.pay(&order, order.due).await;
            world.mine(coin, 4).await;
            let answer = world.assert_status(&order, "pending", "confirming").await;
            assert_eq!(answer.body["payment"]["confirmations"], 4, "{}", answer.text);
            world.ethereum.reorg(4, Some((txid, 2))).await;
            world.run_until_idle().await;
            let answer = world.assert_status(&order, "pending", "confirming").await;
            assert_eq!(answer.body["payment"]["confirmations"], 2, "{}", answer.text);
            world.assert_received(&order, order.due).await;
            world.mine_deep(coin).await;
            world.assert_status(&order, "completed", "paid").await;
            assert_eq!(world.merchant_available(coin).await, order.due, "one payment, two blocks, one credit");
        }
    }

    async fn a_payment_lost_before_confirmation_can_be_sent_again(world: Onchain) {
        let order = world.place_order("eth").await;
        world.pay(&order, order.due).await;
        world.mine("eth", 3).await;
        world.assert_status(&order, "pending", "confirming").await;
        world.ethereum.reorg(3, None).await;
        world.run_until_idle().await;
        world.assert_received(&order, Amount::ZERO).await;
        world.mine_deep("eth").await;
        assert_eq!(world.status(&order.id).await.text_at("status"), "pending");
        world.pay(&order, order.due).await;
        world.mine_deep("eth").await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_available("eth").await, order.due);
    }

    async fn a_reorg_after_confirmation_removes_a_partial_payment(world: Onchain) {
        let order = world.place_order("erc20_usdt").await;
        let (part, rest) = split(order.due, 1, 2);
        let (_, depth) = settle(&world, &order, part).await;
        world.assert_status(&order, "pending", "underpaid").await;
        world.ethereum.reorg(depth, None).await;
        world.run_until_idle().await;
        world.assert_received(&order, Amount::ZERO).await;
        world.pay(&order, rest).await;
        world.mine_deep(order.coin).await;
        world.assert_status(&order, "pending", "underpaid").await;
        world.assert_received(&order, rest).await;
        world.pay(&order, part).await;
        world.mine_deep(order.coin).await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_available(order.coin).await, order.due);
    }

    async fn a_reorg_after_credit_reverses_it_and_a_new_payment_restores_it(world: Onchain) {
        for coin in ["erc20_usdt", "eth"] {
            let order = world.place_order(coin).await;
            let (_, depth) = settle(&world, &order, order.due).await;
            world.assert_status(&order, "completed", "paid").await;
            assert_eq!(world.merchant_pending(coin).await, order.due);
            world.ethereum.reorg(depth, None).await;
            world.run_until_idle().await;
            assert_eq!(world.merchant_pending(coin).await, Amount::ZERO, "no credit outlives its block");
            assert_eq!(world.status(&order.id).await.text_at("status"), "completed", "what was delivered stays delivered");
            assert!(world.audit().await.has_no_findings());
            world.pay(&order, order.due).await;
            world.mine_deep(coin).await;
            assert_eq!(world.merchant_available(coin).await, order.due);
            assert_eq!(world.merchant_pending(coin).await, Amount::ZERO);
        }
    }

    async fn one_of_two_payments_in_a_block_survives(world: Onchain) {
        let (first, second) = (world.place_order("erc20_usdt").await, world.place_order("erc20_usdt").await);
        world.pay(&first, first.due).await;
        // The payment is sent from another account, so that its nonce does not follow the nonce of the lost payment.
        let (node, to, value) = (&world.ethereum, account(&second), second.due.units());
        node.call(0, node.usdt, provision::contracts::abi::UsdtLike::mintCall { to: node.rich[1], value }).await;
        world.mine("eth", 1).await;
        let kept = node.call(1, node.usdt, provision::contracts::abi::UsdtLike::transferCall { to, value }).await;
        world.mine("eth", 2).await;
        world.assert_received(&first, first.due).await;
        world.assert_received(&second, second.due).await;
        node.reorg(2, Some((kept, 1))).await;
        world.run_until_idle().await;
        world.assert_received(&first, first.due).await;
        world.assert_received(&second, second.due).await;
        world.mine_deep("eth").await;
        world.assert_status(&first, "completed", "paid").await;
        world.assert_status(&second, "completed", "paid").await;
    }

    async fn a_node_that_replaces_its_newest_blocks_is_followed(world: Onchain) {
        let order = world.place_order("erc20_usdt").await;
        world.pay(&order, order.due).await;
        world.mine("eth", 5).await;
        world.ethereum.anvil.rollback(5).await.unwrap();
        world.run_until_idle().await;
        // The shorter chain is a prefix of the followed one: it looks like an endpoint that lags.
        world.assert_received(&order, order.due).await;
        world.advance_seconds(30);
        world.mine("eth", 5).await;
        world.assert_received(&order, Amount::ZERO).await;
        world.pay(&order, order.due).await;
        world.mine_deep("eth").await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_available("erc20_usdt").await, order.due);
    }

    async fn a_balance_credit_is_reversed_with_its_own_block_only(world: Onchain) {
        let order = world.place_order("eth").await;
        let (part, rest) = split(order.due, 1, 2);
        // The same balance check finds two internal payments in two blocks.
        let (node, now) = (&world.ethereum, world.clock.now());
        world.pay_by_contract(&[(&order, part)]).await;
        node.mine(4, now).await;
        world.pay_by_contract(&[(&order, rest)]).await;
        world.mine("eth", 2).await;
        world.assert_received(&order, order.due).await;
        node.reorg(2, None).await;
        world.run_until_idle().await;
        world.assert_received(&order, part).await;
        world.pay_by_contract(&[(&order, rest)]).await;
        world.mine_deep("eth").await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_available("eth").await, order.due);
    }
}
