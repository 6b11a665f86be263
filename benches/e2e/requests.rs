//! P10: requests to an EVM node for each block, counted.

use chain::{Asset, AssetKind, ChainId, Source, WatchSet};
use evm::{Commitments, Evm, EvmConfig, FinalitySource, TraceApi};
use provision::anvil::{Anvil, AnvilOptions, Mining};
use rpc::Endpoint;
use tokio::runtime::Runtime;

use crate::accounts;
use crate::report::{Bounds, Report};

const CHAIN_ID: u64 = 31_337;
const BLOCKS: u64 = 400;
/// Blocks that come while the head is followed.
const LIVE: u64 = 20;
/// Blocks of one question for logs, as the budget counts them. Few addresses need none: a block and its bloom say enough.
const SPAN: u64 = 100;

pub fn run(report: &mut Report, runtime: &Runtime) {
    let (catching_up, live) = runtime.block_on(async {
        let options = AnvilOptions { chain_id: CHAIN_ID, mining: Mining::Manual, ..AnvilOptions::default() };
        let anvil = Anvil::start(options).await.unwrap_or_else(|e| panic!("{e}"));
        anvil.mine(BLOCKS + 100).await.expect("blocks");
        let evm = Evm::new(config(&anvil.url())).expect("a driver");
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
    report.plain("P10", "requests for each block at the head, tip included", "", Bounds::Told, live * 1_000 / LIVE);
}

async fn catch_up(evm: &Evm) -> u64 {
    let watched = WatchSet::default();
    watched.insert(accounts::stranger(1));
    evm.tip().await.expect("a tip");
    let (before, mut next) = (evm.requests(), 1);
    while next <= BLOCKS {
        let blocks = evm.blocks(next, BLOCKS, &watched).await.expect("blocks");
        next += u64::try_from(blocks.len()).expect("few");
    }
    evm.requests() - before
}

/// What the following worker asks while blocks come one by one.
async fn follow(evm: &Evm, anvil: &Anvil) -> u64 {
    let watched = WatchSet::default();
    watched.insert(accounts::stranger(1));
    let mut height = evm.tip().await.expect("a tip").head.height;
    let before = evm.requests();
    for _ in 0..LIVE {
        anvil.mine(1).await.expect("a block");
        let tip = evm.tip().await.expect("a tip");
        let blocks = evm.blocks(height + 1, tip.head.height, &watched).await.expect("a block");
        height += u64::try_from(blocks.len()).expect("few");
    }
    evm.requests() - before
}

fn config(url: &str) -> EvmConfig {
    let chain = ChainId::new("anvil").expect("a name");
    let AssetKind::Token { contract } = accounts::token().kind else { panic!("a token") };
    EvmConfig {
        chain_id: CHAIN_ID,
        assets: vec![
            Asset::new(chain.clone(), AssetKind::Native, "ETH", 18, 6),
            Asset::new(chain.clone(), AssetKind::Token { contract }, "USDT", 6, 4),
        ],
        pool: rpc::Config::new(vec![Endpoint::new(url).expect("a URL")]),
        finality: FinalitySource::Tag,
        range_depth: 64,
        verify: Commitments::ALL,
        trace: TraceApi::None,
        chain,
    }
}
