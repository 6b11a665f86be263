//! The reading half: what the rest of settled asks, answered by [`crate::reader`] and the endpoint pool.

use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use alloy_primitives::B256;
use async_trait::async_trait;
use chain::{
    Address, Amount, AssetId, AssetKind, Block, BlockRef, ChainId, Header, Height, Identity, InternalTransfers, Source,
    SourceError, Tip, WatchSet,
    source::{CrossCheckResult, EndpointReport},
};
use rpc::{AdaptiveSize, Answer, ChainCheck, Pool, RefusalKind, Rejection, Reply, Role, RpcError};
use ruint::aliases::U256;
use serde_json::{json, value::RawValue};
use tokio::time::Instant;
use tracing::debug;

use crate::{
    EvmConfig, Finality, Trace,
    balances::Memory,
    block,
    cross_check::BlockOrigins,
    finality::Claims,
    hex,
    logs::{BadContract, Contracts},
    trace_health::TraceHealth,
};

/// An endpoint further behind the best one says nothing of the present.
const LAG_MAX: u64 = 32;
/// Blocks that a range of logs covers at first, and at most.
const SPAN: (u64, u64) = (2_000, 10_000);
/// `decimals()`
const DECIMALS_CALL: &str = "0x313ce567";

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Contract(#[from] BadContract),
    #[error(transparent)]
    Pool(#[from] rpc::pool::ConfigError),
    /// The asset would be credited for payments on another chain.
    #[error("asset {0} does not belong to chain {1}")]
    ForeignAsset(AssetId, ChainId),
}

/// One EVM chain behind several endpoints.
pub struct Evm {
    pub(crate) config: EvmConfig,
    pub(crate) pool: Pool,
    pub(crate) contracts: Contracts,
    /// The asset of the coin, if it may be paid with.
    pub(crate) native: Option<AssetId>,
    pub(crate) span: Mutex<AdaptiveSize>,
    /// Blocks up to here are not expected to change.
    pub(crate) settled: AtomicU64,
    pub(crate) memory: Mutex<Memory>,
    pub(crate) warned: AtomicBool,
    sight: Mutex<TraceHealth>,
    /// Every endpoint is asked for its head and its final mark in turn.
    head_turn: AtomicUsize,
    final_turn: AtomicUsize,
    claims: Mutex<Claims>,
    last_head: Mutex<Option<BlockRef>>,
    pub(crate) givers: Mutex<BlockOrigins>,
}

impl Evm {
    pub fn new(config: EvmConfig) -> Result<Evm, BuildError> {
        if let Some(foreign) = config.assets.iter().find(|asset| asset.chain != config.chain) {
            return Err(BuildError::ForeignAsset(foreign.id.clone(), config.chain));
        }
        let proof = ChainCheck::call("eth_chainId", &[(); 0], &hex::to_quantity(config.chain_id));
        let pool = Pool::new(rpc::Config { proof: Some(proof), ..config.pool.clone() })?;
        Ok(Evm {
            pool,
            contracts: Contracts::new(&config.assets)?,
            native: config.assets.iter().find(|asset| asset.is_native()).map(|asset| asset.id.clone()),
            span: Mutex::new(AdaptiveSize::new(SPAN.0, SPAN.1)),
            settled: AtomicU64::new(0),
            memory: Mutex::new(Memory::default()),
            warned: AtomicBool::new(false),
            sight: Mutex::new(TraceHealth::default()),
            head_turn: AtomicUsize::new(0),
            final_turn: AtomicUsize::new(0),
            claims: Mutex::new(Claims::new(config.pool.endpoints.len())),
            last_head: Mutex::new(None),
            givers: Mutex::default(),
            config,
        })
    }

    pub(crate) fn sight(&self) -> MutexGuard<'_, TraceHealth> {
        self.sight.lock().expect("no panic while sight is held")
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().expect("no panic while claims are held")
    }

    /// Whether the head moved since it was last seen; its mark of finality cannot have moved otherwise.
    fn head_moved(&self, head: BlockRef) -> bool {
        let mut last = self.last_head.lock().expect("no panic while the head is held");
        last.replace(head) != Some(head)
    }

    /// Asks one endpoint more, the next in turn, which block it calls final. Without an answer its last claim stands for a
    /// while; one that lags behind, or names a block that nobody has yet, is not heard.
    async fn poll_finality(&self) {
        let first = self.final_turn.fetch_add(1, Ordering::Relaxed);
        let claim = self.pool.ask_from(first, "eth_getBlockByNumber", &("finalized", false), |reply| {
            let Some(block) = reply.result::<Option<&RawValue>>()? else { return Ok(Answer::Doubtful(None)) };
            let (_, header) = block::header(block, self.config.verify).map_err(Rejection::Wrong)?;
            Ok(Answer::Sure(Some((reply.endpoint, header.block_ref()))))
        });
        match claim.await {
            Ok(Some((endpoint, mark))) => {
                let heads = self.pool.heads();
                let best = heads.iter().flatten().max().copied().unwrap_or(0);
                let lags = heads.get(endpoint).copied().flatten().is_some_and(|head| best - head > LAG_MAX);
                let useful = !lags && mark.height <= best;
                self.claims().claim(endpoint, useful.then_some(mark), Instant::now());
            }
            Ok(None) => debug!(chain = %self.config.chain, "no block is called final yet"),
            Err(failure) => debug!(chain = %self.config.chain, "no final mark was heard: {failure}"),
        }
    }

    pub(crate) fn readers(&self) -> usize {
        self.pool.endpoints().filter(|endpoint| endpoint.has(Role::Read)).count()
    }

    /// Where one endpoint stands, and in words what it is and offers.
    async fn report(&self, endpoint: usize) -> Result<(Height, String), String> {
        let asked_at = Instant::now();
        let id: String =
            self.ask_only(endpoint, "eth_chainId", json!([])).await.map_err(|failure| failure.to_string())?;
        let latency = asked_at.elapsed().as_millis();
        if hex::quantity(&id) != Some(self.config.chain_id) {
            return Err(format!("is a node of chain {id}, not of {:#x}", self.config.chain_id));
        }
        let header = |tag: &'static str| async move {
            let accept = |reply: &Reply<'_>| {
                let Some(block) = reply.result::<Option<&RawValue>>()? else { return Ok(Answer::Sure(None)) };
                let (_, header) = block::header(block, self.config.verify).map_err(Rejection::Wrong)?;
                Ok(Answer::Sure(Some(header)))
            };
            self.pool.ask_only(endpoint, "eth_getBlockByNumber", &(tag, false), accept).await
        };
        let head = header("latest").await.map_err(|failure| failure.to_string())?.ok_or("has no latest block")?;
        self.pool.saw_head(endpoint, head.height);
        let hash = B256::from(head.hash.0);
        let finality = match header("finalized").await {
            Ok(Some(mark)) => format!("final up to {}", mark.height),
            Ok(None) => "no final block yet".to_owned(),
            Err(_) => "no `finalized` tag".to_owned(),
        };
        let receipts = self.offers(endpoint, "eth_getBlockReceipts", json!([hash])).await;
        let proof = json!([alloy_primitives::Address::ZERO, [], { "blockHash": hash }]);
        let proofs = self.offers(endpoint, "eth_getProof", proof).await;
        let word = |offered: bool| if offered { "yes" } else { "no" };
        let mut text = format!(
            "chain {}, head {}, {finality}, receipts by block: {}, proofs of balances: {}, {latency} ms",
            self.config.chain_id,
            head.height,
            word(receipts),
            word(proofs),
        );
        if let Some((method, params)) = self.trace_question(&head) {
            let traces = self.offers(endpoint, method, params).await;
            text.push_str(&format!(", traces: {}", word(traces)));
        }
        Ok((head.height, text))
    }

    async fn offers(&self, endpoint: usize, method: &str, params: serde_json::Value) -> bool {
        let accept = |reply: &Reply<'_>| reply.result::<&RawValue>().map(|_| Answer::Sure(()));
        self.pool.ask_only(endpoint, method, &params, accept).await.is_ok()
    }

    async fn ask_only(&self, endpoint: usize, method: &str, params: serde_json::Value) -> Result<String, RpcError> {
        let accept = |reply: &Reply<'_>| reply.result::<String>().map(Answer::Sure);
        self.pool.ask_only(endpoint, method, &params, accept).await
    }
}

#[async_trait]
impl Source for Evm {
    /// The EIP-155 chain id in decimal. Fails if any endpoint that answers belongs to another chain.
    async fn identity(&self) -> Result<Identity, SourceError> {
        let mut troubles = Vec::new();
        let mut heard = false;
        for endpoint in 0..self.pool.endpoints().len() {
            let accept = |reply: &Reply<'_>| reply.result::<String>().map(Answer::Sure);
            match self.pool.ask_one(endpoint, "eth_chainId", &json!([]), accept).await {
                Ok(id) if hex::quantity(&id) == Some(self.config.chain_id) => heard = true,
                Ok(id) => {
                    let label = self.pool.label(endpoint);
                    let expected = self.config.chain_id;
                    return Err(SourceError::InvalidResponse(format!(
                        "{label} is a node of chain {id}, not of {expected:#x}"
                    )));
                }
                Err(failure) => troubles.push(format!("{}: {failure}", self.pool.label(endpoint))),
            }
        }
        if heard {
            Ok(Identity { id: self.config.chain_id.to_string() })
        } else {
            Err(SourceError::Unavailable(troubles.join("; ")))
        }
    }

    async fn decimals(&self, contract: &str) -> Result<u8, SourceError> {
        let params = json!([{ "to": contract, "data": DECIMALS_CALL }, "latest"]);
        let decimals = self.pool.ask("eth_call", &params, |reply| {
            let word: Option<[u8; 32]> = hex::bytes(reply.result::<&str>()?);
            let decimals = word.and_then(|word| u8::try_from(U256::from_be_bytes(word)).ok());
            let decimals = decimals.ok_or_else(|| Rejection::Wrong(format!("{contract} is no token with decimals")))?;
            Ok(Answer::Sure(decimals))
        });
        decimals.await.map_err(|failure| failure.at(0))
    }

    /// One request, and one more for the final mark when the head moved.
    async fn tip(&self) -> Result<Tip, SourceError> {
        let first = self.head_turn.fetch_add(1, Ordering::Relaxed);
        let latest = self.pool.ask_from(first, "eth_getBlockByNumber", &("latest", false), |reply| {
            let block: &RawValue = reply.result()?;
            let (_, header) = block::header(block, self.config.verify).map_err(Rejection::Wrong)?;
            Ok(Answer::Sure((reply.endpoint, header)))
        });
        let (endpoint, head) = latest.await.map_err(|failure| failure.at(0))?;
        self.pool.saw_head(endpoint, head.height);
        if self.config.finality == Finality::Tag && self.head_moved(head.block_ref()) {
            self.poll_finality().await;
            let heard = self.claims().heard(Instant::now());
            if heard == 1 && self.readers() > 1 {
                self.poll_finality().await;
            }
        }
        let finalized = self.claims().agreed(Instant::now());
        let deep = head.height.saturating_sub(self.config.range_depth);
        self.settled.store(finalized.map_or(deep, |mark| mark.height.max(deep)), Ordering::Relaxed);
        Ok(Tip { head, finalized })
    }

    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError> {
        let params = (hex::to_quantity(height), false);
        let found = self.pool.ask("eth_getBlockByNumber", &params, |reply| {
            let Some(block) = reply.result::<Option<&RawValue>>()? else { return Ok(Answer::Doubtful(None)) };
            let (_, header) = block::header(block, self.config.verify).map_err(Rejection::Wrong)?;
            if header.height == height {
                Ok(Answer::Sure(Some(header)))
            } else {
                Err(Rejection::Wrong(format!("asked for block {height}, got {}", header.height)))
            }
        });
        match found.await {
            Err(RpcError::Refused(refusal)) if refusal.kind == RefusalKind::NotThere => Ok(None),
            found => found.map_err(|failure| failure.at(height)),
        }
    }

    fn independent_endpoints(&self) -> usize {
        self.readers()
    }

    async fn cross_check(&self, at: &BlockRef) -> CrossCheckResult {
        self.cross_check_block(at).await
    }

    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError> {
        self.read_blocks(from, to, watched).await
    }

    async fn balances(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        self.read_balances(at, asset, addresses).await
    }

    fn internal_transfers(&self) -> InternalTransfers {
        match (&self.native, self.config.trace) {
            (None, _) => InternalTransfers::None,
            (Some(_), Trace::None) => InternalTransfers::ByBalance,
            (Some(_), Trace::Debug | Trace::Parity) if self.sight().degraded(Instant::now()) => {
                InternalTransfers::ByBalance
            }
            (Some(_), Trace::Debug | Trace::Parity) => InternalTransfers::Included,
        }
    }

    fn requests(&self) -> u64 {
        self.pool.requests()
    }

    async fn check(&self) -> Vec<EndpointReport> {
        let mut reports = Vec::new();
        for endpoint in 0..self.pool.endpoints().len() {
            reports.push((self.pool.label(endpoint), self.report(endpoint).await));
        }
        let best = reports.iter().filter_map(|(_, report)| report.as_ref().ok()).map(|(height, _)| *height).max();
        let lag = |height: Height| best.map_or(0, |best| best - height);
        let in_words = |(height, text)| match lag(height) {
            0 => text,
            behind => format!("{text}, {behind} blocks behind the best"),
        };
        let report =
            |(endpoint, report): (String, Result<_, _>)| EndpointReport { endpoint, outcome: report.map(in_words) };
        reports.into_iter().map(report).collect()
    }
}
