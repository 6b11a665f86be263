//! A reorg reverses the deposits of the lost blocks and no others.

use chain::Amount;

use super::{COIN, DEEP, Onchain, PRICES, sats};

ways! {
    async fn reorgs_of_every_depth_are_followed_before_and_after_credit(world: Onchain) {
        // The price is high enough to need six confirmations, so that a reorg can come before the credit.
        let (fen, needed) = PRICES[2];
        let mut earned = Amount::ZERO;
        for depth in 1..=8 {
            let order = world.place_order_worth(fen + i64::try_from(depth).unwrap()).await;
            world.pay(&[(&order, order.due)]).await;
            world.mine(depth).await;
            let credited = depth >= needed;
            let before = if credited { ("completed", "paid") } else { ("pending", "confirming") };
            world.assert_status(&order, before.0, before.1).await;
            let pending = world.merchant_pending(COIN).await;

            world.reorg(depth).await;
            let answer = world.status(&order.id).await;
            if credited {
                assert_eq!(Some(world.merchant_pending(COIN).await), pending.checked_sub(order.due), "{}", answer.text);
            } else {
                // The transaction is back in the mempool.
                world.assert_received(&order, order.due).await;
                assert_eq!(answer.body["payment"]["confirmations"], 0, "depth {depth}: {}", answer.text);
            }
            assert!(world.audit().await.has_no_findings(), "depth {depth}");

            // The next block contains the transaction again. The payment is credited once, although two blocks
            // contained it.
            world.mine(needed + DEEP).await;
            world.assert_status(&order, "completed", "paid").await;
            earned = earned.checked_add(order.due).unwrap();
            assert_eq!(world.merchant_available(COIN).await, earned, "depth {depth}");
            assert_eq!(world.merchant_pending(COIN).await, Amount::ZERO);
        }
    }

    async fn reorgs_of_every_depth_reverse_and_restore_the_credit(world: Onchain) {
        let (fen, _) = PRICES[0];
        let mut earned = Amount::ZERO;
        for depth in 1..=8 {
            let order = world.place_order_worth(fen + i64::try_from(depth).unwrap()).await;
            world.pay(&[(&order, order.due)]).await;
            world.mine(depth).await;
            world.assert_status(&order, "completed", "paid").await;
            assert_eq!(world.merchant_pending(COIN).await, order.due);

            world.reorg(depth).await;
            assert_eq!(world.merchant_pending(COIN).await, Amount::ZERO, "depth {depth}");
            assert!(world.audit().await.has_no_findings(), "depth {depth}");

            world.mine(DEEP).await;
            world.assert_status(&order, "completed", "paid").await;
            earned = earned.checked_add(order.due).unwrap();
            assert_eq!(world.merchant_available(COIN).await, earned, "depth {depth}");
        }
    }

    async fn a_reorg_reverses_only_deposits_of_lost_blocks(world: Onchain) {
        let (kept, lost) = (world.place_order().await, world.place_order().await);
        world.pay(&[(&kept, kept.due)]).await;
        world.mine(1).await;
        let coin = world.payer.take_utxo();
        let payment = world.payer.sign_payment(coin, &[(&lost.address, sats(lost.due))], 2_000, false).unwrap();
        world.payer.broadcast_payment(world.node(), &payment).await.unwrap();
        world.mine(1).await;
        world.node().rollback(1).await.unwrap();
        let theft = world.payer.sign_payment(coin, &[(&world.payer.address(), 5_000)], 30_000, false).unwrap();
        world.node().mine_only(&[theft.hex]).await.unwrap();
        world.mine(1).await;
        world.assert_received(&kept, kept.due).await;
        world.assert_received(&lost, Amount::ZERO).await;
        world.mine(DEEP).await;
        assert_eq!(world.merchant_available(COIN).await, kept.due);
    }

    async fn a_fork_below_the_final_mark_halts_the_chain(world: Onchain) {
        let order = world.place_order().await;
        world.pay(&[(&order, order.due)]).await;
        world.mine(DEEP).await;
        world.assert_status(&order, "completed", "paid").await;
        let earned = world.merchant_available(COIN).await;
        world.reorg(DEEP).await;
        assert_eq!(world.merchant_available(COIN).await, earned, "final money stays until a person has looked");
        let answer = world.post("/api/orders", &serde_json::json!({
            "productId": world.product.id, "quantity": 1, "contactEmail": "buyer@example.com",
            "paymentMethod": "crypto", "coin": "btc",
        })).await;
        assert_ne!(answer.status, 201, "nobody is given an address that nobody watches: {}", answer.text);
    }
}
