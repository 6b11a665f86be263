//! Implements [`Source`] for Bitcoin: reads blocks, headers and the mempool from the operator's node or from Esplora
//! servers.

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bitcoin::{BlockHash, Network, block::Header as RawHeader, constants::genesis_block};
use chain::{
    Address, Amount, Asset, AssetKind, Block, BlockRef, Header, Height, Identity, InternalTransfers, Source,
    SourceError, Tip, TxId, UnconfirmedTransfer, WatchSet, source::EndpointReport,
};
use futures_util::{StreamExt, stream};
use rpc::{ChainCheck, Pool, Rejection, Request, RpcError, Target};
use tracing::debug;

use crate::{
    block::{self, AddressType, PaidOutput, ParsedBlock},
    core, esplora,
    fees::FeeRate,
    mempool::MempoolIndex,
    proof_of_work,
    recent_blocks::{RecentBlock, RecentBlocks},
};

/// Maximum number of blocks fetched concurrently; each may be eight megabytes of hexadecimal text.
const CONCURRENCY: usize = 3;
/// Maximum number of blocks that one call returns.
const BLOCKS_MAX: u64 = 100;
/// Number of blocks, including the block of the coinbase, after which coinbase outputs may be spent. The driver reports
/// these outputs as transfers only then.
const COINBASE_MATURITY: usize = 100;
/// Maximum number of mempool transactions that one call fetches from the operator's node.
const CORE_FETCHES_MAX: usize = 20_000;
/// Maximum number of mempool transactions that one call fetches from a public server.
const ESPLORA_FETCHES_MAX: usize = 200;
/// Number of mempool transactions up to which the driver fetches the whole mempool from a public server. If the mempool
/// is larger, the driver requests only the transactions of the addresses that expect a payment.
const ESPLORA_MEMPOOL_MAX: usize = 5_000;
/// Height from which every coinbase of mainnet contains the height of its block (BIP34).
const MAINNET_BIP34_FROM: Height = 227_931;

/// The software that answers the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The operator's Bitcoin Core nodes, over JSON-RPC.
    Core,
    /// Public Esplora servers, over HTTP.
    Esplora,
}

/// The checks that the driver makes for each block. The configuration can switch them off only for the operator's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    /// True to check each header's proof of work, and its difficulty against the difficulty of its parent.
    pub work: bool,
    /// True to check the Merkle roots of the transactions and of the witnesses.
    pub commitments: bool,
}

impl Verify {
    /// All checks.
    pub const ALL: Verify = Verify { work: true, commitments: true };
}

/// The configuration of a Bitcoin network.
#[derive(Debug, Clone)]
pub struct BitcoinConfig {
    /// The network, which decides the genesis block and the rules of difficulty.
    pub network: Network,
    /// The coin of the network.
    pub asset: Asset,
    /// The software that all endpoints of the pool run.
    pub backend: Backend,
    /// Type of all addresses that receive payments.
    pub address_type: AddressType,
    /// The checks that the driver makes for each block.
    pub verify: Verify,
    /// Minimum time between two requests for the transactions of single addresses at a public server.
    pub address_pause: Duration,
    /// Endpoints and limits; the driver sets its `chain_check`.
    pub pool: rpc::Config,
}

/// The reason why the driver cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The endpoint pool rejects its configuration.
    #[error(transparent)]
    Pool(#[from] rpc::pool::ConfigError),
    /// The configured asset is not the native coin of the chain.
    #[error("asset {0} is a token, but Bitcoin has no tokens; configure its native coin")]
    TokenAsset(chain::AssetId),
}

/// One Bitcoin network, read from several endpoints.
pub struct Bitcoin {
    pub(crate) config: BitcoinConfig,
    pub(crate) pool: Pool,
    /// Counter of head requests. It selects the endpoint of the next head request, so that the endpoints take turns.
    head_turn: AtomicUsize,
    head: Mutex<Option<(BlockHash, Header)>>,
    recent_blocks: Mutex<RecentBlocks>,
    mempool: tokio::sync::Mutex<MempoolIndex>,
    /// Time of the last request for the transactions of single addresses; `None` before the first request.
    addresses_looked_up_at: Mutex<Option<Instant>>,
}

impl Bitcoin {
    /// # Errors
    /// Fails if the asset is a token, or if the pool cannot be built.
    pub fn new(config: BitcoinConfig) -> Result<Bitcoin, BuildError> {
        if !config.asset.is_native() {
            return Err(BuildError::TokenAsset(config.asset.id));
        }
        let genesis = genesis_hash_of(config.network);
        let chain_check = match config.backend {
            Backend::Core => ChainCheck::expect_result(Request::json_rpc_call("getblockhash", &[0]), &genesis),
            Backend::Esplora => ChainCheck::expect_body(Request::http_get(esplora::GENESIS_HASH_PATH), &genesis),
        };
        let verify = match config.backend {
            Backend::Core => config.verify,
            Backend::Esplora => Verify::ALL,
        };
        let pool = Pool::new(rpc::Config { chain_check: Some(chain_check), ..config.pool.clone() })?;
        Ok(Bitcoin {
            config: BitcoinConfig { verify, ..config },
            pool,
            head_turn: AtomicUsize::new(0),
            head: Mutex::default(),
            recent_blocks: Mutex::default(),
            mempool: tokio::sync::Mutex::default(),
            addresses_looked_up_at: Mutex::default(),
        })
    }

    /// Returns the estimated fee rate for a confirmation within `blocks` blocks, limited to the range from
    /// [`FeeRate::MIN`] to [`FeeRate::MAX`]. Returns [`FeeRate::MIN`] if no endpoint has an estimate.
    ///
    /// # Errors
    /// Returns [`SourceError::Unavailable`] if no endpoint answers.
    pub async fn estimate_bounded_fee_rate(&self, blocks: u16) -> Result<FeeRate, SourceError> {
        let estimate = match self.config.backend {
            Backend::Core => core::estimate_fee_rate(&self.pool, blocks).await,
            Backend::Esplora => esplora::estimate_fee_rate(&self.pool, blocks).await,
        };
        let estimate = estimate.map_err(|error| error.into_source_error(0))?;
        Ok(estimate.unwrap_or(FeeRate::MIN).clamp_to_limits())
    }

    fn lock_recent_blocks(&self) -> MutexGuard<'_, RecentBlocks> {
        self.recent_blocks.lock().expect("no panic while recent blocks are locked")
    }

    async fn fetch_block_hashes(&self, heights: &[Height]) -> Result<Vec<Option<BlockHash>>, RpcError> {
        match self.config.backend {
            Backend::Core => core::fetch_block_hashes(&self.pool, heights).await,
            Backend::Esplora => esplora::fetch_block_hashes(&self.pool, heights).await,
        }
    }

    /// Fetches the header with this hash and checks its proof of work. Returns the header with the height that the node
    /// reports.
    async fn fetch_header(&self, hash: BlockHash) -> Result<(Height, RawHeader), SourceError> {
        let (height, header) = match self.config.backend {
            Backend::Core => core::fetch_header(&self.pool, hash).await,
            Backend::Esplora => esplora::fetch_header(&self.pool, hash).await,
        }
        .map_err(|error| error.into_source_error(0))?;
        if self.config.verify.work {
            proof_of_work::verify_proof_of_work(self.config.network, height, &header)
                .map_err(SourceError::InvalidResponse)?;
        }
        Ok((height, header))
    }

    /// Fetches the block with this hash and makes all checks for which the parent is not needed. If the block is
    /// invalid, the pool sends the request to the next endpoint. Returns the parsed block and its bytes.
    async fn fetch_block(
        &self,
        height: Height,
        hash: BlockHash,
        watched: &WatchSet,
    ) -> Result<(ParsedBlock, Vec<u8>), SourceError> {
        let Verify { work, commitments } = self.config.verify;
        let network = self.config.network;
        let parse = |bytes: Vec<u8>| {
            let parsed = block::parse_block(&bytes, self.config.address_type, commitments, &watched.lock_addresses())
                .map_err(|error| Rejection::Invalid(format!("block {hash}: {error}")))?;
            core::verify_header_hash(parsed.header, hash)?;
            if work {
                proof_of_work::verify_proof_of_work(network, height, &parsed.header).map_err(Rejection::Invalid)?;
            }
            if requires_coinbase_height(network, height) && parsed.coinbase_height != Some(height) {
                return Err(Rejection::Invalid(format!(
                    "the coinbase of block {hash} does not contain height {height}"
                )));
            }
            Ok((parsed, bytes))
        };
        let block = match self.config.backend {
            Backend::Core => core::fetch_block(&self.pool, hash, parse).await,
            Backend::Esplora => esplora::fetch_block(&self.pool, hash, parse).await,
        };
        block.map_err(|error| error.into_source_error(height))
    }

    /// Checks the difficulty of a block against the difficulty of its parent, and fetches the parent if it is not a
    /// recent block.
    async fn verify_difficulty(&self, height: Height, header: &RawHeader) -> Result<(), SourceError> {
        let network = self.config.network;
        if height == 0 || !self.config.verify.work || !proof_of_work::difficulty_follows_parent(network) {
            return Ok(());
        }
        let recent_parent = self.lock_recent_blocks().find_header(header.prev_blockhash);
        let parent = match recent_parent {
            Some(parent) => parent,
            None => self.fetch_header(header.prev_blockhash).await?.1,
        };
        proof_of_work::verify_difficulty(network, height, header, &parent).map_err(SourceError::InvalidResponse)
    }

    /// Returns the coinbase outputs that may be spent in the block at `height + 1` and later. The block at `height`
    /// must be the newest of the recent blocks.
    async fn fetch_matured_outputs(&self, height: Height) -> Result<Vec<PaidOutput>, SourceError> {
        let depth = COINBASE_MATURITY - 1;
        if let Some(block) = self.lock_recent_blocks().find_block_below_tip(depth) {
            return Ok(block.coinbase.clone());
        }
        let Some(mined_at) = height.checked_sub(u64::try_from(depth).expect("99 fits into 64 bits")) else {
            return Ok(Vec::new());
        };
        // The recent blocks do not reach this depth only after a start or a reorganisation.
        let found = self.fetch_block_hashes(&[mined_at]).await.map_err(|error| error.into_source_error(mined_at))?;
        let hash = found.first().copied().flatten().ok_or(SourceError::BlockNotFound(mined_at))?;
        Ok(self.fetch_block(mined_at, hash, &WatchSet::default()).await?.0.coinbase_outputs)
    }

    /// Checks a block against its parent, adds it to the recent blocks, and returns its transfers and spends.
    async fn connect_to_parent(
        &self,
        height: Height,
        (parsed, bytes): (ParsedBlock, Vec<u8>),
        watched: &WatchSet,
    ) -> Result<Block, SourceError> {
        self.verify_difficulty(height, &parsed.header).await?;
        let (hash, header) = (parsed.header.block_hash(), parsed.header);
        self.lock_recent_blocks().push_block(RecentBlock { hash, header, coinbase: parsed.coinbase_outputs });
        let mut outputs = self.fetch_matured_outputs(height).await?;
        outputs.retain(|output| watched.contains(&output.to));
        outputs.extend(parsed.outputs);
        outputs.retain(|output| output.sats > 0);
        if !outputs.is_empty() {
            watched.insert_outputs(outputs.iter().map(PaidOutput::to_outpoint));
        }
        let spends = block::find_spends(&bytes, &watched.lock_outputs());
        let spends = spends.map_err(|error| SourceError::InvalidResponse(format!("block {hash}: {error}")))?;
        let transfers = outputs.iter().map(|output| output.to_transfer(&self.config.asset.id)).collect();
        Ok(Block { header: block::to_chain_header(&header, height), transfers, spends })
    }

    /// Fetches mempool transactions. An item is `None` if the transaction left the mempool. The list is shorter than
    /// `txids` if a request fails.
    async fn fetch_transactions(&self, txids: &[TxId]) -> Result<Vec<Option<Vec<u8>>>, SourceError> {
        match self.config.backend {
            Backend::Core => core::fetch_transactions(&self.pool, txids).await,
            Backend::Esplora => esplora::fetch_transactions(&self.pool, txids).await,
        }
        .map_err(|error| error.into_source_error(0))
    }

    /// Returns the ids of the mempool transactions of a public server. If its mempool is too large, returns only the
    /// transactions of the given addresses, or `None` if addresses were looked up less than `address_pause` ago.
    async fn list_public_mempool_txids(&self, addresses: &[Address]) -> Result<Option<Vec<TxId>>, RpcError> {
        if esplora::count_mempool_transactions(&self.pool).await?
            <= u64::try_from(ESPLORA_MEMPOOL_MAX).unwrap_or(u64::MAX)
        {
            let txids = esplora::list_mempool_txids(&self.pool).await?;
            // The count may come from a different server than the list, so the length of the list is checked too.
            if txids.len() <= ESPLORA_MEMPOOL_MAX {
                return Ok(Some(txids));
            }
        }
        if !self.start_address_lookup_if_due() {
            return Ok(None);
        }
        esplora::list_mempool_txids_by_address(&self.pool, addresses).await.map(Some)
    }

    /// Returns true if `address_pause` has passed since the last request for single addresses, and starts the next
    /// pause.
    fn start_address_lookup_if_due(&self) -> bool {
        let mut last = self.addresses_looked_up_at.lock().expect("no panic while the time is locked");
        let is_due = last.is_none_or(|looked_up_at| looked_up_at.elapsed() >= self.config.address_pause);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    /// Returns the height of one endpoint's newest block and a description of the endpoint.
    async fn report_endpoint(&self, endpoint: usize) -> Result<(Height, String), String> {
        let to_text = |error: RpcError| error.to_string();
        let genesis = match self.config.backend {
            Backend::Core => core::fetch_genesis_hash(&self.pool, Target::Probe(endpoint)).await,
            Backend::Esplora => esplora::fetch_genesis_hash(&self.pool, Target::Probe(endpoint)).await,
        }
        .map_err(to_text)?
        .to_string();
        if genesis != genesis_hash_of(self.config.network) {
            return Err(format!(
                "its genesis block is {genesis}: a node of another network than {}",
                self.config.network
            ));
        }
        let (height, text) = match self.config.backend {
            Backend::Core => {
                let info = core::fetch_chain_info(&self.pool, endpoint).await.map_err(to_text)?;
                let (blocks, headers) = (info.blocks, info.headers);
                if info.initialblockdownload || headers > blocks + 1 {
                    return Err(format!(
                        "still syncs: it has block {blocks} of {headers}; wait until it has all of them"
                    ));
                }
                let pruned = match (info.pruned, info.pruneheight) {
                    (false, _) => "complete".to_owned(),
                    (true, height) => format!(
                        "pruned below block {}: after a downtime longer than that, blocks are missing",
                        height.unwrap_or_default()
                    ),
                };
                (blocks, format!("Bitcoin Core, {}, head {blocks}, {pruned}", info.chain))
            }
            Backend::Esplora => {
                let height = esplora::fetch_head_height(&self.pool, endpoint).await.map_err(to_text)?;
                (height, format!("Esplora, head {height}, every block is verified"))
            }
        };
        self.pool.record_head(endpoint, height);
        Ok((height, text))
    }
}

#[async_trait]
impl Source for Bitcoin {
    /// Returns the hash of the genesis block. Fails if any endpoint that answers belongs to another network.
    async fn identity(&self) -> Result<Identity, SourceError> {
        let expected = genesis_hash_of(self.config.network);
        let (mut failures, mut any_answered) = (Vec::new(), false);
        for endpoint in 0..self.pool.endpoints().len() {
            let label = self.pool.endpoint_label(endpoint);
            let answer = match self.config.backend {
                Backend::Core => core::fetch_genesis_hash(&self.pool, Target::Only(endpoint)).await,
                Backend::Esplora => esplora::fetch_genesis_hash(&self.pool, Target::Only(endpoint)).await,
            };
            match answer.map(|hash| hash.to_string()) {
                Ok(hash) if hash == expected => any_answered = true,
                Ok(hash) => {
                    return Err(SourceError::InvalidResponse(format!(
                        "the genesis block of {label} is {hash}, expected {expected}"
                    )));
                }
                Err(error) => failures.push(format!("{label}: {error}")),
            }
        }
        if any_answered { Ok(Identity { id: expected }) } else { Err(SourceError::Unavailable(failures.join("; "))) }
    }

    async fn decimals(&self, _contract: &str) -> Result<u8, SourceError> {
        Err(SourceError::Unsupported("Bitcoin has no tokens".to_owned()))
    }

    /// Requests the head's hash, and its header if the head has changed. Bitcoin has no final blocks.
    async fn tip(&self) -> Result<Tip, SourceError> {
        let first = self.head_turn.fetch_add(1, Ordering::Relaxed);
        let (endpoint, hash) = match self.config.backend {
            Backend::Core => core::fetch_head_hash(&self.pool, first).await,
            Backend::Esplora => esplora::fetch_head_hash(&self.pool, first).await,
        }
        .map_err(|error| error.into_source_error(0))?;
        let last = *self.head.lock().expect("no panic while the head is locked");
        let head = match last.filter(|(last_hash, _)| *last_hash == hash) {
            Some((_, head)) => head,
            None => {
                let (height, header) = self.fetch_header(hash).await?;
                block::to_chain_header(&header, height)
            }
        };
        *self.head.lock().expect("no panic while the head is locked") = Some((hash, head));
        self.pool.record_head(endpoint, head.height);
        Ok(Tip { head, finalized: None })
    }

    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError> {
        let found = self.fetch_block_hashes(&[height]).await.map_err(|error| error.into_source_error(height))?;
        let Some(hash) = found.first().copied().flatten() else { return Ok(None) };
        let (reported_height, header) = self.fetch_header(hash).await?;
        if reported_height != height {
            return Err(SourceError::InvalidResponse(format!("requested block {height}, got {reported_height}")));
        }
        Ok(Some(block::to_chain_header(&header, height)))
    }

    /// Fetches blocks by hash, so that a reorganisation cannot mix two branches. The list ends before the first block
    /// that does not follow the previous one.
    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError> {
        let heights: Vec<Height> = (from..=to.min(from.saturating_add(BLOCKS_MAX - 1))).collect();
        let hashes = self.fetch_block_hashes(&heights).await.map_err(|error| error.into_source_error(from))?;
        let known: Vec<_> = heights.into_iter().zip(hashes).map_while(|(height, hash)| Some((height, hash?))).collect();
        let mut requests = Vec::with_capacity(known.len());
        for (height, hash) in known {
            requests.push(async move { (height, self.fetch_block(height, hash, watched).await) });
        }
        let mut fetched = stream::iter(requests).buffered(CONCURRENCY);
        let mut blocks: Vec<Block> = Vec::new();
        while let Some((height, block)) = fetched.next().await {
            let connected = match block {
                Ok((parsed, _)) if blocks.last().is_some_and(|last| !is_child_block(&parsed, last)) => break,
                Ok(block) => self.connect_to_parent(height, block, watched).await,
                Err(error) => Err(error),
            };
            match connected {
                Ok(block) => blocks.push(block),
                Err(error) if blocks.is_empty() => return Err(error),
                Err(error) => {
                    debug!(chain = %self.config.asset.chain, height, "the list of blocks ends early: {error}");
                    break;
                }
            }
        }
        if blocks.is_empty() { Err(SourceError::BlockNotFound(from)) } else { Ok(blocks) }
    }

    /// Not supported: no node keeps the balances of addresses at past blocks.
    async fn balances(
        &self,
        _at: &BlockRef,
        _asset: &AssetKind,
        _addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        Err(SourceError::Unsupported("balances of addresses".to_owned()))
    }

    /// Fetches each mempool transaction once. Fails until all transactions are fetched, because the caller treats a
    /// transaction that is missing from the list as dropped.
    async fn unconfirmed(
        &self,
        watched: &WatchSet,
        expecting_payment: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        let (listed, fetches_max) = match self.config.backend {
            Backend::Core => (core::list_mempool_txids(&self.pool).await.map(Some), CORE_FETCHES_MAX),
            Backend::Esplora => (self.list_public_mempool_txids(expecting_payment).await, ESPLORA_FETCHES_MAX),
        };
        let Some(listed) = listed.map_err(|error| error.into_source_error(0))? else { return Ok(None) };
        let mut mempool = self.mempool.lock().await;
        let new = mempool.sync_listed_txids(&listed);
        let requested = &new[..new.len().min(fetches_max)];
        let fetched = self.fetch_transactions(requested).await?;
        let missing = new.len() - fetched.len();
        for (txid, raw) in requested.iter().zip(fetched) {
            let Some(raw) = raw else { continue };
            let (outputs, replaceable, parsed_txid) =
                block::parse_transaction(&raw, self.config.address_type, &watched.lock_addresses())
                    .map_err(|error| SourceError::InvalidResponse(format!("transaction {txid}: {error}")))?;
            if parsed_txid != *txid {
                return Err(SourceError::InvalidResponse(format!("requested transaction {txid}, got {parsed_txid}")));
            }
            let to_unconfirmed = |output: &PaidOutput| {
                let transfer = output.to_transfer(&self.config.asset.id);
                let (part, asset, to, amount) = (transfer.index.part, transfer.asset, transfer.to, transfer.amount);
                UnconfirmedTransfer { txid: *txid, part, asset, to, amount, replaceable }
            };
            mempool
                .add_transaction(*txid, outputs.iter().filter(|output| output.sats > 0).map(to_unconfirmed).collect());
        }
        if missing > 0 {
            return Err(SourceError::Unavailable(format!("{missing} transactions of the mempool are not fetched yet")));
        }
        Ok(Some(mempool.list_unconfirmed_transfers()))
    }

    fn internal_transfers(&self) -> InternalTransfers {
        InternalTransfers::None
    }

    fn requests(&self) -> u64 {
        self.pool.requests_sent()
    }

    async fn check_endpoints(&self) -> Vec<EndpointReport> {
        let mut reports = Vec::new();
        for endpoint in 0..self.pool.endpoints().len() {
            reports.push((self.pool.endpoint_label(endpoint), self.report_endpoint(endpoint).await));
        }
        let best = reports.iter().filter_map(|(_, report)| report.as_ref().ok()).map(|(height, _)| *height).max();
        let describe = |(height, text): (Height, String)| match best.map_or(0, |best| best - height) {
            0 => text,
            lag => format!("{text}, {lag} blocks behind the best"),
        };
        let report =
            |(endpoint, report): (String, Result<_, _>)| EndpointReport { endpoint, outcome: report.map(describe) };
        reports.into_iter().map(report).collect()
    }
}

/// Returns the hash of a network's genesis block, which identifies the network.
fn genesis_hash_of(network: Network) -> String {
    genesis_block(network).block_hash().to_string()
}

/// Returns true if the coinbase of the block at this height must contain the height (BIP34).
fn requires_coinbase_height(network: Network, height: Height) -> bool {
    if network == Network::Bitcoin {
        height >= MAINNET_BIP34_FROM
    } else {
        // Testnet 3 began without BIP34, so its coinbases are not checked.
        height > 0 && network != Network::Testnet
    }
}

fn is_child_block(block: &ParsedBlock, parent: &Block) -> bool {
    parent.header.hash.0 == block::to_display_order(block.header.prev_blockhash.to_raw_hash())
}
