//! Stories on a TRON node: the daemon reads the stand-in by its own driver, over HTTP. Time on the node follows the world's
//! clock, so that nothing depends on the machine's.

mod faulty;
mod forked;
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

use crate::placed::{Placed, split};
use crate::world::World;
use node::{LAG, Tron, evm};

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
            "trx" => self.tron.transfer(0, account(placed), sun(amount)),
            _ => self.tron.call(
                0,
                self.tron.usdt,
                abi::Trc20Like::transferCall { to: evm(account(placed)), value: amount.units() },
            ),
        }
    }

    /// A contract pays several orders in one transaction.
    pub fn pay_by_contract(&self, orders: &[(&Placed, Amount)]) -> [u8; 32] {
        let to: Vec<Address> = orders.iter().map(|(placed, _)| evm(account(placed))).collect();
        let value: Vec<U256> = orders.iter().map(|(_, amount)| amount.units()).collect();
        if orders.first().expect("somebody is paid").0.coin == "trx" {
            let sum = Amount::checked_sum(orders.iter().map(|(_, amount)| *amount)).unwrap();
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

/// Whom a payment to the order reaches.
fn account(placed: &Placed) -> AddressKey {
    tron::address::parse(&placed.address).expect("an address").key
}

fn sun(amount: Amount) -> i64 {
    i64::try_from(amount.units()).expect("less than all TRX")
}
