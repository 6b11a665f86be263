//! Stories of addresses that were given out before: a lost or restored database, or a second installation with the same
//! account key, issues them again. Old money never pays a new order, and is never ignored.

use std::collections::BTreeSet;

use chain::Amount;
use db::Backend;
use money::ledger::{Account, Suspense};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
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

/// Returns the operator's unclaimed money in a coin.
async fn unclaimed(world: &World, coin: &str) -> Amount {
    let asset = world.asset(coin).id;
    world.account(world.shop.mode, Account::OperatorUnclaimed, asset).await.available_amount()
}

/// The number of seeds of the restore drill on each database.
const SEEDS: u64 = 50;
/// The coins of the restore drill.
const COINS: [&str; 4] = ["eth", "erc20_usdt", "btc", "trc20_usdt"];

/// One restore drill: orders, a backup, more orders, a restore, and orders again.
struct Drill {
    world: World,
    rng: StdRng,
    /// All addresses that buyers have got, before and after the restore.
    given: BTreeSet<String>,
}

impl Drill {
    async fn run(backend: Backend, seed: u64) {
        let world = World::start(backend).await;
        let mut drill = Drill { world, rng: StdRng::seed_from_u64(seed), given: BTreeSet::new() };
        let before = drill.place_orders(0..=3).await;
        drill.pay_some(&before);
        drill.settle().await;
        let backup = drill.world.back_up().await;
        let lost = drill.place_orders(1..=5).await;
        let early = drill.pay_some(&lost);
        drill.settle().await;
        drill.world.restore_database(backup).await;
        drill.boot_after_restore(seed).await;
        let after = drill.place_orders(1..=4).await;
        drill.settle().await;
        for order in &after {
            drill.world.assert_received(order, Amount::ZERO).await;
        }
        let late = drill.pay_some(&lost);
        for order in &after {
            drill.world.pay_order(order, order.due);
        }
        drill.settle().await;
        for order in &after {
            drill.world.assert_status(order, "completed", "paid").await;
        }
        for coin in COINS {
            let paid = |payments: &[(&'static str, Amount)]| {
                Amount::checked_sum(payments.iter().filter(|(paid, _)| *paid == coin).map(|(_, amount)| *amount))
                    .unwrap()
            };
            let expected = paid(&early).checked_add(paid(&late)).unwrap();
            assert_eq!(unclaimed(&drill.world, coin).await, expected, "seed {seed}: money of lost orders in {coin}");
        }
        assert_eq!(
            drill.world.has_open_review("deposit.unclaimed").await,
            !early.is_empty() || !late.is_empty(),
            "seed {seed}"
        );
    }

    /// Places a random number of orders, sometimes with a restart between two of them. No address was given out before.
    async fn place_orders(&mut self, count: std::ops::RangeInclusive<usize>) -> Vec<PlacedOrder> {
        let mut placed = Vec::new();
        for _ in 0..self.rng.random_range(count) {
            if self.rng.random_bool(0.3) {
                self.world.crash_and_boot().await;
            }
            let coin = *COINS.choose(&mut self.rng).unwrap();
            let order = self.world.place_order_of(10, coin).await;
            assert!(self.given.insert(order.address.clone()), "{} was given out twice", order.address);
            placed.push(order);
        }
        placed
    }

    /// Pays some of the orders in full, and returns the payments.
    fn pay_some(&mut self, orders: &[PlacedOrder]) -> Vec<(&'static str, Amount)> {
        let mut paid = Vec::new();
        for order in orders {
            if self.rng.random_bool(0.5) {
                self.world.pay_order(order, order.due);
                paid.push((order.coin, order.due));
            }
        }
        paid
    }

    /// Mines until every payment is final.
    async fn settle(&self) {
        for coin in ["eth", "btc", "trc20_usdt"] {
            self.world.mine(coin, 100);
        }
        self.world.run_until_idle().await;
    }

    /// Starts the daemon on the restored database. When the start is refused, and sometimes when it is not, the used
    /// addresses are skipped first.
    async fn boot_after_restore(&mut self, seed: u64) {
        if self.rng.random_bool(0.3) {
            self.world.skip_used_addresses(None).await.unwrap();
        }
        if let Err(refusal) = self.world.try_boot(false).await {
            assert!(refusal.to_string().contains("settled restore"), "seed {seed}: {refusal:#}");
            self.world.skip_used_addresses(None).await.unwrap();
            self.world.boot().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_no_address_is_issued_twice_and_no_old_money_pays_after_a_restore_on_sqlite() {
    for seed in 1..=SEEDS {
        Drill::run(Backend::Sqlite, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_no_address_is_issued_twice_and_no_old_money_pays_after_a_restore_on_postgres() {
    for seed in 1..=SEEDS {
        Drill::run(Backend::Postgres, seed).await;
    }
}

both! {
    async fn a2_a_database_older_than_the_mark_is_refused_until_addresses_are_skipped(world: World) {
        let kept = world.place_order("eth").await;
        let backup = world.back_up().await;
        world.crash_and_boot().await;
        let lost = world.place_order("eth").await;
        world.restore_database(backup).await;
        let refusal = world.try_boot(false).await.unwrap_err().to_string();
        assert!(refusal.contains("is older than the address mark") && refusal.contains("settled restore"), "{refusal}");
        assert!(world.try_boot(true).await.is_err(), "joining does not help a database that is behind");

        let restored = world.skip_used_addresses(None).await.unwrap();
        let evm = restored.accounts.iter().find(|skipped| skipped.account.contains("(evm, ")).unwrap();
        assert_eq!((restored.epoch, evm.first, evm.next), (2, 64, 1_001), "1,000 indices above the one that was issued");
        world.boot().await;
        let next = world.place_order("eth").await;
        assert!(next.address != kept.address && next.address != lost.address);
        world.pay_order(&lost, lost.due);
        world.pay_order(&kept, kept.due);
        world.mine_deep("eth");
        world.run_until_idle().await;
        assert_eq!(unclaimed(&world, "eth").await, lost.due, "the late payment is in the ledger");
        assert!(world.has_open_review("deposit.unclaimed").await);
        world.assert_status(&kept, "completed", "paid").await;
        world.assert_status(&next, "pending", "pending").await;
        let logged = world.db.read("audit_log", |tx| Box::pin(tx.rows("select subject from audit_log where action = 'database.restore'", Vec::new()))).await;
        assert_eq!(logged.unwrap()[0].get::<String>("subject").unwrap(), "epoch 2");
    }

    async fn a2_a_missing_mark_asks_for_join_or_for_a_number_to_skip(world: World) {
        world.place_order("eth").await;
        drop(world.daemon.take());
        world.lose_address_mark();
        let refusal = world.try_boot(false).await.unwrap_err().to_string();
        assert!(refusal.contains("--join") && refusal.contains("--skip"), "{refusal}");
        let refusal = world.skip_used_addresses(None).await.unwrap_err().to_string();
        assert!(refusal.contains("--skip N"), "{refusal}");
        world.try_boot(true).await.unwrap();
        drop(world.daemon.take());
        world.boot().await;
        drop(world.daemon.take());
        world.lose_address_mark();
        let restored = world.skip_used_addresses(Some(5_000)).await.unwrap();
        assert!(restored.accounts.iter().all(|skipped| skipped.next >= 5_000), "{restored:?}");
        world.boot().await;
    }

    async fn a2_a_daemon_from_before_a_restore_leases_no_addresses(world: World) {
        world.place_order("eth").await;
        world.skip_used_addresses(None).await.unwrap();
        let body = serde_json::json!({
            "productId": world.product.id, "quantity": 1, "contactEmail": "buyer@example.com", "paymentMethod": "crypto",
            "coin": "btc",
        });
        let answer = world.post("/api/orders", &body).await;
        assert!(answer.status >= 500, "{}", answer.text);
        world.crash_and_boot().await;
        world.place_order("btc").await;
    }

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
        world.assert_received(&second, Amount::ZERO).await;
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
