//! Stories of windows that end: by the clock and by the chain, on model chains. No block that could still bring money in time
//! is unread then.

use money::invoices;
use simnet::NodeFault;

use crate::receiving::{expect, place};
use crate::world::World;

/// A window of half an hour and its grace, in seconds.
const OVER: i64 = 30 * 60 + 60;

both! {
    async fn a_window_waits_for_a_block_that_is_younger_than_its_end(world: World) {
        let placed = place(&world, "eth").await;
        world.advance_seconds(OVER - 30);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        // The clock is past the window; the tip is young, but older than the window's end.
        world.advance_seconds(40);
        world.run_until_idle().await;
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "pending").await;
        // What stands in the next block was paid in time, for all that the clock says by now.
        world.pay(placed.coin, &placed.address, &placed.due);
        world.simnet.mine(&world.chain_of(placed.coin), 1, world.clock.now().unix_seconds() - 15);
        world.run_until_idle().await;
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn where_blocks_are_rare_a_young_tip_ends_a_window_when_it_is_seen_twice(world: World) {
        let placed = place(&world, "btc").await;
        world.advance_seconds(OVER - 5 * 60);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(5 * 60 + 1);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "pending").await;
        world.run_until_idle().await;
        expect(&world, &placed, "expired", "expired").await;
    }

    async fn where_blocks_are_rare_an_old_tip_ends_nothing(world: World) {
        let placed = place(&world, "btc").await;
        world.advance_seconds(OVER - 21 * 60);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(21 * 60 + 1);
        for _ in 0..3 {
            world.run_until_idle().await;
            expect(&world, &placed, "pending", "pending").await;
        }
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        expect(&world, &placed, "expired", "expired").await;
    }

    async fn a_block_from_the_future_says_nothing_of_what_comes_until_then(world: World) {
        let placed = place(&world, "btc").await;
        world.simnet.mine(&world.chain_of(placed.coin), 1, world.clock.now().unix_seconds() + 2 * 3_600);
        world.run_until_idle().await;
        world.advance_seconds(OVER + 1);
        for _ in 0..3 {
            world.run_until_idle().await;
            expect(&world, &placed, "pending", "pending").await;
        }
    }

    async fn a_chain_that_is_never_read_to_its_tip_ends_windows_too(world: World) {
        let placed = place(&world, "eth").await;
        world.advance_seconds(OVER + 10);
        world.simnet.set_fault(&world.chain_of(placed.coin), NodeFault::WithheldBlocks(3), true);
        world.mine(placed.coin, 8);
        world.run_until_idle().await;
        expect(&world, &placed, "expired", "expired").await;
    }

    async fn while_nobody_waits_nobody_is_asked_what_is_on_its_way(world: World) {
        let source = world.simnet.source(&world.chain_of("btc")).unwrap();
        let before = source.requests();
        world.run_until_idle().await;
        assert_eq!(source.requests() - before, 1, "only where the tip is");
        let placed = place(&world, "btc").await;
        world.pay(placed.coin, &placed.address, &placed.due);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "confirming").await;
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        let before = source.requests();
        world.run_until_idle().await;
        assert_eq!(source.requests() - before, 1, "it is over");
    }

    async fn invoices_of_a_chain_that_is_disabled_are_counted(world: World) {
        let (bitcoin, ethereum) = (world.chain_of("btc"), world.chain_of("eth"));
        let orders = [place(&world, "btc").await, place(&world, "btc").await, place(&world, "eth").await];
        world.config.chains.get_mut(&bitcoin).unwrap().enabled = false;
        world.crash_and_boot().await;
        let followed = vec![ethereum];
        let orphaned_invoices = world.db.read("count_orphaned", move |tx| {
            Box::pin(async move { invoices::count_orphaned(tx, &followed).await })
        });
        assert_eq!(orphaned_invoices.await.unwrap(), [("bitcoin".to_owned(), 2)].into());
        for placed in &orders {
            expect(&world, placed, "pending", "pending").await;
        }
    }
}
