//! P10: the number of requests to an EVM node per block.

use chain::{Asset, AssetKind, ChainId, Source, WatchSet};
use evm::{Commitments, Evm, EvmConfig, FinalitySource, TraceApi};
use provision::anvil::{Anvil, AnvilOptions, Mining};
use rpc::Endpoint;
use tokio::runtime::Runtime;

use crate::report::{Bounds, Report};
use crate::usdt;

const CHAIN_ID: u64 = 31_337;
const BLOCKS: u64 = 400;
/// The number of blocks mined while the head is followed.
const LIVE: u64 = 20;
/// The number of blocks per request for logs that the bound assumes. With few addresses no such request is needed, because
/// the bloom filter of a block suffices.
const SPAN: u64 = 100;

/// Counts and reports P10.
pub fn run(report: &mut Report, runtime: &Runtime) {
    let (catching_up, live) = runtime.block_on(async {
        let options = AnvilOptions { chain_id: CHAIN_ID, mining: Mining::Manual, ..AnvilOptions::default() };
        let anvil = Anvil::start_node(options).await.unwrap_or_else(|e| panic!("{e}"));
        anvil.mine(BLOCKS + 100).await.expect("the node returns the blocks");
        let evm = Evm::from_config(config(&anvil.url())).expect("the driver configuration is valid");
        (catch_up(&evm).await, follow(&evm, &anvil).await)
    });
    let most = (1_000 + SPAN * 1_000) / SPAN;
    let bounds = Bounds::AtMost { gate: most, goal: most };
    report.plain(
        "P10",
        "requests for each block, catching up, coin and token",
        "",
        bounds,
        catching_up * 1_000 / BLOCKS,
    );
    report.plain(
        "P10",
        "requests for each block at the head, tip included",
        "",
        Bounds::Informative,
        live * 1_000 / LIVE,
    );
}

/// Returns the number of requests for reading [`BLOCKS`] old blocks.
async fn catch_up(evm: &Evm) -> u64 {
    let watched = WatchSet::default();
    watched.insert(usdt::holder(1));
    evm.tip().await.expect("the node returns its tip");
    let (before, mut next) = (evm.requests(), 1);
    while next <= BLOCKS {
        let blocks = evm.blocks(next, BLOCKS, &watched).await.expect("the node returns the blocks");
        next += u64::try_from(blocks.len()).expect("the number is small");
    }
    evm.requests() - before
}

/// Returns the number of requests of the follow worker while blocks are mined one by one.
async fn follow(evm: &Evm, anvil: &Anvil) -> u64 {
    let watched = WatchSet::default();
    watched.insert(usdt::holder(1));
    let mut height = evm.tip().await.expect("the node returns its tip").head.height;
    let before = evm.requests();
    for _ in 0..LIVE {
        anvil.mine(1).await.expect("the block is valid");
        let tip = evm.tip().await.expect("the node returns its tip");
        let blocks = evm.blocks(height + 1, tip.head.height, &watched).await.expect("the block is valid");
        height += u64::try_from(blocks.len()).expect("the number is small");
    }
    evm.requests() - before
}

fn config(url: &str) -> EvmConfig {
    let chain = ChainId::parse("anvil").expect("the chain id is valid");
    let AssetKind::Token { contract } = usdt::asset().kind else { panic!("a token") };
    EvmConfig {
        chain_id: CHAIN_ID,
        assets: vec![
            Asset::new(chain.clone(), AssetKind::Native, "ETH", 18, 6),
            Asset::new(chain.clone(), AssetKind::Token { contract }, "USDT", 6, 4),
        ],
        pool: rpc::Config::new(vec![Endpoint::new(url).expect("the URL is valid")]),
        finality: FinalitySource::Tag,
        range_depth: 64,
        verify: Commitments::ALL,
        trace: TraceApi::None,
        chain,
    }
}
