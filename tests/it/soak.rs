//! Random actions against the whole daemon: buyers, miners, reorgs, faulty nodes and crashes in any order. When all
//! is idle again, the ledger equals the balances of the deposit addresses, to the base unit.
//!
//! `cargo test` plays a few seeds, `cargo xtask soak` as many as requested. A failing seed is reproducible.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chain::{Amount, AssetId, ChainId};
use db::Backend;
use money::ledger::Account;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use simnet::{NodeFault, ReplacedTxs};

use crate::commands::program::{Running, run};
use crate::placed_order::PlacedOrder;
use crate::world::World;

const COINS: [&str; 7] = ["trc20_usdt", "erc20_usdt", "bep20_usdt", "btc", "eth", "trx", "bnb"];
/// The default number of seeds and of actions per seed.
const SEEDS: u64 = 2;
const MOVES: u64 = 120;
/// The default number of kills.
const KILLS: u64 = 3;
/// The deepest reorg: a deeper one would reach final blocks and correctly halt the chain.
const DEPTH_MAX: u64 = 4;

struct Play {
    world: World,
    rng: StdRng,
    orders: Vec<PlacedOrder>,
}

impl Play {
    async fn start(backend: Backend, seed: u64) -> Play {
        let world = World::start(backend).await;
        world.import(&world.product, 400).await;
        Play { world, rng: StdRng::seed_from_u64(seed), orders: Vec::new() }
    }

    async fn act_at_random(&mut self) {
        match self.rng.random_range(0..100) {
            0..15 => self.place_order().await,
            15..40 => self.pay(),
            40..45 => self.pay_two_at_once(),
            45..70 => self.mine(),
            70..76 => self.reorg_random_chain(),
            76..82 => self.toggle_fault(),
            82..86 => self.drop_random_mempool(),
            86..94 => self.wait(),
            _ => self.crash().await,
        }
        // The workers do not run after every action, so that several actions happen between two runs.
        if self.rng.random_bool(0.6) {
            self.world.run_until_idle().await;
        }
    }

    async fn place_order(&mut self) {
        let coin = *COINS.choose(&mut self.rng).expect("there are coins");
        let body = json!({ "productId": self.world.product.id, "quantity": 1, "contactEmail": "buyer@example.com",
            "paymentMethod": "crypto", "coin": coin });
        let answer = self.world.post("/api/orders", &body).await;
        if answer.status != 201 {
            // A chain that is not followed at the moment offers no payment method.
            assert_eq!(answer.text_at("error"), "payment_method_unavailable", "{}", answer.text);
            return;
        }
        let order = PlacedOrder::parse(&answer.body, coin, &self.world.asset(coin));
        self.note(format!("order {} of {} {coin}", self.orders.len(), self.world.decimal(coin, order.due)));
        self.orders.push(order);
    }

    /// Pays the amount due, a part of it, or too much, to any order in any state.
    fn pay(&mut self) {
        if self.orders.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.orders.len());
        let (numerator, denominator) =
            *[(1, 1), (1, 1), (1, 2), (1, 3), (3, 2)].choose(&mut self.rng).expect("not empty");
        let order = &self.orders[index];
        let asset = self.world.asset(order.coin);
        let amount = order.due.mul_ratio_rounded_down(numerator, denominator).unwrap();
        self.world.simnet.pay(&asset.chain, &asset.id, &order.address, amount).unwrap();
        self.note(format!("{numerator}/{denominator} of order {index}"));
    }

    fn pay_two_at_once(&mut self) {
        let Some(first) = self.orders.last() else { return };
        let Some(second) = self.orders.iter().rev().skip(1).find(|other| other.coin == first.coin) else { return };
        let asset = self.world.asset(first.coin);
        let payments = [first, second].map(|order| (asset.id.clone(), order.address.clone(), order.due));
        self.world.simnet.pay_many(&asset.chain, payments.to_vec()).unwrap();
        let note = format!("orders {} and {} in one transaction", first.order_no, second.order_no);
        self.note(note);
    }

    fn mine(&mut self) {
        let (chain, blocks) = (self.any_chain(), self.rng.random_range(1..=8));
        self.world.simnet.mine(&chain, blocks, self.world.clock.now().unix_seconds());
        self.note(format!("{blocks} blocks on {chain}"));
    }

    fn reorg_random_chain(&mut self) {
        let (chain, depth) = (self.any_chain(), self.rng.random_range(1..=DEPTH_MAX));
        let keep = *[ReplacedTxs::Remine, ReplacedTxs::Remine, ReplacedTxs::Drop, ReplacedTxs::DoubleSpend]
            .choose(&mut self.rng)
            .expect("not empty");
        self.world.simnet.reorg(&chain, depth, keep, self.world.clock.now().unix_seconds());
        self.note(format!("{depth} blocks of {chain} replaced, {keep:?}"));
    }

    /// Makes a node faulty, or repairs it.
    fn toggle_fault(&mut self) {
        let (chain, on) = (self.any_chain(), self.rng.random_bool(0.4));
        let faults = [
            NodeFault::Unavailable,
            NodeFault::Stale(3),
            NodeFault::MissingBlocks,
            NodeFault::WrongParent,
            NodeFault::FinalityRegresses,
        ];
        if on {
            let fault = *faults.choose(&mut self.rng).expect("not empty");
            self.world.simnet.set_fault(&chain, fault, true);
            self.note(format!("{chain} becomes {fault:?}"));
        } else {
            faults.iter().for_each(|fault| self.world.simnet.set_fault(&chain, *fault, false));
            self.world.simnet.fail_next_requests(&chain, self.rng.random_range(0..4));
            self.note(format!("{chain} recovers"));
        }
    }

    fn drop_random_mempool(&mut self) {
        let chain = self.any_chain();
        self.world.simnet.drop_mempool(&chain);
        self.note(format!("the mempool of {chain} is lost"));
    }

    fn wait(&mut self) {
        let seconds = self.rng.random_range(1..600);
        self.world.advance_seconds(seconds);
        self.note(format!("{seconds} s pass"));
    }

    async fn crash(&mut self) {
        self.note("crash".to_owned());
        self.world.crash_and_boot().await;
    }

    fn any_chain(&mut self) -> ChainId {
        self.world.simnet.list_chains().choose(&mut self.rng).expect("there are chains").clone()
    }

    /// Stores a note about an action. The notes are printed only when the test fails.
    fn note(&self, what: String) {
        eprintln!("  {what}");
    }

    /// Repairs the nodes, lets the windows pass, and mines until everything is final.
    async fn settle_everything(&mut self) {
        let chains = self.world.simnet.list_chains();
        for chain in &chains {
            for fault in [
                NodeFault::Unavailable,
                NodeFault::Stale(3),
                NodeFault::MissingBlocks,
                NodeFault::WrongParent,
                NodeFault::FinalityRegresses,
            ] {
                self.world.simnet.set_fault(chain, fault, false);
            }
            self.world.simnet.fail_next_requests(chain, 0);
        }
        for _ in 0..3 {
            for chain in &chains {
                self.world.simnet.mine(chain, 300, self.world.clock.now().unix_seconds());
            }
            self.world.run_until_idle().await;
            self.world.advance_seconds(3_600);
        }
    }

    async fn assert_ledger_matches_chains(&self) {
        let mut truth: BTreeMap<(ChainId, AssetId), Amount> = BTreeMap::new();
        let mut goods = BTreeSet::new();
        for (number, order) in self.orders.iter().enumerate() {
            let asset = self.world.asset(order.coin);
            let there = self.world.simnet.balance(&asset.chain, &asset.id, &order.address);
            let sum = truth.entry((asset.chain.clone(), asset.id.clone())).or_default();
            *sum = sum.checked_add(there).unwrap();
            let status = self.world.status(&order.id).await;
            match status.text_at("payment_status").as_str() {
                "paid" => assert!(there >= order.due, "order {number} is paid with {there} of {}", order.due),
                "expired" | "pending" | "underpaid" => {}
                other => panic!("order {number} is {other} when all is final: {}", status.text),
            }
            if status.text_at("status") == "completed" {
                let query = format!("/api/orders/query?orderNo={}&email=buyer@example.com", order.order_no);
                let found = self.world.get_from(&format!("10.0.{}.{}", number / 250, number % 250), &query).await;
                for line in found.body["order"]["credentials"].as_array().into_iter().flatten() {
                    assert!(goods.insert(line.to_string()), "an item was delivered twice");
                }
            }
        }
        for ((chain, asset), there) in truth {
            let account = self.world.account(self.world.shop.mode, Account::OnChain(chain), asset.clone()).await;
            let booked = account.debits_posted.checked_sub(account.credits_posted).unwrap();
            assert_eq!(booked, there, "{asset}: the ledger and the chain differ");
            assert_eq!(account.debits_pending, Amount::ZERO, "{asset}: a hold was left");
        }
    }
}

async fn play(backend: Backend) {
    let (first, seeds) = (number("SETTLED_SOAK_FROM", 1), number("SETTLED_SOAK_SEEDS", SEEDS));
    for seed in first..first + seeds {
        eprintln!("seed {seed}");
        let mut play = Play::start(backend, seed).await;
        for _ in 0..number("SETTLED_SOAK_MOVES", MOVES) {
            play.act_at_random().await;
        }
        play.settle_everything().await;
        play.assert_ledger_matches_chains().await;
    }
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
        Err(_) => default,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_play_loses_nothing_on_sqlite() {
    play(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_play_loses_nothing_on_postgres() {
    play(Backend::Postgres).await;
}

/// The real process is killed at random moments while a buyer pays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_moment_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap().to_owned();
    let mut orders = Vec::new();
    for kill in 0..number("SETTLED_SOAK_KILLS", KILLS) {
        let demo = Running::demo(folder.path(), &[]).await;
        let order = demo.order(["trc20_usdt", "btc", "eth"].choose(&mut rand::rng()).unwrap()).await;
        let pay = ["dev", "pay", &order, "--data", &data];
        let delay = rand::rng().random_range(0..2_500);
        // The payment may or may not have been booked before the kill; the next start has to find out.
        let _whatever = tokio::join!(run(&pay), async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            demo.kill().await;
            eprintln!("kill {kill} after {delay} ms");
        });
        orders.push(order);
    }
    let demo = Running::demo(folder.path(), &[]).await;
    for order in &orders {
        // A payment that is already on the chain is found, so it is not sent again.
        let completed = loop {
            let query = format!("/api/orders/query?orderNo={order}&email=buyer@example.com");
            let found = demo.get(&query).await;
            match (found["order"]["status"].as_str(), found["order"]["payment_status"].as_str()) {
                (Some("completed"), _) => break true,
                (Some("pending"), Some("pending")) => break false,
                _ => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        };
        if !completed {
            let said = run(&["dev", "pay", order, "--data", &data]).await.done();
            assert!(said.contains("order completed"), "{said}");
        }
    }
    demo.end().await;
    assert!(run(&["audit", "--data", &data]).await.done().contains("agree"));
}
