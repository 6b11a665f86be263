//! Stories of invoice expiry, by clock and by chain, on model chains. An invoice expires only after every block that
//! could contain a payment in time was read.

use money::invoices;
use money::ledger::Suspense;
use simnet::NodeFault;

use crate::world::World;

/// The payment window of half an hour and its grace, in seconds.
const OVER: i64 = 30 * 60 + 60;

both! {
    async fn an_invoice_expires_only_after_a_block_younger_than_its_window(world: World) {
        let order = world.place_order("eth").await;
        world.advance_seconds(OVER - 30);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        // The clock is past the window. The tip is recent, but older than the window's end.
        world.advance_seconds(40);
        world.run_until_idle().await;
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        // The next block contains a payment that was in time, although the clock has passed the window.
        world.pay_order(&order, order.due);
        world.simnet.mine(&world.chain_of(order.coin), 1, world.clock.now().unix_seconds() - 15);
        world.run_until_idle().await;
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_young_tip_seen_twice_expires_invoices_on_slow_chains(world: World) {
        let order = world.place_order("btc").await;
        world.advance_seconds(OVER - 5 * 60);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(5 * 60 + 1);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        world.run_until_idle().await;
        world.assert_status(&order, "expired", "expired").await;
    }

    async fn an_old_tip_expires_no_invoice_on_slow_chains(world: World) {
        let order = world.place_order("btc").await;
        world.advance_seconds(OVER - 21 * 60);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(21 * 60 + 1);
        for _ in 0..3 {
            world.run_until_idle().await;
            world.assert_status(&order, "pending", "pending").await;
        }
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.assert_status(&order, "expired", "expired").await;
    }

    async fn a_block_from_the_future_does_not_expire_invoices(world: World) {
        let order = world.place_order("btc").await;
        world.simnet.mine(&world.chain_of(order.coin), 1, world.clock.now().unix_seconds() + 2 * 3_600);
        world.run_until_idle().await;
        world.advance_seconds(OVER + 1);
        for _ in 0..3 {
            world.run_until_idle().await;
            world.assert_status(&order, "pending", "pending").await;
        }
    }

    async fn invoices_expire_although_the_newest_blocks_are_withheld(world: World) {
        let order = world.place_order("eth").await;
        world.advance_seconds(OVER + 10);
        world.simnet.set_fault(&world.chain_of(order.coin), NodeFault::WithheldBlocks(3), true);
        world.mine(order.coin, 8);
        world.run_until_idle().await;
        world.assert_status(&order, "expired", "expired").await;
    }

    async fn a_late_direct_payment_does_not_hide_an_internal_one_in_time(world: World) {
        let order = world.place_order("eth").await;
        let chain = world.chain_of(order.coin);
        world.simnet.set_internal_transfers_hidden(&chain, true);
        world.simnet.set_fault(&chain, NodeFault::NoBalances, true);
        world.advance_seconds(60);
        world.simnet.pay_from_contract(&chain, &order.address, order.due).unwrap();
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(OVER);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        // The same amount arrives again, directly and too late, before any balance could be read.
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.simnet.set_fault(&chain, NodeFault::NoBalances, false);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.suspense(order.coin, Suspense::Late).await, order.due, "only the second payment is late");
    }

    async fn the_mempool_is_read_only_while_an_invoice_is_open(world: World) {
        let source = world.simnet.source(&world.chain_of("btc")).unwrap();
        let before = source.requests();
        world.run_until_idle().await;
        assert_eq!(source.requests() - before, 1, "only where the tip is");
        let order = world.place_order("btc").await;
        world.pay_order(&order, order.due);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        let before = source.requests();
        world.run_until_idle().await;
        assert_eq!(source.requests() - before, 1, "it is over");
    }

    async fn open_invoices_of_a_disabled_chain_are_counted(world: World) {
        let (bitcoin, ethereum) = (world.chain_of("btc"), world.chain_of("eth"));
        let orders = [world.place_order("btc").await, world.place_order("btc").await, world.place_order("eth").await];
        world.config.chains.get_mut(&bitcoin).unwrap().enabled = false;
        world.crash_and_boot().await;
        let followed = vec![ethereum];
        let unfollowed_invoices = world.db.read("count_unfollowed", move |tx| {
            Box::pin(async move { invoices::count_waiting_on_unfollowed_chains(tx, &followed).await })
        });
        assert_eq!(unfollowed_invoices.await.unwrap(), [("bitcoin".to_owned(), 2)].into());
        for order in &orders {
            world.assert_status(order, "pending", "pending").await;
        }
    }
}
