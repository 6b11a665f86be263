//! Stories of endpoints with conflicting blocks, on model chains: a single endpoint can neither confirm nor reverse
//! money.

use chain::Amount;
use money::ledger::Account;
use simnet::{NodeFault, ReplacedTxs};

use crate::placed_order::PlacedOrder;
use crate::world::World;

/// Pays and mines until the payment is confirmed but not final; returns the number of blocks mined.
async fn pay_and_confirm(world: &World) -> (PlacedOrder, u64) {
    let order = world.place_order("erc20_usdt").await;
    world.pay_order(&order, order.due);
    world.mine(order.coin, 1);
    world.run_until_idle().await;
    let needed = world.required_confirmations(&order).await;
    world.mine(order.coin, needed - 1);
    world.run_until_idle().await;
    (order, needed)
}

fn set_conflicting(world: &World, on: bool) {
    world.simnet.set_fault(&world.chain_of("erc20_usdt"), NodeFault::ConflictingEndpoint, on);
}

fn reorg_dropping(world: &World, depth: u64) {
    let now = world.clock.now().unix_seconds();
    world.simnet.reorg(&world.chain_of("erc20_usdt"), depth, ReplacedTxs::Drop, now);
}

async fn pending(world: &World) -> Amount {
    let account = Account::MerchantPending(world.shop.merchant);
    world.account(world.shop.mode, account, world.asset("erc20_usdt").id).await.available_amount()
}

both! {
    async fn a_block_that_a_second_endpoint_contradicts_is_not_confirmed(world: World) {
        set_conflicting(&world, true);
        let (order, _) = pay_and_confirm(&world).await;
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        assert!(world.has_open_review("deposit.contradicted").await);
        // The payment stays unconfirmed after a restart too.
        world.crash_and_boot().await;
        world.assert_status(&order, "pending", "confirming").await;
        set_conflicting(&world, false);
        // The second endpoint is asked again after one second.
        world.advance_seconds(1);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert!(!world.has_open_review("deposit.contradicted").await, "they agree again");
    }

    async fn one_endpoint_cannot_reverse_confirmed_money(world: World) {
        let (order, depth) = pay_and_confirm(&world).await;
        world.assert_status(&order, "completed", "paid").await;
        set_conflicting(&world, true);
        reorg_dropping(&world, depth);
        world.run_until_idle().await;
        assert_eq!(pending(&world).await, order.due);
        assert!(world.has_open_review("chain.disputed").await);
        set_conflicting(&world, false);
        world.run_until_idle().await;
        assert_eq!(pending(&world).await, Amount::ZERO, "no credit outlives its block");
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert_eq!(pending(&world).await, Amount::ZERO);
    }

    async fn one_endpoint_cannot_halt_a_chain(world: World) {
        let (order, _) = pay_and_confirm(&world).await;
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        set_conflicting(&world, true);
        reorg_dropping(&world, 120);
        world.run_until_idle().await;
        assert!(world.has_open_review("chain.disputed").await && !world.has_open_review("chain.halted").await);
        set_conflicting(&world, false);
        world.run_until_idle().await;
        assert!(world.has_open_review("chain.halted").await);
    }
}
