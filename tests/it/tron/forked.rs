//! Forks of the unsolidified part of the chain change no booked deposit.

use chain::Amount;

use super::Onchain;
use super::node::LAG;

both! {
    async fn an_unconfirmed_transfer_of_a_lost_block_is_removed(world: Onchain) {
        let order = world.place_order("trc20_usdt").await;
        world.pay(&order, order.due);
        world.produce(3).await;
        world.assert_status(&order, "pending", "confirming").await;
        world.tron.node.model().orphan_blocks(3, |_| false);
        world.produce(4).await;
        world.assert_status(&order, "pending", "pending").await;
        world.assert_received(&order, Amount::ZERO).await;
        world.settle().await;
        assert_eq!(world.merchant_available(order.coin).await, Amount::ZERO);
        world.pay(&order, order.due);
        world.settle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_available(order.coin).await, order.due);
    }

    async fn a_payment_that_moves_to_another_block_counts_once(world: Onchain) {
        for coin in ["trx", "trc20_usdt"] {
            let order = world.place_order(coin).await;
            world.pay(&order, order.due);
            world.produce(LAG - 1).await;
            world.assert_status(&order, "pending", "confirming").await;
            world.tron.node.model().orphan_blocks(LAG - 1, |_| true);
            world.produce(1).await;
            world.assert_status(&order, "pending", "confirming").await;
            world.assert_received(&order, order.due).await;
            world.settle().await;
            world.assert_status(&order, "completed", "paid").await;
            assert_eq!(world.merchant_available(coin).await, order.due, "one payment, two blocks, one credit");
        }
    }

    async fn no_invoice_expires_without_solidified_blocks(world: Onchain) {
        let (paid, unpaid) = (world.place_order("trx").await, world.place_order("trx").await);
        world.tron.node.model().producers = 18;
        world.produce(2 * LAG).await;
        let stands = world.tron.node.model().solid_height();
        world.pay(&paid, paid.due);
        world.produce(100).await;
        assert_eq!(world.tron.node.model().solid_height(), stands, "19 producers are needed");
        world.assert_status(&paid, "pending", "confirming").await;
        world.advance_seconds(3 * 3_600);
        world.produce(20).await;
        // The head advances, but the solidified block does not.
        world.assert_status(&paid, "pending", "confirming").await;
        world.assert_status(&unpaid, "pending", "pending").await;
        world.tron.node.model().producers = 27;
        world.produce(27).await;
        world.assert_status(&paid, "completed", "paid").await;
        world.assert_status(&unpaid, "expired", "expired").await;
    }

    async fn an_expired_transaction_is_in_no_block(world: Onchain) {
        let order = world.place_order("trx").await;
        world.pay(&order, order.due);
        // java-tron compares the expiration with the time of the parent block. So the transaction is still accepted in
        // a block that is more than five minutes later.
        world.tron.node.produce_blocks(1, (world.clock.now().unix_seconds() + 400) * 1_000);
        world.settle().await;
        world.assert_status(&order, "completed", "paid").await;
        let second = world.place_order("trx").await;
        world.tron.node.model().drop_broadcasts = true;
        world.pay(&second, second.due);
        world.tron.node.model().drop_broadcasts = false;
        world.settle().await;
        world.assert_status(&second, "pending", "pending").await;
    }
}
