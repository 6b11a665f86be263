//! Stories on a TRON node: the daemon reads the stand-in node over HTTP with its real driver. Block time follows the
//! world's clock, so that no story depends on the machine's clock.

mod faulty;
mod forked;
mod lying;
mod node;
mod paying;
mod wallets;

use std::ops::{Deref, DerefMut};

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolCall;
use chain::{AddressKey, Amount};
use db::Backend;
use provision::contracts::abi;
use tronnode::gateway::Gateway;

use crate::placed_order::{PlacedOrder, split};
use crate::world::World;
use node::{LAG, Tron, evm};

/// A world whose TRON chain is the stand-in node.
pub struct Onchain {
    world: World,
    pub tron: Tron,
    /// The HTTP gateways in front of the node. A story may drop them one by one.
    pub gateways: Vec<Gateway>,
}

/// The number of gateways in front of the node.
pub struct StorySetup {
    pub gateways: usize,
}

impl Onchain {
    pub async fn start(backend: Backend) -> Onchain {
        Onchain::with(backend, StorySetup { gateways: 1 }).await
    }

    pub async fn with(backend: Backend, plan: StorySetup) -> Onchain {
        let tron = Tron::start().await;
        let mut gateways = Vec::new();
        for _ in 0..plan.gateways {
            gateways.push(tron.node.start_gateway().await);
        }
        let urls: Vec<String> = gateways.iter().map(|gateway| gateway.url.clone()).collect();
        let chain = tron.build_chain_config(&urls);
        let world = World::with(backend, move |config| drop(config.chains.insert(chain.id.clone(), chain))).await;
        Onchain { world, tron, gateways }
    }

    /// Pays from the first funded account. The payment stays pending until a block is produced.
    pub fn pay(&self, order: &PlacedOrder, amount: Amount) -> [u8; 32] {
        match order.coin {
            "trx" => self.tron.transfer(0, account(order), sun(amount)),
            _ => self.tron.call(
                0,
                self.tron.usdt,
                abi::Trc20Like::transferCall { to: evm(account(order)), value: amount.units() },
            ),
        }
    }

    /// Pays several orders in one transaction through the batcher contract.
    pub fn pay_by_contract(&self, orders: &[(&PlacedOrder, Amount)]) -> [u8; 32] {
        let to: Vec<Address> = orders.iter().map(|(order, _)| evm(account(order))).collect();
        let value: Vec<U256> = orders.iter().map(|(_, amount)| amount.units()).collect();
        if orders.first().expect("somebody is paid").0.coin == "trx" {
            let sum = Amount::checked_sum(orders.iter().map(|(_, amount)| *amount)).unwrap();
            let call = abi::Batcher::payEtherCall { to, value }.abi_encode();
            return self.tron.call_with(0, self.tron.batcher, sun(sum), &call);
        }
        let token = evm(self.tron.usdt);
        self.tron.call(0, self.tron.batcher, abi::Batcher::payTokenCall { token, to, value })
    }

    /// Produces blocks and runs the workers.
    pub async fn produce(&self, blocks: u64) {
        self.tron.produce(blocks, self.world.clock.now());
        self.world.run_until_idle().await;
    }

    /// Produces blocks until every waiting transaction is in a solidified block.
    pub async fn settle(&self) {
        self.produce(1 + LAG).await;
    }

    /// Produces blocks until every waiting transaction is so deep that it needs no second source.
    pub async fn settle_without_second_source(&self) {
        self.produce(1 + LAG + 20).await;
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
fn account(order: &PlacedOrder) -> AddressKey {
    tron::address::parse_tron_address(&order.address).expect("an address").key
}

fn sun(amount: Amount) -> i64 {
    i64::try_from(amount.units()).expect("less than all TRX")
}
