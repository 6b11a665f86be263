//! Stories of endpoints that show different blocks, on model chains: money is neither believed nor taken back on the word of
//! one.

use chain::Amount;
use money::ledger::Account;
use simnet::{Fault, Keep};

use crate::placed_order::PlacedOrder;
use crate::world::World;

/// Pays and mines until it counts, on a chain where it is not final by then.
async fn settle(world: &World) -> (PlacedOrder, u64) {
    let order = world.place_order("erc20_usdt").await;
    world.pay_order(&order, order.due);
    world.mine(order.coin, 1);
    world.run_until_idle().await;
    let needed = world.required_confirmations(&order).await;
    world.mine(order.coin, needed - 1);
    world.run_until_idle().await;
    (order, needed)
}

fn differ(world: &World, on: bool) {
    world.simnet.set_fault(&world.chain_of("erc20_usdt"), Fault::Disputed, on);
}

fn reorganise(world: &World, depth: u64) {
    let now = world.clock.now().unix_seconds();
    world.simnet.reorg(&world.chain_of("erc20_usdt"), depth, Keep::Drop, now);
}

async fn pending(world: &World) -> Amount {
    let account = Account::MerchantPending(world.shop.merchant);
    world.account(world.shop.mode, account, world.asset("erc20_usdt").id).await.available()
}

both! {
    async fn a_block_that_a_second_endpoint_contradicts_is_not_confirmed(world: World) {
        differ(&world, true);
        let (order, _) = settle(&world).await;
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        assert!(world.has_open_review("chain.disputed").await);
        // After a restart too.
        world.crash_and_boot().await;
        world.assert_status(&order, "pending", "confirming").await;
        differ(&world, false);
        // It is asked again after a second.
        world.advance_seconds(1);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert!(!world.has_open_review("chain.disputed").await, "they agree again");
    }

    async fn one_endpoint_cannot_reverse_confirmed_money(world: World) {
        let (order, depth) = settle(&world).await;
        world.assert_status(&order, "completed", "paid").await;
        differ(&world, true);
        reorganise(&world, depth);
        world.run_until_idle().await;
        assert_eq!(pending(&world).await, order.due);
        assert!(world.has_open_review("chain.disputed").await);
        differ(&world, false);
        world.run_until_idle().await;
        assert_eq!(pending(&world).await, Amount::ZERO, "no credit outlives its block");
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert_eq!(pending(&world).await, Amount::ZERO);
    }

    async fn one_endpoint_cannot_halt_a_chain(world: World) {
        let (order, _) = settle(&world).await;
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        differ(&world, true);
        reorganise(&world, 120);
        world.run_until_idle().await;
        assert!(world.has_open_review("chain.disputed").await && !world.has_open_review("chain.halted").await);
        differ(&world, false);
        world.run_until_idle().await;
        assert!(world.has_open_review("chain.halted").await);
    }
}
