use std::{collections::BTreeMap, future::Future};

use chain::{
    Amount, Asset, AssetId, AssetKind, Block, BlockRef, ChainId, Family, Header, Source, Transfer, WatchSet,
    follower::{Follower, ForkSearch, NextBlock, NextStep},
};
use simnet::{ChainSpec, FinalityMark, Simnet, address, conformance};

pub const GENESIS: i64 = 1_800_000_000;

pub const EVM: &str = "0x9858EfFD232B4033E47d90003D41EC34EcaEda94";
pub const EVM_OTHER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
pub const TRON: &str = "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH";
pub const BITCOIN: &str = "bcrt1qcr8te4kr609gcawutmrza0j4xv80jy8zeqchgx";
const USDT: &str = "0xdAC17F958D2ee523a2206206994597C13D831ec7";
const USDT_TRON: &str = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t";

/// Returns the specifications of one chain of each family.
pub fn build_specs() -> Vec<ChainSpec> {
    let spec = |name: &str, family: Family, token: Option<&str>, coin: (&str, u8), finality: FinalityMark| {
        let chain = chain_id(name);
        let mut assets = vec![Asset::new(chain.clone(), AssetKind::Native, coin.0, coin.1, 8)];
        let kind = token.map(|contract| AssetKind::Token { contract: contract.to_owned() });
        assets.extend(kind.map(|kind| Asset::new(chain.clone(), kind, "USDT", 6, 6)));
        ChainSpec { chain, family, assets, finality }
    };
    vec![
        spec("bitcoin", Family::Bitcoin, None, ("BTC", 8), FinalityMark::None),
        spec("ethereum", Family::Evm, Some(USDT), ("ETH", 18), FinalityMark::Depth(12)),
        spec("tron", Family::Tron, Some(USDT_TRON), ("TRX", 6), FinalityMark::Depth(19)),
    ]
}

pub fn new_simnet() -> Simnet {
    Simnet::create_in_memory(build_specs(), 7, GENESIS)
}

pub fn chain_id(name: &str) -> ChainId {
    ChainId::parse(name).unwrap()
}

pub fn native_asset(chain: &ChainId) -> AssetId {
    AssetId::on_chain(chain, &AssetKind::Native)
}

/// Returns the chain's token. Panics for Bitcoin, which has none.
pub fn token_asset(chain: &ChainId) -> AssetId {
    build_specs().iter().find(|spec| spec.chain == *chain).unwrap().assets[1].id.clone()
}

pub fn units(units: u64) -> Amount {
    Amount::from(units)
}

pub fn watch_addresses(family: Family, texts: &[&str]) -> WatchSet {
    let watched = WatchSet::default();
    texts.iter().for_each(|text| watched.insert(address::parse_address(family, text).unwrap().key));
    watched
}

/// Runs a future to its end. The futures of a model chain never wait for I/O.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Returns all blocks above genesis as a reader gets them.
pub fn read_all_blocks(simnet: &Simnet, chain: &ChainId, watched: &WatchSet) -> Vec<Block> {
    let head = simnet.tip(chain).head.height;
    block_on(conformance::read_blocks(&*simnet.source(chain).unwrap(), 1, head, watched))
}

pub fn read_all_transfers(simnet: &Simnet, chain: &ChainId, watched: &WatchSet) -> Vec<Transfer> {
    read_all_blocks(simnet, chain, watched).into_iter().flat_map(|block| block.transfers).collect()
}

/// Follows a chain as the daemon does, and keeps the transfers that it read.
pub struct Reader {
    follower: Follower,
    pub found: BTreeMap<u64, Vec<Transfer>>,
}

impl Reader {
    pub fn new(genesis: BlockRef) -> Reader {
        Reader { follower: Follower::from_recent_blocks([genesis], 0, 10_000, 7), found: BTreeMap::new() }
    }

    pub fn cursor(&self) -> BlockRef {
        self.follower.cursor()
    }

    /// Reads until the cursor is at the head, and rewinds when the chain has reorganised.
    pub async fn poll(&mut self, source: &dyn Source, watched: &WatchSet) {
        loop {
            let tip = source.tip().await.unwrap();
            match self.follower.decide_next_step(&tip) {
                NextStep::Wait => return,
                NextStep::CompareHead => match self.follower.is_on_our_branch(tip.head.block_ref()) {
                    Some(true) => return,
                    Some(false) => self.rewind(source, tip.head).await,
                    None => panic!("{:?} is older than the kept blocks", tip.head),
                },
                NextStep::ReadBlocks { from, to } => self.extend(source, from, to, watched).await,
            }
        }
    }

    async fn extend(&mut self, source: &dyn Source, from: u64, to: u64, watched: &WatchSet) {
        for block in source.blocks(from, to, watched).await.unwrap() {
            match self.follower.classify_next_block(&block.header) {
                NextBlock::Extends => {
                    self.follower.push_block_dropping_oldest(block.header.block_ref());
                    self.found.insert(block.header.height, block.transfers);
                }
                NextBlock::Forks => return self.rewind(source, block.header).await,
                NextBlock::WrongHeight => panic!("{:?} was not requested", block.header),
            }
        }
    }

    async fn rewind(&mut self, source: &dyn Source, mut lowest: Header) {
        loop {
            match self.follower.search_fork_below(&lowest) {
                ForkSearch::RequestHeader(height) => {
                    let header = source.header(height).await.unwrap().unwrap();
                    assert_eq!(header.hash, lowest.parent);
                    lowest = header;
                }
                ForkSearch::RewindTo(block) => {
                    self.follower.rewind_to(block);
                    self.found.retain(|height, _| *height <= block.height);
                    return;
                }
                ForkSearch::TooDeep => panic!("the fork is within the kept blocks"),
            }
        }
    }
}
