//! Stories on real EVM nodes: the daemon reads anvil by its own driver, and the contracts are compiled ones. Time on the
//! nodes follows the world's clock, so that nothing depends on the machine's.

mod faulty;
mod killed;
mod node;
mod paying;
mod reorganised;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolCall;
use chain::Amount;
use provision::contracts::abi;
use settled::db::Backend;
use settled::money::ledger::{Account, Suspense};

use crate::world::{Answer, World};
use node::{Endpoint, Fault, NODE, Network, Node};

/// More blocks than anything on these chains needs to be final.
const DEEP: u64 = 130;
/// Longer than any endpoint rests after a failure or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// A world whose Ethereum, and BSC if it is wanted, is a real node.
pub struct Onchain {
    world: World,
    pub ethereum: Node,
    pub bsc: Option<Node>,
    /// What stands between the daemon and Ethereum.
    pub endpoints: Vec<Endpoint>,
}

/// What a story needs.
pub struct Plan {
    pub trace: &'static str,
    pub bsc: bool,
    /// Endpoints that can be told to lie; without any the node itself is asked.
    pub endpoints: usize,
}

pub const PLAIN: Plan = Plan { trace: "none", bsc: false, endpoints: 0 };

impl Onchain {
    pub async fn start(backend: Backend) -> Onchain {
        Onchain::with(backend, PLAIN).await
    }

    pub async fn with(backend: Backend, plan: Plan) -> Onchain {
        let ethereum = Node::start(Network::Ethereum).await;
        let bsc = if plan.bsc { Some(Node::start(Network::Bsc).await) } else { None };
        let mut endpoints = Vec::new();
        for _ in 0..plan.endpoints {
            endpoints.push(Endpoint::start(&ethereum).await);
        }
        let mut urls: Vec<String> = endpoints.iter().map(|endpoint| endpoint.proxy.url.clone()).collect();
        if urls.is_empty() {
            urls.push(ethereum.anvil.url());
        }
        let mut chains = vec![ethereum.configured(&urls, plan.trace)];
        if let Some(bsc) = &bsc {
            chains.push(bsc.configured(&[bsc.anvil.url()], plan.trace));
        }
        let world = World::with(backend, move |config| {
            config.chains.extend(chains.into_iter().map(|chain| (chain.id.clone(), chain)));
        })
        .await;
        Onchain { world, ethereum, bsc, endpoints }
    }

    /// Where a coin is.
    pub fn node(&self, coin: &str) -> &Node {
        match coin {
            "eth" | "erc20_usdt" => &self.ethereum,
            "bnb" | "bep20_usdt" => self.bsc.as_ref().expect("the plan has BSC"),
            other => panic!("{other} is on no node"),
        }
    }

    /// The first rich account pays; the payment waits for a block.
    pub async fn pay(&self, placed: &Placed, amount: Amount) -> B256 {
        let (node, to) = (self.node(placed.coin), placed.address());
        match placed.coin {
            "eth" | "bnb" => node.send(0, to, amount.units(), &[]).await,
            _ => node.call(0, node.usdt, abi::UsdtLike::transferCall { to, value: amount.units() }).await,
        }
    }

    /// A contract pays several orders in one transaction.
    pub async fn pay_by_contract(&self, orders: &[(&Placed, Amount)]) -> B256 {
        let coin = orders.first().expect("somebody is paid").0.coin;
        let node = self.node(coin);
        let to: Vec<Address> = orders.iter().map(|(placed, _)| placed.address()).collect();
        let value: Vec<_> = orders.iter().map(|(_, amount)| amount.units()).collect();
        if matches!(coin, "eth" | "bnb") {
            let sum = value.iter().sum();
            return node.send(0, node.batcher, sum, &abi::Batcher::payEtherCall { to, value }.abi_encode()).await;
        }
        node.call(0, node.batcher, abi::Batcher::payTokenCall { token: node.usdt, to, value }).await
    }

    /// Mines on the coin's chain and lets the daemon read it.
    pub async fn mine(&self, coin: &str, blocks: u64) {
        self.node(coin).mine(blocks, self.world.clock.now()).await;
        self.world.run_until_idle().await;
    }

    pub async fn mine_deep(&self, coin: &str) {
        self.mine(coin, DEEP).await;
    }

    pub async fn place(&self, coin: &'static str) -> Placed {
        let answer = self.world.order(2, coin).await;
        let due = answer.text_at("payment.expected_amount");
        Placed {
            id: answer.text_at("order.id"),
            order_no: answer.text_at("order.order_no"),
            coin,
            address: answer.text_at("payment.address"),
            due: Amount::parse_decimal(&due, self.world.asset(coin).decimals).expect("an amount"),
        }
    }

    pub async fn expect(&self, placed: &Placed, status: &str, payment_status: &str) -> Answer {
        let answer = self.world.status(&placed.id).await;
        assert_eq!(answer.text_at("status"), status, "{}", answer.text);
        assert_eq!(answer.text_at("payment_status"), payment_status, "{}", answer.text);
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

    /// What is the merchant's as soon as it is final.
    pub async fn pending(&self, coin: &str) -> Amount {
        self.holds(coin, Account::MerchantPending(self.world.shop.merchant)).await
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
    pub order_no: String,
    pub coin: &'static str,
    pub address: String,
    pub due: Amount,
}

impl Placed {
    fn address(&self) -> Address {
        self.address.parse().expect(NODE)
    }
}

/// The part of an amount that is `numerator` / `denominator`, and the rest.
fn split(amount: Amount, numerator: u64, denominator: u64) -> (Amount, Amount) {
    let part = amount.checked_ratio(numerator, denominator).expect("a ratio below one");
    (part, amount.checked_sub(part).expect("a part is smaller"))
}
