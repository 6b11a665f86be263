//! Random play against the whole daemon: buyers, miners, reorganisations, faulty nodes and crashes in any order. When all
//! is quiet again, every base unit that lies on one of our addresses is in the ledger, and nothing else is.
//!
//! `cargo test` plays a few seeds; `cargo xtask soak` plays as many as are wanted. A seed that fails fails again.

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
use crate::world::World;

const COINS: [&str; 7] = ["trc20_usdt", "erc20_usdt", "bep20_usdt", "btc", "eth", "trx", "bnb"];
/// Seeds and moves of one seed, unless told otherwise.
const SEEDS: u64 = 2;
const MOVES: u64 = 120;
/// How often the process is killed, unless told otherwise.
const KILLS: u64 = 3;
/// Reorganisations of the play are not deeper: what is final must not vanish, or the chain rightly halts.
const DEPTH_MAX: u64 = 4;

struct Placed {
    id: String,
    order_no: String,
    coin: &'static str,
    address: String,
    due: Amount,
}

struct Play {
    world: World,
    rng: StdRng,
    orders: Vec<Placed>,
}

impl Play {
    async fn start(backend: Backend, seed: u64) -> Play {
        let world = World::start(backend).await;
        world.import(&world.product, 400).await;
        Play { world, rng: StdRng::seed_from_u64(seed), orders: Vec::new() }
    }

    async fn make_a_move(&mut self) {
        match self.rng.random_range(0..100) {
            0..15 => self.place().await,
            15..40 => self.pay(),
            40..45 => self.pay_two_at_once(),
            45..70 => self.mine(),
            70..76 => self.reorganise(),
            76..82 => self.spoil(),
            82..86 => self.forget_the_mempool(),
            86..94 => self.wait(),
            _ => self.crash().await,
        }
        // Not after every move: several may happen while the daemon is busy.
        if self.rng.random_bool(0.6) {
            self.world.run_until_idle().await;
        }
    }

    async fn place(&mut self) {
        let coin = *COINS.choose(&mut self.rng).expect("there are coins");
        let body = json!({ "productId": self.world.product.id, "quantity": 1, "contactEmail": "buyer@example.com",
            "paymentMethod": "crypto", "coin": coin });
        let answer = self.world.post("/api/orders", &body).await;
        if answer.status != 201 {
            // A chain that is not followed at the moment offers no coin.
            assert_eq!(answer.text_at("error"), "payment_method_unavailable", "{}", answer.text);
            return;
        }
        let due = answer.text_at("payment.expected_amount");
        self.note(format!("order {} of {due} {coin}", self.orders.len()));
        self.orders.push(Placed {
            id: answer.text_at("order.id"),
            order_no: answer.text_at("order.order_no"),
            coin,
            address: answer.text_at("payment.address"),
            due: Amount::parse_decimal(&due, self.world.asset(coin).decimals).unwrap(),
        });
    }

    /// The whole sum, a part of it, or too much; to any order that there ever was, however it ended.
    fn pay(&mut self) {
        if self.orders.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.orders.len());
        let (numerator, denominator) =
            *[(1, 1), (1, 1), (1, 2), (1, 3), (3, 2)].choose(&mut self.rng).expect("not empty");
        let placed = &self.orders[index];
        let asset = self.world.asset(placed.coin);
        let amount = placed.due.checked_mul_ratio(numerator, denominator).unwrap();
        self.world.simnet.pay(&asset.chain, &asset.id, &placed.address, amount).unwrap();
        self.note(format!("{numerator}/{denominator} of order {index}"));
    }

    fn pay_two_at_once(&mut self) {
        let Some(first) = self.orders.last() else { return };
        let Some(second) = self.orders.iter().rev().skip(1).find(|other| other.coin == first.coin) else { return };
        let asset = self.world.asset(first.coin);
        let payments = [first, second].map(|placed| (asset.id.clone(), placed.address.clone(), placed.due));
        self.world.simnet.pay_many(&asset.chain, payments.to_vec()).unwrap();
        let note = format!("orders {} and {} in one transaction", first.order_no, second.order_no);
        self.note(note);
    }

    fn mine(&mut self) {
        let (chain, blocks) = (self.any_chain(), self.rng.random_range(1..=8));
        self.world.simnet.mine(&chain, blocks, self.world.clock.now().unix_seconds());
        self.note(format!("{blocks} blocks on {chain}"));
    }

    fn reorganise(&mut self) {
        let (chain, depth) = (self.any_chain(), self.rng.random_range(1..=DEPTH_MAX));
        let keep = *[ReplacedTxs::Remine, ReplacedTxs::Remine, ReplacedTxs::Drop, ReplacedTxs::DoubleSpend]
            .choose(&mut self.rng)
            .expect("not empty");
        self.world.simnet.reorg(&chain, depth, keep, self.world.clock.now().unix_seconds());
        self.note(format!("{depth} blocks of {chain} replaced, {keep:?}"));
    }

    /// A node becomes faulty or recovers.
    fn spoil(&mut self) {
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
            self.world.simnet.fail_next(&chain, self.rng.random_range(0..4));
            self.note(format!("{chain} recovers"));
        }
    }

    fn forget_the_mempool(&mut self) {
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
        self.world.simnet.chains().choose(&mut self.rng).expect("there are chains").clone()
    }

    /// For whoever has to understand a failure: shown with it only.
    fn note(&self, what: String) {
        eprintln!("  {what}");
    }

    /// Nodes recover, windows pass, everything is mined and final.
    async fn come_to_rest(&mut self) {
        let chains = self.world.simnet.chains();
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
            self.world.simnet.fail_next(chain, 0);
        }
        for _ in 0..3 {
            for chain in &chains {
                self.world.simnet.mine(chain, 300, self.world.clock.now().unix_seconds());
            }
            self.world.run_until_idle().await;
            self.world.advance_seconds(3_600);
        }
    }

    async fn assert_true(&self) {
        let mut truth: BTreeMap<(ChainId, AssetId), Amount> = BTreeMap::new();
        let mut goods = BTreeSet::new();
        for (number, placed) in self.orders.iter().enumerate() {
            let asset = self.world.asset(placed.coin);
            let there = self.world.simnet.balance(&asset.chain, &asset.id, &placed.address);
            let sum = truth.entry((asset.chain.clone(), asset.id.clone())).or_default();
            *sum = sum.checked_add(there).unwrap();
            let status = self.world.status(&placed.id).await;
            match status.text_at("payment_status").as_str() {
                "paid" => assert!(there >= placed.due, "order {number} is paid with {there} of {}", placed.due),
                "expired" | "pending" | "underpaid" => {}
                other => panic!("order {number} is {other} when all is final: {}", status.text),
            }
            if status.text_at("status") == "completed" {
                let query = format!("/api/orders/query?orderNo={}&email=buyer@example.com", placed.order_no);
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
            play.make_a_move().await;
        }
        play.come_to_rest().await;
        play.assert_true().await;
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

/// The real process, killed while a buyer pays and whenever else it happens.
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
        // Whether it was paid before the end or not: that is what the next start has to find out.
        let _whatever = tokio::join!(run(&pay), async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            demo.kill().await;
            eprintln!("kill {kill} after {delay} ms");
        });
        orders.push(order);
    }
    let demo = Running::demo(folder.path(), &[]).await;
    for order in &orders {
        // A payment that its chain has is found without being made again.
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
