//! A node with a payer and a few addresses that we watch, read over JSON-RPC or through Esplora.

use async_trait::async_trait;
use bitcoin::{KnownHrp, Network};
use btc::{Access, Bitcoin, BitcoinConfig, Kind, Verify};
use chain::{
    Address, Amount, Asset, AssetKind, Block, ChainId, Deriver, Source, Transfer, WatchSet, derive::AddressScheme,
};
use esplora::Esplora;
use provision::{
    bitcoind::{Bitcoind, BitcoindOptions},
    wallet::TestWallet,
};
use rpc::Endpoint;
use simnet::conformance::ChainOperator;

/// Why a helper may panic: without the node there is no test.
pub const NODE: &str = "the node does as it is told";
/// The account of the BIP84 test phrase.
const XPUB: &str =
    "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";

pub struct World {
    pub node: Bitcoind,
    pub esplora: Esplora,
    pub payer: TestWallet,
    pub ours: Vec<Address>,
    pub watched: WatchSet,
    pub kind: Kind,
}

impl World {
    pub async fn start() -> World {
        World::with(Kind::P2wpkh).await
    }

    pub async fn with(kind: Kind) -> World {
        let node = Bitcoind::start(BitcoindOptions::default()).await.expect(NODE);
        let payer = TestWallet::with_funds(&node, 1).await.expect(NODE);
        let esplora = Esplora::start(&node.url()).await;
        let scheme = match kind {
            Kind::P2wpkh => AddressScheme::P2wpkh(KnownHrp::Regtest),
            Kind::P2tr => AddressScheme::P2tr(KnownHrp::Regtest),
        };
        let deriver = Deriver::new(XPUB, scheme).expect("an account");
        let ours: Vec<Address> = (0..6).map(|index| deriver.derive_address(index).expect("an address")).collect();
        let watched = WatchSet::default();
        for address in &ours[..3] {
            watched.insert(address.key);
        }
        World { node, esplora, payer, ours, watched, kind }
    }

    pub fn asset(&self) -> Asset {
        Asset::new(ChainId::new("bitcoin").expect("a name"), AssetKind::Native, "BTC", 8, 8)
    }

    pub fn config(&self, access: Access, urls: &[&str]) -> BitcoinConfig {
        BitcoinConfig {
            address_pause: std::time::Duration::ZERO,
            network: Network::Regtest,
            asset: self.asset(),
            access,
            kind: self.kind,
            verify: Verify::ALL,
            pool: rpc::Config::new(urls.iter().map(|url| Endpoint::new(url).expect("a URL")).collect()),
        }
    }

    pub fn bitcoin(&self, access: Access) -> Bitcoin {
        let url = match access {
            Access::Core => self.node.url(),
            Access::Esplora => self.esplora.url.clone(),
        };
        Bitcoin::new(self.config(access, &[&url])).expect("a driver")
    }

    pub async fn pay(&self, to: &[(&Address, u64)]) -> String {
        let to: Vec<(&str, u64)> = to.iter().map(|(address, sats)| (address.text.as_str(), *sats)).collect();
        self.payer.pay(&self.node, &to).await.expect(NODE).txid
    }
}

#[async_trait]
impl Operator for &World {
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

/// Reads `from..=to`, as many calls as it takes.
pub async fn read(source: &Bitcoin, from: u64, to: u64, watched: &WatchSet) -> Vec<Block> {
    simnet::conformance::read_blocks(source as &dyn Source, from, to, watched).await
}

pub fn transfers(blocks: &[Block]) -> Vec<Transfer> {
    blocks.iter().flat_map(|block| block.transfers.clone()).collect()
}
