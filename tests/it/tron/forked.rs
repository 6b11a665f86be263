//! The part of the chain that is not solidified may change its mind; nothing that was booked does.

use chain::Amount;

use super::Onchain;
use super::node::LAG;

both! {
    async fn what_was_seen_in_a_block_that_vanishes_is_forgotten(world: Onchain) {
        let placed = world.place("trc20_usdt").await;
        world.pay(&placed, placed.due);
        world.produce(3).await;
        world.expect(&placed, "pending", "confirming").await;
        world.tron.node.model().orphan_blocks(3, |_| false);
        world.produce(4).await;
        world.expect(&placed, "pending", "pending").await;
        world.expect_received(&placed, Amount::ZERO).await;
        world.settle().await;
        assert_eq!(world.earned(placed.coin).await, Amount::ZERO);
        world.pay(&placed, placed.due);
        world.settle().await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.earned(placed.coin).await, placed.due);
    }

    async fn a_payment_that_moves_to_another_block_counts_once(world: Onchain) {
        for coin in ["trx", "trc20_usdt"] {
            let placed = world.place(coin).await;
            world.pay(&placed, placed.due);
            world.produce(LAG - 1).await;
            world.expect(&placed, "pending", "confirming").await;
            world.tron.node.model().orphan_blocks(LAG - 1, |_| true);
            world.produce(1).await;
            world.expect(&placed, "pending", "confirming").await;
            world.expect_received(&placed, placed.due).await;
            world.settle().await;
            world.expect(&placed, "completed", "paid").await;
            assert_eq!(world.earned(coin).await, placed.due, "one payment, two blocks, one credit");
        }
    }

    async fn nothing_expires_while_nothing_is_solidified(world: Onchain) {
        let (paid, unpaid) = (world.place("trx").await, world.place("trx").await);
        world.tron.node.model().producers = 18;
        world.produce(2 * LAG).await;
        let stands = world.tron.node.model().solid_height();
        world.pay(&paid, paid.due);
        world.produce(100).await;
        assert_eq!(world.tron.node.model().solid_height(), stands, "19 producers are needed");
        world.expect(&paid, "pending", "confirming").await;
        world.advance_seconds(3 * 3_600);
        world.produce(20).await;
        // The head moves on; what is read does not.
        world.expect(&paid, "pending", "confirming").await;
        world.expect(&unpaid, "pending", "pending").await;
        world.tron.node.model().producers = 27;
        world.produce(27).await;
        world.expect(&paid, "completed", "paid").await;
        world.expect(&unpaid, "expired", "expired").await;
    }

    async fn an_expired_transaction_is_in_no_block(world: Onchain) {
        let placed = world.place("trx").await;
        world.pay(&placed, placed.due);
        // Its block comes after more than its five minutes, but the block before it does not: it is still taken.
        world.tron.node.produce(1, (world.clock.now().unix_seconds() + 400) * 1_000);
        world.settle().await;
        world.expect(&placed, "completed", "paid").await;
        let second = world.place("trx").await;
        world.tron.node.model().drop_broadcasts = true;
        world.pay(&second, second.due);
        world.tron.node.model().drop_broadcasts = false;
        world.settle().await;
        world.expect(&second, "pending", "pending").await;
    }
}
