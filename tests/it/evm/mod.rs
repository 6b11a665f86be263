//! Stories on real EVM nodes: the daemon reads anvil with its real driver, and the contracts are compiled Solidity.
//! Block time follows the world's clock, so that no story depends on the machine's clock.

mod faulty;
mod killed;
mod lying;
mod node;
mod paying;
mod reorganised;

use std::ops::{Deref, DerefMut};

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolCall;
use chain::Amount;
use db::Backend;
use provision::contracts::abi;

use crate::placed_order::{PlacedOrder, split};
use crate::world::World;
use node::{Endpoint, EndpointFault, NODE, Network, Node};

/// The number of blocks that make every deposit on these chains final.
const DEEP: u64 = 130;
/// A world whose Ethereum chain runs on a real node. On request its BSC chain does too.
pub struct Onchain {
    world: World,
    pub ethereum: Node,
    pub bsc: Option<Node>,
    /// The proxies between the daemon and the Ethereum node.
    pub endpoints: Vec<Endpoint>,
}

/// The options with which a story starts its world.
pub struct StorySetup {
    pub trace: &'static str,
    pub bsc: bool,
    /// The number of proxies that can lie; with 0 the daemon reads the node directly.
    pub endpoints: usize,
}

pub const PLAIN: StorySetup = StorySetup { trace: "none", bsc: false, endpoints: 0 };

impl Onchain {
    pub async fn start(backend: Backend) -> Onchain {
        Onchain::with(backend, PLAIN).await
    }

    pub async fn with(backend: Backend, plan: StorySetup) -> Onchain {
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
        let mut chains = vec![ethereum.build_chain_config(&urls, plan.trace)];
        if let Some(bsc) = &bsc {
            chains.push(bsc.build_chain_config(&[bsc.anvil.url()], plan.trace));
        }
        let world = World::with(backend, move |config| {
            config.chains.extend(chains.into_iter().map(|chain| (chain.id.clone(), chain)));
        })
        .await;
        Onchain { world, ethereum, bsc, endpoints }
    }

    /// Returns the node of the coin's chain.
    pub fn node(&self, coin: &str) -> &Node {
        match coin {
            "eth" | "erc20_usdt" => &self.ethereum,
            "bnb" | "bep20_usdt" => self.bsc.as_ref().expect("the plan has BSC"),
            other => panic!("{other} is on no node"),
        }
    }

    /// Pays from the first funded account. The payment stays pending until a block is mined.
    pub async fn pay(&self, order: &PlacedOrder, amount: Amount) -> B256 {
        let (node, to) = (self.node(order.coin), account(order));
        match order.coin {
            "eth" | "bnb" => node.send(0, to, amount.units(), &[]).await,
            _ => node.call(0, node.usdt, abi::UsdtLike::transferCall { to, value: amount.units() }).await,
        }
    }

    /// Pays several orders in one transaction through the batcher contract.
    pub async fn pay_by_contract(&self, orders: &[(&PlacedOrder, Amount)]) -> B256 {
        let coin = orders.first().expect("somebody is paid").0.coin;
        let node = self.node(coin);
        let to: Vec<Address> = orders.iter().map(|(order, _)| account(order)).collect();
        let value: Vec<_> = orders.iter().map(|(_, amount)| amount.units()).collect();
        if matches!(coin, "eth" | "bnb") {
            let sum = value.iter().sum();
            return node.send(0, node.batcher, sum, &abi::Batcher::payEtherCall { to, value }.abi_encode()).await;
        }
        node.call(0, node.batcher, abi::Batcher::payTokenCall { token: node.usdt, to, value }).await
    }

    /// Mines on the coin's chain and runs the workers.
    pub async fn mine(&self, coin: &str, blocks: u64) {
        self.node(coin).mine(blocks, self.world.clock.now()).await;
        self.world.run_until_idle().await;
    }

    pub async fn mine_deep(&self, coin: &str) {
        self.mine(coin, DEEP).await;
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

/// Returns the order's deposit address.
fn account(order: &PlacedOrder) -> Address {
    order.address.parse().expect(NODE)
}
