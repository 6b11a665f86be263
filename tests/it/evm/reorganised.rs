//! Blocks that vanish take back what they brought, and only that.

use alloy_primitives::B256;
use chain::Amount;

use super::{Onchain, Placed, account, split};

/// Pays in a block of its own and lets it be confirmed.
async fn settle(world: &Onchain, placed: &Placed, amount: Amount) -> (B256, u64) {
    let txid = world.pay(placed, amount).await;
    world.mine(placed.coin, 1).await;
    let answer = world.status(&placed.id).await;
    let needed = answer.body["payment"]["required_confirmations"].as_u64().unwrap();
    world.mine(placed.coin, needed - 1).await;
    (txid, needed)
}

both! {
    async fn before_confirmation_a_payment_moves_to_another_block(world: Onchain) {
        for coin in ["erc20_usdt", "eth"] {
            let placed = world.place(coin).await;
            let txid = world.pay(&placed, placed.due).await;
            world.mine(coin, 4).await;
            let answer = world.expect(&placed, "pending", "confirming").await;
            assert_eq!(answer.body["payment"]["confirmations"], 4, "{}", answer.text);
            world.ethereum.reorg(4, Some((txid, 2))).await;
            world.run_until_idle().await;
            let answer = world.expect(&placed, "pending", "confirming").await;
            assert_eq!(answer.body["payment"]["confirmations"], 2, "{}", answer.text);
            world.expect_received(&placed, placed.due).await;
            world.mine_deep(coin).await;
            world.expect(&placed, "completed", "paid").await;
            assert_eq!(world.earned(coin).await, placed.due, "one payment, two blocks, one credit");
        }
    }

    async fn before_confirmation_a_payment_vanishes_and_is_made_again(world: Onchain) {
        let placed = world.place("eth").await;
        world.pay(&placed, placed.due).await;
        world.mine("eth", 3).await;
        world.expect(&placed, "pending", "confirming").await;
        world.ethereum.reorg(3, None).await;
        world.run_until_idle().await;
        world.expect_received(&placed, Amount::ZERO).await;
        world.mine_deep("eth").await;
        assert_eq!(world.status(&placed.id).await.text_at("status"), "pending");
        world.pay(&placed, placed.due).await;
        world.mine_deep("eth").await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.earned("eth").await, placed.due);
    }

    async fn after_confirmation_a_part_vanishes_and_does_not_count(world: Onchain) {
        let placed = world.place("erc20_usdt").await;
        let (part, rest) = split(placed.due, 1, 2);
        let (_, depth) = settle(&world, &placed, part).await;
        world.expect(&placed, "pending", "underpaid").await;
        world.ethereum.reorg(depth, None).await;
        world.run_until_idle().await;
        world.expect_received(&placed, Amount::ZERO).await;
        world.pay(&placed, rest).await;
        world.mine_deep(placed.coin).await;
        world.expect(&placed, "pending", "underpaid").await;
        world.expect_received(&placed, rest).await;
        world.pay(&placed, part).await;
        world.mine_deep(placed.coin).await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.earned(placed.coin).await, placed.due);
    }

    async fn after_credit_the_credit_is_reversed_and_comes_again_with_the_money(world: Onchain) {
        for coin in ["erc20_usdt", "eth"] {
            let placed = world.place(coin).await;
            let (_, depth) = settle(&world, &placed, placed.due).await;
            world.expect(&placed, "completed", "paid").await;
            assert_eq!(world.pending(coin).await, placed.due);
            world.ethereum.reorg(depth, None).await;
            world.run_until_idle().await;
            assert_eq!(world.pending(coin).await, Amount::ZERO, "no credit outlives its block");
            assert_eq!(world.status(&placed.id).await.text_at("status"), "completed", "what was delivered stays delivered");
            assert!(world.audit().await.is_clean());
            world.pay(&placed, placed.due).await;
            world.mine_deep(coin).await;
            assert_eq!(world.earned(coin).await, placed.due);
            assert_eq!(world.pending(coin).await, Amount::ZERO);
        }
    }

    async fn one_of_two_payments_in_a_block_survives(world: Onchain) {
        let (first, second) = (world.place("erc20_usdt").await, world.place("erc20_usdt").await);
        world.pay(&first, first.due).await;
        // From another account, so that it does not wait for the payment that is lost.
        let (node, to, value) = (&world.ethereum, account(&second), second.due.units());
        node.call(0, node.usdt, provision::contracts::abi::UsdtLike::mintCall { to: node.rich[1], value }).await;
        world.mine("eth", 1).await;
        let kept = node.call(1, node.usdt, provision::contracts::abi::UsdtLike::transferCall { to, value }).await;
        world.mine("eth", 2).await;
        world.expect_received(&first, first.due).await;
        world.expect_received(&second, second.due).await;
        node.reorg(2, Some((kept, 1))).await;
        world.run_until_idle().await;
        world.expect_received(&first, first.due).await;
        world.expect_received(&second, second.due).await;
        world.mine_deep("eth").await;
        world.expect(&first, "completed", "paid").await;
        world.expect(&second, "completed", "paid").await;
    }

    async fn a_node_that_forgets_its_newest_blocks_and_grows_others_is_followed(world: Onchain) {
        let placed = world.place("erc20_usdt").await;
        world.pay(&placed, placed.due).await;
        world.mine("eth", 5).await;
        world.ethereum.anvil.rollback(5).await.unwrap();
        world.run_until_idle().await;
        // The shorter chain is ours too: it lags, for all that can be told.
        world.expect_received(&placed, placed.due).await;
        world.advance_seconds(30);
        world.mine("eth", 5).await;
        world.expect_received(&placed, Amount::ZERO).await;
        world.pay(&placed, placed.due).await;
        world.mine_deep("eth").await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.earned("erc20_usdt").await, placed.due);
    }

    async fn ether_found_by_balance_is_taken_back_with_its_own_block_only(world: Onchain) {
        let placed = world.place("eth").await;
        let (part, rest) = split(placed.due, 1, 2);
        // Two payments by a contract in two blocks, noticed together.
        let (node, now) = (&world.ethereum, world.clock.now());
        world.pay_by_contract(&[(&placed, part)]).await;
        node.mine(4, now).await;
        world.pay_by_contract(&[(&placed, rest)]).await;
        world.mine("eth", 2).await;
        world.expect_received(&placed, placed.due).await;
        node.reorg(2, None).await;
        world.run_until_idle().await;
        world.expect_received(&placed, part).await;
        world.pay_by_contract(&[(&placed, rest)]).await;
        world.mine_deep("eth").await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.earned("eth").await, placed.due);
    }
}
