//! Blocks that vanish take back what they brought, and only that.

use chain::Amount;

use super::{COIN, DEEP, Onchain, PRICES, sats};

ways! {
    async fn before_and_after_credit_forks_of_every_depth_are_followed(world: Onchain) {
        // Worth enough that six confirmations are needed: below that a fork comes before the credit.
        let (fen, needed) = PRICES[2];
        let mut earned = Amount::ZERO;
        for depth in 1..=8 {
            let placed = world.place_worth(fen + i64::try_from(depth).unwrap()).await;
            world.pay(&[(&placed, placed.due)]).await;
            world.mine(depth).await;
            let credited = depth >= needed;
            let before = if credited { ("completed", "paid") } else { ("pending", "confirming") };
            world.expect(&placed, before.0, before.1).await;
            let pending = world.pending(COIN).await;

            world.reorg(depth).await;
            let answer = world.status(&placed.id).await;
            if credited {
                assert_eq!(Some(world.pending(COIN).await), pending.checked_sub(placed.due), "{}", answer.text);
            } else {
                // It waits again, where it can be seen.
                world.expect_received(&placed, placed.due).await;
                assert_eq!(answer.body["payment"]["confirmations"], 0, "depth {depth}: {}", answer.text);
            }
            assert!(world.audit().await.is_clean(), "depth {depth}");

            // The next block takes the transaction out of the mempool: one payment, two blocks, one credit.
            world.mine(needed + DEEP).await;
            world.expect(&placed, "completed", "paid").await;
            earned = earned.checked_add(placed.due).unwrap();
            assert_eq!(world.earned(COIN).await, earned, "depth {depth}");
            assert_eq!(world.pending(COIN).await, Amount::ZERO);
        }
    }

    async fn a_credit_goes_with_its_block_and_comes_again_at_every_depth(world: Onchain) {
        let (fen, _) = PRICES[0];
        let mut earned = Amount::ZERO;
        for depth in 1..=8 {
            let placed = world.place_worth(fen + i64::try_from(depth).unwrap()).await;
            world.pay(&[(&placed, placed.due)]).await;
            world.mine(depth).await;
            world.expect(&placed, "completed", "paid").await;
            assert_eq!(world.pending(COIN).await, placed.due);

            world.reorg(depth).await;
            assert_eq!(world.pending(COIN).await, Amount::ZERO, "depth {depth}");
            assert!(world.audit().await.is_clean(), "depth {depth}");

            world.mine(DEEP).await;
            world.expect(&placed, "completed", "paid").await;
            earned = earned.checked_add(placed.due).unwrap();
            assert_eq!(world.earned(COIN).await, earned, "depth {depth}");
        }
    }

    async fn only_what_was_in_the_lost_blocks_is_lost(world: Onchain) {
        let (kept, lost) = (world.place().await, world.place().await);
        world.pay(&[(&kept, kept.due)]).await;
        world.mine(1).await;
        let coin = world.payer.take_utxo();
        let payment = world.payer.sign(coin, &[(&lost.address, sats(lost.due))], 2_000, false).unwrap();
        world.payer.send(world.node(), &payment).await.unwrap();
        world.mine(1).await;
        world.node().rollback(1).await.unwrap();
        let theft = world.payer.sign(coin, &[(&world.payer.address(), 5_000)], 30_000, false).unwrap();
        world.node().mine_only(&[theft.hex]).await.unwrap();
        world.mine(1).await;
        world.expect_received(&kept, kept.due).await;
        world.expect_received(&lost, Amount::ZERO).await;
        world.mine(DEEP).await;
        assert_eq!(world.earned(COIN).await, kept.due);
    }

    async fn a_fork_below_the_final_mark_stops_the_chain(world: Onchain) {
        let placed = world.place().await;
        world.pay(&[(&placed, placed.due)]).await;
        world.mine(DEEP).await;
        world.expect(&placed, "completed", "paid").await;
        let earned = world.earned(COIN).await;
        world.reorg(DEEP).await;
        assert_eq!(world.earned(COIN).await, earned, "final money stays until a person has looked");
        let answer = world.post("/api/orders", &serde_json::json!({
            "productId": world.product.id, "quantity": 1, "contactEmail": "buyer@example.com",
            "paymentMethod": "crypto", "coin": "btc",
        })).await;
        assert_ne!(answer.status, 201, "nobody is given an address that nobody watches: {}", answer.text);
    }
}
