//! Stories on a TRON node: the daemon reads the stand-in by its own driver, over HTTP. Time on the node follows the world's
//! clock, so that nothing depends on the machine's.

mod faulty;
mod forked;
mod node;
mod paying;
mod wallets;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolCall;
use chain::{AddressKey, Amount};
use provision::contracts::abi;
use settled::db::Backend;
use settled::money::ledger::{Account, Suspense};
use tronnode::gateway::Gateway;

use crate::world::{Answer, World};
use node::{LAG, Tron, evm};

/// Longer than any endpoint rests after a failure or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// A world whose TRON is the stand-in.
pub struct Onchain {
    world: World,
    pub tron: Tron,
    /// Dropped one by one where a story wants it.
    pub gateways: Vec<Gateway>,
}

/// How many gateways stand before the node.
pub struct Plan {
    pub gateways: usize,
}

impl Onchain {
    pub async fn start(backend: Backend) -> Onchain {
        Onchain::with(backend, Plan { gateways: 1 }).await
    }

    pub async fn with(backend: Backend, plan: Plan) -> Onchain {
        let tron = Tron::start().await;
        let mut gateways = Vec::new();
        for _ in 0..plan.gateways {
            gateways.push(tron.node.gateway().await);
        }
        let urls: Vec<String> = gateways.iter().map(|gateway| gateway.url.clone()).collect();
        let chain = tron.configured(&urls);
        let world = World::with(backend, move |config| drop(config.chains.insert(chain.id.clone(), chain))).await;
        Onchain { world, tron, gateways }
    }

    /// The first rich account pays; the payment waits for a block.
    pub fn pay(&self, placed: &Placed, amount: Amount) -> [u8; 32] {
        match placed.coin {
            "trx" => self.tron.transfer(0, placed.key, sun(amount)),
            _ => self.tron.call(
                0,
                self.tron.usdt,
                abi::Trc20Like::transferCall { to: placed.evm(), value: amount.units() },
            ),
        }
    }

    /// A contract pays several orders in one transaction.
    pub fn pay_by_contract(&self, orders: &[(&Placed, Amount)]) -> [u8; 32] {
        let to: Vec<Address> = orders.iter().map(|(placed, _)| placed.evm()).collect();
        let value: Vec<U256> = orders.iter().map(|(_, amount)| amount.units()).collect();
        if orders.first().expect("somebody is paid").0.coin == "trx" {
            let sum = Amount::sum(orders.iter().map(|(_, amount)| *amount)).unwrap();
            let call = abi::Batcher::payEtherCall { to, value }.abi_encode();
            return self.tron.call_with(0, self.tron.batcher, sun(sum), &call);
        }
        let token = evm(self.tron.usdt);
        self.tron.call(0, self.tron.batcher, abi::Batcher::payTokenCall { token, to, value })
    }

    /// Makes blocks and lets the daemon look.
    pub async fn produce(&self, blocks: u64) {
        self.tron.produce(blocks, self.world.clock.now());
        self.world.run_until_idle().await;
    }

    /// Whatever waits is in a block, and that block is solidified.
    pub async fn settle(&self) {
        self.produce(1 + LAG).await;
    }

    pub async fn place(&self, coin: &'static str) -> Placed {
        let answer = self.world.order(2, coin).await;
        let address = answer.text_at("payment.address");
        let due = answer.text_at("payment.expected_amount");
        Placed {
            id: answer.text_at("order.id"),
            coin,
            key: tron::address::parse(&address).unwrap().key,
            address,
            due: Amount::parse_decimal(&due, self.world.asset(coin).decimals).unwrap(),
        }
    }

    pub async fn expect(&self, placed: &Placed, status: &str, payment_status: &str) -> Answer {
        let answer = self.world.status(&placed.id).await;
        let states = (answer.text_at("status"), answer.text_at("payment_status"));
        assert_eq!(states, (status.to_owned(), payment_status.to_owned()), "{}", answer.text);
        answer
    }

    pub async fn expect_received(&self, placed: &Placed, amount: Amount) {
        let answer = self.world.status(&placed.id).await;
        let decimals = self.world.asset(placed.coin).decimals;
        assert_eq!(answer.text_at("payment.received_amount"), amount.to_decimal(decimals), "{}", answer.text);
    }

    /// Lets the daemon work until the order is complete: endpoints that failed rest by the machine's clock, which no test
    /// moves.
    pub async fn until_completed(&self, placed: &Placed) {
        let driven = async {
            let mut beat = tokio::time::interval(Duration::from_millis(100));
            loop {
                self.world.run_until_idle().await;
                if self.world.status(&placed.id).await.text_at("status") == "completed" {
                    return;
                }
                beat.tick().await;
            }
        };
        if tokio::time::timeout(PATIENCE, driven).await.is_err() {
            panic!("never completed: {}", self.world.status(&placed.id).await.text);
        }
    }

    pub async fn held_apart(&self, coin: &str, kind: Suspense) -> Amount {
        self.holds(coin, Account::Suspense(self.world.shop.merchant, kind)).await
    }

    /// What the merchant may dispose of.
    pub async fn earned(&self, coin: &str) -> Amount {
        self.holds(coin, Account::MerchantAvailable(self.world.shop.merchant)).await
    }

    /// What is booked and not confirmed.
    pub async fn incoming(&self, coin: &str) -> Amount {
        self.holds(coin, Account::MerchantIncoming(self.world.shop.merchant)).await
    }

    async fn holds(&self, coin: &str, account: Account) -> Amount {
        self.world.account(self.world.shop.mode, account, self.world.asset(coin).id).await.available()
    }
}

impl Deref for Onchain {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Onchain {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

/// What the surface said when the order was placed.
pub struct Placed {
    pub id: String,
    pub coin: &'static str,
    pub address: String,
    pub key: AddressKey,
    pub due: Amount,
}

impl Placed {
    fn evm(&self) -> Address {
        evm(self.key)
    }
}

fn sun(amount: Amount) -> i64 {
    i64::try_from(amount.units()).expect("less than all TRX")
}

/// The part of an amount that is `numerator` / `denominator`, and the rest.
fn split(amount: Amount, numerator: u64, denominator: u64) -> (Amount, Amount) {
    let part = amount.checked_ratio(numerator, denominator).expect("a ratio below one");
    (part, amount.checked_sub(part).expect("a part is smaller"))
}
