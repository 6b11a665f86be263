//! The stand-in node with the contracts that the stories use, and its configuration.

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolCall;
use chain::{AddressKey, ChainId};
use clock::Instant;
use config::{self, Config};
use provision::contracts::{abi, compile_contract};
use tron::transaction::Operation;
use tronnode::{FundedAccount, TronNode};

use crate::world::{START, accounts};

/// The chain id of the Shasta test network.
pub const CHAIN_ID: u32 = 0x94a9_059e;
/// The number of blocks between the newest solidified block and the head. A block is solidified when 19 producers have
/// built on it.
pub const LAG: u64 = 18;
/// The maximum dynamic energy factor of USDT, in thousandths.
const FACTOR: u64 = 3_400;
/// The number of tokens that the first funded account owns, in base units.
const PLENTY: u64 = 1_000_000_000_000_000;

/// A chain on which a funded account has tokens that the batcher contract may spend. Only [`Tron::produce`] makes
/// blocks.
pub struct Tron {
    pub node: TronNode,
    pub usdt: AddressKey,
    pub fake: AddressKey,
    pub batcher: AddressKey,
    pub rich: Vec<FundedAccount>,
}

impl Tron {
    /// Starts the node. Its first block is one hour older than the world's clock.
    pub async fn start() -> Tron {
        let node = TronNode::new(CHAIN_ID, (START.unix_seconds() - 3_600) * 1_000);
        let rich: Vec<FundedAccount> = (1..=4).map(|number| FundedAccount::new([number; 32])).collect();
        rich.iter().for_each(|rich| node.fund_account(rich.account));
        let mut deployed = Vec::new();
        for (name, factor) in [("Trc20Like", FACTOR), ("FakeToken", 0), ("Batcher", 0)] {
            let made = compile_contract(name).await.unwrap();
            deployed.push(node.deploy_contract(&rich[0], name, &made.abi, &made.bytecode, factor));
        }
        let [usdt, fake, batcher] = deployed.try_into().unwrap();
        let tron = Tron { node, usdt, fake, batcher, rich };
        let (to, value) = (evm(tron.rich[0].account), U256::from(PLENTY));
        tron.call(0, usdt, abi::Trc20Like::mintCall { to, value });
        tron.call(0, usdt, abi::Trc20Like::approveCall { spender: evm(batcher), value });
        tron.node.produce_blocks(2 * LAG, 0);
        tron
    }

    /// Sends a contract call from a funded account and returns its transaction id. The transaction stays pending until
    /// a block is produced.
    pub fn call(&self, from: usize, contract: AddressKey, call: impl SolCall) -> [u8; 32] {
        self.call_with(from, contract, 0, &call.abi_encode())
    }

    pub fn call_with(&self, from: usize, contract: AddressKey, sun: i64, data: &[u8]) -> [u8; 32] {
        self.node
            .send_operation(&self.rich[from], &Operation::Trigger { contract, call_value: sun, data: data.to_vec() })
    }

    pub fn transfer(&self, from: usize, to: AddressKey, sun: i64) -> [u8; 32] {
        self.node.send_operation(&self.rich[from], &Operation::Transfer { to, sun })
    }

    /// Produces blocks. The first new block is not older than `now`.
    pub fn produce(&self, blocks: u64, now: Instant) {
        self.node.produce_blocks(blocks, now.unix_seconds() * 1_000);
    }

    /// Returns the chain's configuration with these endpoints, to be inserted in the configuration of a world.
    pub fn build_chain_config(&self, endpoints: &[String]) -> config::ChainConfig {
        let usdt = chain::address::encode_tron_address(self.usdt).text;
        // A single endpoint is the operator's own node, which needs no second source.
        let own = endpoints.len() == 1;
        let endpoints: Vec<String> =
            endpoints.iter().map(|url| format!("{{ url = \"{url}\", own = {own} }}")).collect();
        let text = format!(
            "[surfaces.checkout]\nmode = \"test\"\n[chains.tron]\nenabled = true\ndriver = \"node\"\npreset = \"\"\n\
             mode = \"test\"\nfamily = \"tron\"\nidentity = \"{CHAIN_ID}\"\nendpoints = [{}]\ntimeout_ms = 4_000\n\
             poll_ms = 400\nfinality = \"tag\"\nfinal_depth_min = 1\nfinal_depth = 27\nkeep_blocks = 512\n\
             confirmations = [{{ depth = 1 }}]\nassets = [\n\
             {{ code = \"trx\", symbol = \"TRX\", decimals = 6, quote_decimals = 6 }},\n\
             {{ code = \"usdt\", contract = \"{usdt}\", symbol = \"USDT\", decimals = 6, quote_decimals = 6 }}]\n{}",
            endpoints.join(", "),
            accounts()
        );
        let mut config =
            Config::parse_and_validate("node.toml".as_ref(), &text, Vec::new()).unwrap_or_else(|e| panic!("{e}"));
        config.chains.remove(&ChainId::parse("tron").unwrap()).expect("the text has the chain")
    }
}

/// Returns the account's address in the 20-byte form of the virtual machine.
pub fn evm(of: AddressKey) -> Address {
    Address::from(of.0)
}
