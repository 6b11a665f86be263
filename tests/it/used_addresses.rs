//! Stories of addresses that were given out before: a lost or restored database, or a second installation with the same
//! account key, issues them again. Old money never pays a new order, and is never ignored.

use money::ledger::Suspense;
use records::audit_log::Actor;

use crate::placed_order::PlacedOrder;
use crate::world::World;

/// Places an order in ETH, pays it and asserts that it completes.
async fn place_and_pay_order(world: &World) -> PlacedOrder {
    let order = world.place_order("eth").await;
    world.pay_order(&order, order.due);
    world.mine_deep("eth");
    world.run_until_idle().await;
    world.assert_status(&order, "completed", "paid").await;
    order
}

/// Mines a few blocks beyond the end of every payment window and runs the workers.
async fn wait_until_windows_end(world: &World) {
    world.advance_seconds(45 * 60);
    world.mine("eth", 20);
    world.run_until_idle().await;
    world.advance_seconds(60);
    world.mine("eth", 20);
    world.run_until_idle().await;
}

both! {
    async fn a2_old_money_pays_no_new_order_after_the_data_folder_was_lost(world: World) {
        world.simnet.set_internal_transfers_hidden(&world.chain_of("eth"), true);
        let first = place_and_pay_order(&world).await;
        world.lose_database_and_boot().await;
        let second = world.place_order("eth").await;
        assert_eq!(second.address, first.address, "an empty database begins with index 0");
        world.mine("eth", 5);
        world.run_until_idle().await;
        world.assert_status(&second, "pending", "pending").await;
        assert!(world.has_open_review("address.used_before").await, "the operator learns of the old money");
        wait_until_windows_end(&world).await;
        world.assert_status(&second, "expired", "expired").await;
        world.assert_received(&second, chain::Amount::ZERO).await;
    }

    async fn a2_new_money_on_an_address_with_old_money_pays_the_order(world: World) {
        world.simnet.set_internal_transfers_hidden(&world.chain_of("eth"), true);
        let first = place_and_pay_order(&world).await;
        world.lose_database_and_boot().await;
        let second = world.place_order("eth").await;
        assert_eq!(second.address, first.address);
        world.run_until_idle().await;
        world.simnet.pay_from_contract(&world.chain_of("eth"), &second.address, second.due).unwrap();
        world.mine("eth", 20);
        world.run_until_idle().await;
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.assert_status(&second, "completed", "paid").await;
        assert_eq!(world.merchant_available("eth").await, second.due, "the old money is not counted again");
    }

    async fn a2_a_rescan_books_money_from_before_the_lease_as_unallocated(world: World) {
        let first = place_and_pay_order(&world).await;
        world.lose_database_and_boot().await;
        let second = world.place_order("eth").await;
        assert_eq!(second.address, first.address);
        world.run_until_idle().await;
        let chain = world.chain_of("eth");
        let head = world.simnet.tip(&chain).head.height;
        let rescanner = world.daemon.as_ref().unwrap().rescans.get(&chain).unwrap().clone();
        let actor = Actor::CommandLine { uid: 0 };
        assert_eq!(rescanner.rescan_next_piece(&actor, 1, head).await.unwrap().booked, 1);
        world.run_until_idle().await;
        world.assert_status(&second, "pending", "pending").await;
        assert_eq!(world.suspense("eth", Suspense::Foreign).await, first.due);
        assert!(world.has_open_review("deposit.unallocated").await);
        world.pay_order(&second, second.due);
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.assert_status(&second, "completed", "paid").await;
    }
}
