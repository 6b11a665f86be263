//! Implements [`Source`] for EVM chains, on top of the endpoint pool and the readers of blocks and balances.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use chain::{
    Address, Amount, AssetId, AssetKind, Block, BlockRef, ChainId, Header, Height, Identity, InternalTransfers, Source,
    SourceError, Tip, Transfer, WatchSet,
    source::{Corroboration, CrossCheckResult, EndpointReport},
};
use rpc::{
    AdaptiveSize, BlockOrigins, ChainCheck, NodeErrorKind, Pool, Rejection, Reply, Request, Role, RpcError, Target,
    Verdict,
};
use ruint::aliases::U256;
use serde_json::{json, value::RawValue};
use tokio::time::Instant;

use crate::{
    EvmConfig, FinalitySource, TraceApi,
    balances::BalanceCache,
    block,
    finality::FinalityClaims,
    hex,
    token_contracts::{InvalidContract, TokenContracts},
    trace_health::TraceHealth,
};

/// The initial number of blocks in one `eth_getLogs` request, and the maximum.
const LOG_RANGE_BLOCKS: (u64, u64) = (2_000, 10_000);
/// Selector of `decimals()` (ERC-20).
const DECIMALS_SELECTOR: &str = "0x313ce567";

/// The reason why a driver cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum EvmBuildError {
    /// The configured contract of a token is not an address.
    #[error(transparent)]
    Contract(#[from] InvalidContract),
    /// The configuration of the endpoints cannot be used.
    #[error(transparent)]
    Pool(#[from] rpc::pool::ConfigError),
    /// A configured asset belongs to another chain. If it were accepted, payments on this chain would be credited as
    /// that asset.
    #[error("asset {0} does not belong to chain {1}")]
    ForeignAsset(AssetId, ChainId),
}

/// The driver of one EVM chain, which reads from and broadcasts to several endpoints.
pub struct Evm {
    pub(crate) config: EvmConfig,
    pub(crate) pool: Pool,
    pub(crate) contracts: TokenContracts,
    /// The native coin as an asset, or `None` when buyers cannot pay with it.
    pub(crate) native: Option<AssetId>,
    /// The number of blocks in one `eth_getLogs` request.
    pub(crate) log_range_size: Mutex<AdaptiveSize>,
    /// The height up to which blocks are not expected to change, so that they are read in ranges of up to 100 blocks.
    pub(crate) stable_height: AtomicU64,
    pub(crate) balance_cache: Mutex<BalanceCache>,
    /// True after the warning was logged that the balances of a single endpoint cannot be verified.
    pub(crate) single_endpoint_warned: AtomicBool,
    pub(crate) trace_health: Mutex<TraceHealth>,
    /// The numbers of requests so far, for the newest block and for the final block. Each of these two counters selects
    /// the endpoint of the next request of its kind, so that the endpoints take turns.
    next_head_endpoint: AtomicUsize,
    pub(crate) next_finality_endpoint: AtomicUsize,
    pub(crate) finality_claims: Mutex<FinalityClaims>,
    last_head: Mutex<Option<BlockRef>>,
    pub(crate) block_origins: Mutex<BlockOrigins>,
}

impl Evm {
    /// Builds the driver. Does not connect to any endpoint.
    pub fn from_config(config: EvmConfig) -> Result<Evm, EvmBuildError> {
        if let Some(foreign) = config.assets.iter().find(|asset| asset.chain != config.chain) {
            return Err(EvmBuildError::ForeignAsset(foreign.id.clone(), config.chain));
        }
        let request = Request::json_rpc_call("eth_chainId", &[(); 0]);
        let chain_check = ChainCheck::expect_result(request, &hex::to_quantity(config.chain_id));
        let pool = Pool::new(rpc::Config { chain_check: Some(chain_check), ..config.pool.clone() })?;
        Ok(Evm {
            pool,
            contracts: TokenContracts::from_assets(&config.assets)?,
            native: config.assets.iter().find(|asset| asset.is_native()).map(|asset| asset.id.clone()),
            log_range_size: Mutex::new(AdaptiveSize::new(LOG_RANGE_BLOCKS.0, LOG_RANGE_BLOCKS.1)),
            stable_height: AtomicU64::new(0),
            balance_cache: Mutex::new(BalanceCache::default()),
            single_endpoint_warned: AtomicBool::new(false),
            trace_health: Mutex::new(TraceHealth::default()),
            next_head_endpoint: AtomicUsize::new(0),
            next_finality_endpoint: AtomicUsize::new(0),
            finality_claims: Mutex::new(FinalityClaims::new(config.pool.endpoints.len())),
            last_head: Mutex::new(None),
            block_origins: Mutex::default(),
            config,
        })
    }

    /// Stores `head` as the newest block of the chain. Returns true when the block that was stored before is another
    /// one, or when none was stored.
    fn replace_last_head_and_compare(&self, head: BlockRef) -> bool {
        let mut last = self.last_head.lock().expect("no panic while the last head is locked");
        last.replace(head) != Some(head)
    }

    /// Returns the number of endpoints with the role `read`.
    pub(crate) fn count_read_endpoints(&self) -> usize {
        self.pool.endpoints().filter(|endpoint| endpoint.has_role(Role::Read)).count()
    }
}

#[async_trait]
impl Source for Evm {
    /// Asks every endpoint for its chain id and returns the configured EIP-155 chain id in decimal. Fails when an
    /// endpoint that answers belongs to another chain, or when no endpoint answers.
    async fn identity(&self) -> Result<Identity, SourceError> {
        let mut failures = Vec::new();
        let mut is_confirmed = false;
        for endpoint in 0..self.pool.endpoints().len() {
            let accept = |reply: &Reply<'_>| reply.parse_result::<String>().map(Verdict::Accept);
            match self
                .pool
                .send_request(
                    Request::json_rpc_call("eth_chainId", &json!([])).with_target(Target::Only(endpoint)),
                    accept,
                )
                .await
            {
                Ok(id) if hex::parse_quantity(&id) == Some(self.config.chain_id) => is_confirmed = true,
                Ok(id) => {
                    let label = self.pool.endpoint_label(endpoint);
                    let expected = self.config.chain_id;
                    return Err(SourceError::InvalidResponse(format!(
                        "{label} belongs to chain {id}, not to {expected:#x}"
                    )));
                }
                Err(failure) => failures.push(format!("{}: {failure}", self.pool.endpoint_label(endpoint))),
            }
        }
        if is_confirmed {
            Ok(Identity { id: self.config.chain_id.to_string() })
        } else {
            Err(SourceError::Unavailable(failures.join("; ")))
        }
    }

    async fn decimals(&self, contract: &str) -> Result<u8, SourceError> {
        let params = json!([{ "to": contract, "data": DECIMALS_SELECTOR }, "latest"]);
        let decimals = self.pool.send_request(Request::json_rpc_call("eth_call", &params), |reply| {
            let word: Option<[u8; 32]> = hex::parse_bytes(reply.parse_result::<&str>()?);
            let decimals = word.and_then(|word| u8::try_from(U256::from_be_bytes(word)).ok());
            let decimals = decimals
                .ok_or_else(|| Rejection::Invalid(format!("contract {contract} does not return its decimals")))?;
            Ok(Verdict::Accept(decimals))
        });
        decimals.await.map_err(|failure| match failure {
            // The node executed the call, and the contract refused it.
            RpcError::NodeError(error) if error.kind == NodeErrorKind::Other => {
                SourceError::Unsupported(format!("contract {contract} does not return its decimals: {}", error.message))
            }
            failure @ (RpcError::Unavailable(_)
            | RpcError::Timeout(_)
            | RpcError::MethodMissing(_)
            | RpcError::TooLarge(_)
            | RpcError::NodeError(_)
            | RpcError::Invalid(_)) => failure.into_source_error(0),
        })
    }

    /// Requests the newest block from the next endpoint. If the block differs from the last one and the configuration
    /// uses the tag `finalized`, also requests the finalized block, at most twice.
    async fn tip(&self) -> Result<Tip, SourceError> {
        let first = self.next_head_endpoint.fetch_add(1, Ordering::Relaxed);
        let latest = self.pool.send_request(
            Request::json_rpc_call("eth_getBlockByNumber", &("latest", false)).with_target(Target::From(first)),
            |reply| {
                let block: &RawValue = reply.parse_result()?;
                let (_, header) = block::parse_header_verifying_if_configured(block, self.config.verify)
                    .map_err(Rejection::Invalid)?;
                Ok(Verdict::Accept((reply.endpoint, header)))
            },
        );
        let (endpoint, head) = latest.await.map_err(|failure| failure.into_source_error(0))?;
        self.pool.record_head(endpoint, head.height);
        if self.config.finality == FinalitySource::Tag && self.replace_last_head_and_compare(head.block_ref()) {
            self.request_and_store_next_finality_claim().await;
            let fresh_claims = self.lock_finality_claims().count_fresh_claims(Instant::now());
            if fresh_claims == 1 && self.pool.count_providers_own_node_as_two() > 1 {
                self.request_and_store_next_finality_claim().await;
            }
        }
        let finalized = self.lock_finality_claims().find_second_highest_or_only_claim(Instant::now());
        let deep_height = head.height.saturating_sub(self.config.range_depth);
        self.stable_height
            .store(finalized.map_or(deep_height, |block| block.height.max(deep_height)), Ordering::Relaxed);
        Ok(Tip { head, finalized })
    }

    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError> {
        let params = (hex::to_quantity(height), false);
        let header = self.pool.send_request(Request::json_rpc_call("eth_getBlockByNumber", &params), |reply| {
            let Some(block) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let (_, header) =
                block::parse_header_verifying_if_configured(block, self.config.verify).map_err(Rejection::Invalid)?;
            if header.height == height {
                Ok(Verdict::Accept(Some(header)))
            } else {
                Err(Rejection::Invalid(format!(
                    "block {height} was requested, but block {} was returned",
                    header.height
                )))
            }
        });
        match header.await {
            Err(RpcError::NodeError(node_error)) if node_error.kind == NodeErrorKind::NotFound => Ok(None),
            header => header.map_err(|failure| failure.into_source_error(height)),
        }
    }

    /// Returns true: a header contains no proof of stake or of work, so an endpoint can invent a valid-looking block at
    /// no cost.
    fn needs_second_source(&self) -> bool {
        true
    }

    fn independent_provider_count(&self) -> usize {
        self.pool.count_providers_own_node_as_two()
    }

    async fn confirm(&self, block: &BlockRef, transfers: &[Transfer]) -> Vec<Corroboration> {
        self.ask_other_providers_for_transfers(block, transfers).await
    }

    async fn cross_check(&self, at: &BlockRef) -> CrossCheckResult {
        self.cross_check_block(at).await
    }

    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError> {
        self.fetch_leading_complete_blocks(from, to, watched).await
    }

    async fn balances(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        self.fetch_verified_balances(at, asset, addresses).await
    }

    fn internal_transfers(&self) -> InternalTransfers {
        match (&self.native, self.config.trace) {
            (None, _) => InternalTransfers::None,
            (Some(_), TraceApi::None) => InternalTransfers::ByBalance,
            (Some(_), TraceApi::Debug | TraceApi::Parity)
                if self.lock_trace_health().must_compare_balances(Instant::now()) =>
            {
                InternalTransfers::ByBalance
            }
            (Some(_), TraceApi::Debug | TraceApi::Parity) => InternalTransfers::Included,
        }
    }

    fn requests(&self) -> u64 {
        self.pool.requests_sent()
    }

    async fn check_endpoints(&self) -> Vec<EndpointReport> {
        self.probe_and_describe_endpoints().await
    }
}
