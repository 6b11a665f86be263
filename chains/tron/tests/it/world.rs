//! The test world: a chain of the stand-in node with a token, and drivers that read it.

use std::time::Duration;

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolCall;
use chain::{AddressKey, Asset, AssetKind, ChainId};
use provision::contracts::{abi, compile_contract};
use tron::{
    Tron, TronConfig,
    transaction::{Operation, TransactionParams, UnsignedTransaction, build_transaction},
};
use tronnode::{FundedAccount, TronNode, gateway::Gateway};

/// The chain id of the model chain.
pub const CHAIN_ID: u32 = 0x2b66_53dc;
/// The time of the genesis block, in unix milliseconds.
const GENESIS_MS: i64 = 1_770_000_000_000;
/// The maximum energy penalty of USDT, in thousandths of the energy.
pub const FACTOR: u64 = 3_400;

/// A chain with a token, funded accounts and one gateway.
pub struct World {
    pub node: TronNode,
    pub gateway: Gateway,
    pub usdt: AddressKey,
    /// Accounts with TRX. The first owns the token contract and has a million USDT.
    pub rich: Vec<FundedAccount>,
}

impl World {
    pub async fn start_world() -> World {
        let node = TronNode::new(CHAIN_ID, GENESIS_MS);
        let rich: Vec<FundedAccount> = (1..=3).map(|number| FundedAccount::new([number; 32])).collect();
        rich.iter().for_each(|rich| node.fund_account(rich.account));
        let compiled = compile_contract("Trc20Like").await.unwrap();
        let usdt = node.deploy_contract(&rich[0], "TetherToken", &compiled.abi, &compiled.bytecode, FACTOR);
        let gateway = node.start_gateway().await;
        let world = World { node, gateway, usdt, rich };
        world.call_token(abi::Trc20Like::mintCall {
            to: to_evm_address(world.rich[0].account),
            value: U256::from(1_000_000_000_000_u64),
        });
        world.node.produce_blocks(40, 0);
        world
    }

    /// Sends a call of the token from the first account.
    pub fn call_token(&self, call: impl SolCall) -> [u8; 32] {
        let operation = Operation::Trigger { contract: self.usdt, call_value: 0, data: call.abi_encode() };
        self.node.send_operation(&self.rich[0], &operation)
    }

    pub fn chain_id(&self) -> ChainId {
        ChainId::parse("tron").unwrap()
    }

    pub fn assets(&self) -> Vec<Asset> {
        let contract = chain::address::encode_tron_address(self.usdt).text;
        vec![
            Asset::new(self.chain_id(), AssetKind::Native, "TRX", 6, 6),
            Asset::new(self.chain_id(), AssetKind::Token { contract }, "USDT", 6, 6),
        ]
    }

    /// A driver that reads from the gateway.
    pub fn build_driver(&self) -> Tron {
        self.build_driver_for_endpoints(vec![rpc::Endpoint::new(&self.gateway.url).unwrap()])
    }

    pub fn build_driver_for_endpoints(&self, endpoints: Vec<rpc::Endpoint>) -> Tron {
        self.build_driver_with_pool(rpc::Config::new(endpoints))
    }

    /// A driver that waits two seconds for an answer.
    pub fn build_driver_with_short_deadline(&self) -> Tron {
        let mut pool = rpc::Config::new(vec![rpc::Endpoint::new(&self.gateway.url).unwrap()]);
        pool.deadline = Duration::from_secs(2);
        self.build_driver_with_pool(pool)
    }

    pub fn build_driver_with_pool(&self, pool: rpc::Config) -> Tron {
        let (chain, assets) = (self.chain_id(), self.assets());
        Tron::from_config(TronConfig { chain, chain_id: CHAIN_ID, assets, pool }).unwrap()
    }
}

pub fn to_evm_address(account: AddressKey) -> Address {
    Address::from(account.0)
}

/// Returns an unsigned transfer of TRX from the first account to the second.
pub fn build_unsigned_transfer(world: &World, params: &TransactionParams) -> UnsignedTransaction {
    build_transaction(world.rich[0].account, &Operation::Transfer { to: world.rich[1].account, sun: 1_000 }, params)
}
