//! Stories of endpoints that show different blocks, on model chains: money is neither believed nor taken back on the word of
//! one.

use chain::Amount;
use money::ledger::Account;
use simnet::{NodeFault, ReplacedTxs};

use crate::placed::Placed;
use crate::world::World;

/// Pays and mines until it counts, on a chain where it is not final by then.
async fn settle(world: &World) -> (Placed, u64) {
    let placed = world.place("erc20_usdt").await;
    world.pay(placed.coin, &placed.address, &placed.due.to_decimal(world.asset(placed.coin).decimals));
    world.mine(placed.coin, 1);
    world.run_until_idle().await;
    let needed = world.status(&placed.id).await.body["payment"]["required_confirmations"].as_u64().unwrap();
    world.mine(placed.coin, needed - 1);
    world.run_until_idle().await;
    (placed, needed)
}

fn differ(world: &World, on: bool) {
    world.simnet.set_fault(&world.chain_of("erc20_usdt"), NodeFault::ConflictingEndpoint, on);
}

fn reorganise(world: &World, depth: u64) {
    let now = world.clock.now().unix_seconds();
    world.simnet.reorg(&world.chain_of("erc20_usdt"), depth, ReplacedTxs::Drop, now);
}

async fn pending(world: &World) -> Amount {
    let account = Account::MerchantPending(world.shop.merchant);
    world.account(world.shop.mode, account, world.asset("erc20_usdt").id).await.available()
}

both! {
    async fn what_another_endpoint_does_not_show_is_seen_and_not_confirmed(world: World) {
        differ(&world, true);
        let (placed, _) = settle(&world).await;
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        world.expect(&placed, "pending", "confirming").await;
        assert!(world.is_reviewed("chain.disputed").await);
        // After a restart too.
        world.crash_and_boot().await;
        world.expect(&placed, "pending", "confirming").await;
        differ(&world, false);
        // It is asked again after a second.
        world.advance_seconds(1);
        world.run_until_idle().await;
        world.expect(&placed, "completed", "paid").await;
        assert!(!world.is_reviewed("chain.disputed").await, "they agree again");
    }

    async fn money_that_counts_is_not_taken_back_on_the_word_of_one_endpoint(world: World) {
        let (placed, depth) = settle(&world).await;
        world.expect(&placed, "completed", "paid").await;
        differ(&world, true);
        reorganise(&world, depth);
        world.run_until_idle().await;
        assert_eq!(pending(&world).await, placed.due);
        assert!(world.is_reviewed("chain.disputed").await);
        differ(&world, false);
        world.run_until_idle().await;
        assert_eq!(pending(&world).await, Amount::ZERO, "no credit outlives its block");
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        assert_eq!(pending(&world).await, Amount::ZERO);
    }

    async fn no_chain_is_halted_on_the_word_of_one_endpoint(world: World) {
        let (placed, _) = settle(&world).await;
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        differ(&world, true);
        reorganise(&world, 120);
        world.run_until_idle().await;
        assert!(world.is_reviewed("chain.disputed").await && !world.is_reviewed("chain.halted").await);
        differ(&world, false);
        world.run_until_idle().await;
        assert!(world.is_reviewed("chain.halted").await);
    }
}
