//! An anvil chain with test contracts, funded accounts and a few watched addresses.

use std::collections::HashMap;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall;
use chain::{
    AddressKey, Amount, Asset, AssetId, AssetKind, Block, ChainId, Source, Transfer, WatchSet,
    address::encode_evm_address,
};
use evm::{Commitments, Evm, EvmConfig, FinalitySource, TraceApi};
use provision::{
    anvil::{Anvil, AnvilOptions, Mining},
    contracts::{abi, compile_contract},
};
use rpc::Endpoint;

pub const CHAIN_ID: u64 = 31_337;
/// The text of every `expect` in the helpers, which panic when anvil fails.
pub const ANVIL: &str = "anvil and the test contracts work";
pub const ETHER: u128 = 1_000_000_000_000_000_000;

/// A running anvil node with its contracts and accounts.
pub struct TestChain {
    pub anvil: Anvil,
    pub usdt: Address,
    pub bep20: Address,
    pub fake: Address,
    pub batcher: Address,
    /// The accounts that anvil funds with ether.
    pub funded: Vec<Address>,
    /// The four watched addresses of the merchant.
    pub watched_addresses: Vec<Address>,
    /// The watch set with these addresses.
    pub watched: WatchSet,
}

impl TestChain {
    /// Starts anvil and deploys the contracts. The first funded account has tokens and has allowed the batcher to spend
    /// them. Transactions wait until [`Anvil::mine`].
    pub async fn start_chain() -> TestChain {
        TestChain::start_chain_with_args(&[]).await
    }

    /// Starts anvil with additional command-line arguments.
    pub async fn start_chain_with_args(extra: &[&str]) -> TestChain {
        let extra = extra.iter().map(|arg| (*arg).to_owned()).collect();
        let options = AnvilOptions { chain_id: CHAIN_ID, mining: Mining::Manual, extra, ..AnvilOptions::default() };
        let anvil = Anvil::start_node(options).await.expect(ANVIL);
        let mut deployed = Vec::new();
        for name in ["UsdtLike", "Bep20Like", "FakeToken", "Batcher"] {
            deployed.push(anvil.deploy_contract(&compile_contract(name).await.expect(ANVIL), &[]).await.expect(ANVIL));
        }
        let [usdt, bep20, fake, batcher] = deployed.try_into().expect(ANVIL);
        let funded = anvil.list_accounts().await.expect(ANVIL);
        let watched_addresses: Vec<Address> = (1..=4u8).map(|n| Address::repeat_byte(0xb0 + n)).collect();
        let watched = WatchSet::default();
        for address in &watched_addresses {
            watched.insert(to_address_key(*address));
        }
        let chain = TestChain { anvil, usdt, bep20, fake, batcher, funded, watched_addresses, watched };
        let million = U256::from(10u64).pow(U256::from(24));
        for token in [usdt, bep20] {
            chain.send_call(0, token, 0, abi::UsdtLike::mintCall { to: chain.funded[0], value: million }).await;
            chain.send_call(0, token, 0, abi::UsdtLike::approveCall { spender: batcher, value: million }).await;
        }
        chain.anvil.mine(1).await.expect(ANVIL);
        chain
    }

    /// Watches more addresses than the driver looks up in a bloom.
    pub fn watch_many_addresses(&self) {
        for n in 0..2_000u64 {
            self.watched.insert(to_address_key(Address::from_word(U256::from(n + (1 << 40)).into())));
        }
    }

    /// Sends a contract call from a funded account; it waits to be mined.
    pub async fn send_call(&self, from: usize, to: Address, wei: u128, call: impl SolCall) -> B256 {
        self.anvil.send_transaction(self.funded[from], to, U256::from(wei), &call.abi_encode()).await.expect(ANVIL)
    }

    pub async fn pay_ether(&self, from: usize, to: Address, wei: u128) -> B256 {
        self.anvil.send_transaction(self.funded[from], to, U256::from(wei), &[]).await.expect(ANVIL)
    }

    pub async fn pay_token(&self, token: Address, to: Address, units: u64) -> B256 {
        self.send_call(0, token, 0, abi::UsdtLike::transferCall { to, value: U256::from(units) }).await
    }

    /// Mines one block with every kind of transfer that is credited, and transactions that look like one but are not.
    pub async fn mine_busy_block(&self) {
        let [a, b, c, d] = self.watched_addresses[..] else { panic!("four addresses are watched") };
        let units = |n: u64| U256::from(n);
        self.pay_ether(1, a, ETHER).await;
        self.pay_ether(1, Address::repeat_byte(0x77), ETHER).await;
        self.pay_token(self.usdt, b, 1_500_000).await;
        self.pay_token(self.bep20, b, 7).await;
        self.pay_token(self.usdt, Address::repeat_byte(0x78), 9).await;
        // Several transfers in one transaction, two of them to one address.
        let (to, value) = (vec![a, b, a], vec![units(10), units(20), units(30)]);
        self.send_call(0, self.batcher, 0, abi::Batcher::payTokenCall { token: self.usdt, to, value }).await;
        let (to, value) = (vec![c, d, c], vec![units(3), units(4), units(5)]);
        self.send_call(2, self.batcher, 100, abi::Batcher::payEtherCall { to, value }).await;
        let (to, value) = (vec![c, d], vec![units(1_000), units(1_000)]);
        self.send_call(2, self.batcher, 2_000, abi::Batcher::payEtherThroughRevertCall { to, value }).await;
        self.send_call(3, self.batcher, 11, abi::Batcher::payByDestructCall { to: d }).await;
        // Transfer events without a transfer.
        self.send_call(3, self.fake, 0, abi::FakeToken::phantomCall { from: self.funded[0], to: a, value: units(5) })
            .await;
        self.send_call(3, self.fake, 0, abi::FakeToken::misshapenCall { from: self.funded[0], to: a, value: units(5) })
            .await;
        self.send_call(3, self.usdt, 0, abi::UsdtLike::transferFromCall { from: a, to: b, value: units(0) }).await;
        self.send_failing_transactions(a).await;
        self.anvil.mine(1).await.expect(ANVIL);
    }

    /// Sends transactions that are mined and fail: ether to a contract that accepts none, and tokens that the sender
    /// lacks.
    async fn send_failing_transactions(&self, to: Address) {
        for (call, target, wei) in [
            (abi::UsdtLike::transferCall { to, value: U256::from(1) }.abi_encode(), self.usdt, 0u64),
            (Vec::new(), self.usdt, 5),
        ] {
            let tx = serde_json::json!({ "from": self.funded[5], "to": target, "gas": "0x30000",
                "value": format!("{wei:#x}"), "data": alloy_primitives::hex::encode_prefixed(call) });
            self.anvil.call_rpc("eth_sendTransaction", serde_json::json!([tx])).await.expect(ANVIL);
        }
    }

    pub fn build_config(&self, urls: &[&str], trace: TraceApi) -> EvmConfig {
        let chain = ChainId::parse("anvil").expect(ANVIL);
        let token = |address: Address, symbol: &str, decimals| {
            let kind = AssetKind::Token { contract: address.to_checksum(None) };
            Asset::new(chain.clone(), kind, symbol, decimals, 4)
        };
        let native = Asset::new(chain.clone(), AssetKind::Native, "ETH", 18, 6);
        EvmConfig {
            chain_id: CHAIN_ID,
            assets: vec![native, token(self.usdt, "USDT", 6), token(self.bep20, "TOK", 18)],
            pool: rpc::Config::new(urls.iter().map(|url| Endpoint::new(url).expect(ANVIL)).collect()),
            finality: FinalitySource::Tag,
            range_depth: 1_000_000,
            verify: Commitments::ALL,
            trace,
            chain,
        }
    }

    /// Builds a driver that reads block by block, as near the head.
    pub fn build_driver(&self, urls: &[&str]) -> Evm {
        Evm::from_config(self.build_config(urls, TraceApi::None)).expect(ANVIL)
    }

    /// Builds a driver that reads every block by range, as during catch-up.
    pub async fn build_range_driver(&self, urls: &[&str], trace: TraceApi) -> Evm {
        let evm = Evm::from_config(EvmConfig { range_depth: 0, ..self.build_config(urls, trace) }).expect(ANVIL);
        evm.tip().await.expect(ANVIL);
        evm
    }

    /// Returns the balances of the watched addresses above zero, as the node reports them.
    pub async fn fetch_node_balances(&self) -> HashMap<(AssetId, AddressKey), Amount> {
        let mut balances = HashMap::new();
        let config = self.build_config(&[], TraceApi::None);
        for owner in &self.watched_addresses {
            for asset in &config.assets {
                let balance = match &asset.kind {
                    AssetKind::Native => self.anvil.fetch_balance(*owner).await.expect(ANVIL),
                    AssetKind::Token { contract } => {
                        let call = abi::UsdtLike::balanceOfCall { owner: *owner }.abi_encode();
                        U256::from_be_slice(
                            &self.anvil.call_contract(contract.parse().expect(ANVIL), &call).await.expect(ANVIL),
                        )
                    }
                };
                if !balance.is_zero() {
                    balances.insert((asset.id.clone(), to_address_key(*owner)), Amount::new(balance));
                }
            }
        }
        balances
    }
}

pub fn to_address_key(address: Address) -> AddressKey {
    AddressKey(address.into())
}

pub fn to_chain_address(address: Address) -> chain::Address {
    encode_evm_address(to_address_key(address))
}

/// Reads blocks `from..=to` with as many calls as needed, and checks that they are linked.
pub async fn read_blocks(evm: &Evm, from: u64, to: u64, watched: &WatchSet) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut next = from;
    while next <= to {
        let more = evm.blocks(next, to, watched).await.expect(ANVIL);
        for block in &more {
            assert_eq!(block.header.height, next);
            assert!(blocks.last().is_none_or(|last| last.header.hash == block.header.parent));
            next += 1;
            blocks.push(block.clone());
        }
    }
    blocks
}

pub fn collect_transfers(blocks: &[Block]) -> Vec<Transfer> {
    blocks.iter().flat_map(|block| block.transfers.clone()).collect()
}

pub fn sum_by_asset(transfers: &[Transfer]) -> HashMap<(AssetId, AddressKey), Amount> {
    let mut sums: HashMap<(AssetId, AddressKey), Amount> = HashMap::new();
    for transfer in transfers {
        let sum = sums.entry((transfer.asset.clone(), transfer.to)).or_default();
        *sum = sum.checked_add(transfer.amount).expect(ANVIL);
    }
    sums
}
