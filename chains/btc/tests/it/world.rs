//! A Bitcoin Core node with a funded wallet, an Esplora server in front of it, and a few watched addresses.

use async_trait::async_trait;
use bitcoin::{KnownHrp, Network};
use btc::{AddressType, Backend, Bitcoin, BitcoinConfig, Verify};
use chain::{
    Address, Amount, Asset, AssetKind, Block, ChainId, Deriver, Source, Transfer, WatchSet, address::AddressScheme,
};
use esplora::Esplora;
use provision::{
    bitcoind::{Bitcoind, BitcoindOptions},
    wallet::TestWallet,
};
use rpc::Endpoint;
use simnet::conformance::ChainOperator;

/// Text of every `expect` in the helpers; a test cannot continue without its node.
pub const NODE: &str = "the node carries out the command";
/// Account public key of the mnemonic in the test vectors of BIP84.
const XPUB: &str =
    "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";

/// A node, a payer and six addresses, of which the first three are watched.
pub struct World {
    pub node: Bitcoind,
    pub esplora: Esplora,
    pub payer: TestWallet,
    pub ours: Vec<Address>,
    pub watched: WatchSet,
    pub address_type: AddressType,
}

impl World {
    pub async fn start() -> World {
        World::start_with_address_type(AddressType::P2wpkh).await
    }

    pub async fn start_with_address_type(address_type: AddressType) -> World {
        let node = Bitcoind::start_node(BitcoindOptions::default()).await.expect(NODE);
        let payer = TestWallet::with_funds(&node, 1).await.expect(NODE);
        let esplora = Esplora::start_server(&node.url()).await;
        let scheme = match address_type {
            AddressType::P2wpkh => AddressScheme::P2wpkh(KnownHrp::Regtest),
            AddressType::P2tr => AddressScheme::P2tr(KnownHrp::Regtest),
        };
        let deriver = Deriver::from_account_key(XPUB, scheme).expect("the account key is valid");
        let ours: Vec<Address> =
            (0..6).map(|index| deriver.derive_address(index).expect("every index has an address")).collect();
        let watched = WatchSet::default();
        for address in &ours[..3] {
            watched.insert(address.key);
        }
        World { node, esplora, payer, ours, watched, address_type }
    }

    pub fn native_asset(&self) -> Asset {
        Asset::new(ChainId::parse("bitcoin").expect("the chain id is valid"), AssetKind::Native, "BTC", 8, 8)
    }

    pub fn build_config(&self, backend: Backend, urls: &[&str]) -> BitcoinConfig {
        BitcoinConfig {
            address_pause: std::time::Duration::ZERO,
            network: Network::Regtest,
            asset: self.native_asset(),
            backend,
            address_type: self.address_type,
            verify: Verify::ALL,
            pool: rpc::Config::new(urls.iter().map(|url| Endpoint::new(url).expect("the URL is valid")).collect()),
        }
    }

    pub fn build_driver(&self, backend: Backend) -> Bitcoin {
        let url = match backend {
            Backend::Core => self.node.url(),
            Backend::Esplora => self.esplora.url.clone(),
        };
        Bitcoin::from_config(self.build_config(backend, &[&url])).expect("the configuration is valid")
    }

    /// Pays addresses in satoshi and returns the transaction id.
    pub async fn pay(&self, to: &[(&Address, u64)]) -> String {
        let to: Vec<(&str, u64)> = to.iter().map(|(address, sats)| (address.text.as_str(), *sats)).collect();
        self.payer.pay(&self.node, &to).await.expect(NODE).txid
    }
}

#[async_trait]
impl ChainOperator for &World {
    async fn pay(&mut self, _asset: &Asset, to: &Address, amount: Amount) {
        World::pay(self, &[(to, amount.units().to())]).await;
    }

    async fn mine(&mut self, blocks: u64) {
        self.node.mine(blocks).await.expect(NODE);
    }

    async fn reorg(&mut self, depth: u64) {
        self.node.reorg(depth).await.expect(NODE);
    }
}

/// Returns the blocks `from..=to`, with as many calls of the driver as needed.
pub async fn read_blocks(source: &Bitcoin, from: u64, to: u64, watched: &WatchSet) -> Vec<Block> {
    simnet::conformance::read_blocks(source as &dyn Source, from, to, watched).await
}

/// Returns the transfers of all blocks.
pub fn collect_transfers(blocks: &[Block]) -> Vec<Transfer> {
    blocks.iter().flat_map(|block| block.transfers.clone()).collect()
}
