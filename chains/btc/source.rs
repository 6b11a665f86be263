//! Implements [`Source`] for Bitcoin: reads blocks and headers from the operator's node or from Esplora servers, and
//! verifies them.

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use bitcoin::{BlockHash, block::Header as RawHeader};
use chain::{
    Address, Amount, AssetKind, Block, BlockRef, Header, Height, Identity, InternalTransfers, Source, SourceError, Tip,
    UnconfirmedTransfer, WatchSet, source::EndpointReport,
};
use futures_util::{StreamExt, stream};
use rpc::{ChainCheck, Pool, Rejection, Request, RpcError};
use tracing::debug;

use crate::{
    bitcoin_core,
    block::{self, ParsedBlock},
    coinbase::requires_coinbase_height,
    config::{Backend, BitcoinConfig, BuildError, Verify, genesis_hash_of},
    esplora, hashes,
    mempool::MempoolIndex,
    proof_of_work,
    recent_blocks::{RecentBlock, RecentBlocks},
};

/// Maximum number of blocks fetched concurrently; each may be eight megabytes of hexadecimal text.
const CONCURRENCY: usize = 3;
/// Maximum number of blocks that one call returns.
const BLOCKS_MAX: u64 = 100;

/// The driver of one Bitcoin network, which reads from several endpoints.
pub struct Bitcoin {
    pub(crate) config: BitcoinConfig,
    pub(crate) pool: Pool,
    /// Counter of requests for the newest block. It selects the endpoint of the next such request, so that the
    /// endpoints take turns.
    head_turn: AtomicUsize,
    /// The hash and the header of the newest block that an endpoint returned; `None` before the first answer.
    head: Mutex<Option<(BlockHash, Header)>>,
    recent_blocks: Mutex<RecentBlocks>,
    pub(crate) mempool: tokio::sync::Mutex<MempoolIndex>,
    /// Time of the last request for the transactions of single addresses; `None` before the first request.
    pub(crate) addresses_looked_up_at: Mutex<Option<Instant>>,
}

impl Bitcoin {
    /// Builds the endpoint pool and returns the driver. With Esplora servers, all checks are switched on, whatever
    /// `config.verify` says.
    ///
    /// # Errors
    /// Fails if the asset is a token, or if the configuration of the endpoint pool is invalid.
    pub fn from_config(config: BitcoinConfig) -> Result<Bitcoin, BuildError> {
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

    pub(crate) fn lock_recent_blocks(&self) -> MutexGuard<'_, RecentBlocks> {
        self.recent_blocks.lock().expect("no panic while recent blocks are locked")
    }

    /// Returns the block hash at each height, or `None` for a height above the node's newest block. If a request fails,
    /// the list ends before that height.
    pub(crate) async fn fetch_block_hashes_until_failure(
        &self,
        heights: &[Height],
    ) -> Result<Vec<Option<BlockHash>>, RpcError> {
        match self.config.backend {
            Backend::Core => bitcoin_core::fetch_block_hashes_until_failure(&self.pool, heights).await,
            Backend::Esplora => esplora::fetch_block_hashes_until_failure(&self.pool, heights).await,
        }
    }

    /// Fetches the header with this hash, and checks its proof of work if the configuration demands it. Returns the
    /// header with the height that the node reports.
    async fn fetch_header_with_configured_checks(&self, hash: BlockHash) -> Result<(Height, RawHeader), SourceError> {
        let (height, header) = match self.config.backend {
            Backend::Core => bitcoin_core::fetch_header_by_hash(&self.pool, hash).await,
            Backend::Esplora => esplora::fetch_header_by_hash(&self.pool, hash).await,
        }
        .map_err(|error| error.into_source_error(0))?;
        if self.config.verify.work {
            proof_of_work::verify_proof_of_work(self.config.network, height, &header)
                .map_err(SourceError::InvalidResponse)?;
        }
        Ok((height, header))
    }

    /// Fetches the block with this hash and makes the configured checks, except the comparison with the parent. If the
    /// block is invalid, the pool sends the request to the next endpoint. Returns the parsed block and its bytes.
    pub(crate) async fn fetch_block_with_configured_checks(
        &self,
        height: Height,
        hash: BlockHash,
        watched: &WatchSet,
    ) -> Result<(ParsedBlock, Vec<u8>), SourceError> {
        let Verify { work, commitments } = self.config.verify;
        let network = self.config.network;
        let parse = |bytes: Vec<u8>| {
            let parsed = block::parse_block_with_optional_root_check(
                &bytes,
                self.config.address_type,
                commitments,
                &watched.lock_addresses(),
            )
            .map_err(|error| Rejection::Invalid(format!("block {hash}: {error}")))?;
            hashes::verify_header_hash(parsed.header, hash)?;
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
            Backend::Core => bitcoin_core::fetch_and_parse_block(&self.pool, hash, parse).await,
            Backend::Esplora => esplora::fetch_and_parse_block(&self.pool, hash, parse).await,
        };
        block.map_err(|error| error.into_source_error(height))
    }

    /// Checks the difficulty of a block against the difficulty of its parent, and fetches the parent if it is not a
    /// recent block.
    async fn verify_difficulty_fetching_parent(&self, height: Height, header: &RawHeader) -> Result<(), SourceError> {
        let network = self.config.network;
        if height == 0 || !self.config.verify.work || !proof_of_work::parent_determines_difficulty(network) {
            return Ok(());
        }
        let recent_parent = self.lock_recent_blocks().find_header_by_hash(header.prev_blockhash);
        let parent = match recent_parent {
            Some(parent) => parent,
            None => self.fetch_header_with_configured_checks(header.prev_blockhash).await?.1,
        };
        proof_of_work::verify_difficulty_against_parent(network, height, header, &parent)
            .map_err(SourceError::InvalidResponse)
    }

    /// Checks the difficulty of a block against its parent, stores the block among the recent blocks, and adds its
    /// outputs to the watched outputs. Returns the block with its spends and transfers, which include the coinbase
    /// outputs of an older block that may be spent from this block on.
    async fn connect_block_and_watch_outputs(
        &self,
        height: Height,
        (parsed, bytes): (ParsedBlock, Vec<u8>),
        watched: &WatchSet,
    ) -> Result<Block, SourceError> {
        self.verify_difficulty_fetching_parent(height, &parsed.header).await?;
        let (hash, header) = (parsed.header.block_hash(), parsed.header);
        self.lock_recent_blocks().push_block_dropping_non_ancestors(RecentBlock {
            hash,
            header,
            coinbase: parsed.coinbase_outputs,
        });
        let mut outputs = self.fetch_newly_matured_outputs(height).await?;
        outputs.retain(|output| watched.contains(&output.to));
        outputs.extend(parsed.outputs);
        outputs.retain(|output| output.sats > 0);
        if !outputs.is_empty() {
            watched.insert_outputs(outputs.iter().map(|output| output.to_outpoint()));
        }
        let spends = block::find_watched_spends(&bytes, &watched.lock_outputs());
        let spends = spends.map_err(|error| SourceError::InvalidResponse(format!("block {hash}: {error}")))?;
        let transfers = outputs.iter().map(|output| output.to_transfer(&self.config.asset.id)).collect();
        Ok(Block { header: block::to_chain_header(&header, height), transfers, spends })
    }
}

#[async_trait]
impl Source for Bitcoin {
    /// Returns the hash of the genesis block.
    async fn identity(&self) -> Result<Identity, SourceError> {
        self.verify_network_of_endpoints().await
    }

    async fn decimals(&self, _contract: &str) -> Result<u8, SourceError> {
        Err(SourceError::Unsupported("Bitcoin has no tokens".to_owned()))
    }

    /// Requests the hash of the newest block, and its header if the hash has changed. `finalized` is `None`, because
    /// Bitcoin declares no block final.
    async fn tip(&self) -> Result<Tip, SourceError> {
        let first = self.head_turn.fetch_add(1, Ordering::Relaxed);
        let (endpoint, hash) = match self.config.backend {
            Backend::Core => bitcoin_core::fetch_head_hash(&self.pool, first).await,
            Backend::Esplora => esplora::fetch_head_hash(&self.pool, first).await,
        }
        .map_err(|error| error.into_source_error(0))?;
        let last = *self.head.lock().expect("no panic while the head is locked");
        let head = match last.filter(|(last_hash, _)| *last_hash == hash) {
            Some((_, head)) => head,
            None => {
                let (height, header) = self.fetch_header_with_configured_checks(hash).await?;
                block::to_chain_header(&header, height)
            }
        };
        *self.head.lock().expect("no panic while the head is locked") = Some((hash, head));
        self.pool.record_head(endpoint, head.height);
        Ok(Tip { head, finalized: None })
    }

    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError> {
        let found =
            self.fetch_block_hashes_until_failure(&[height]).await.map_err(|error| error.into_source_error(height))?;
        let Some(hash) = found.first().copied().flatten() else { return Ok(None) };
        let (reported_height, header) = self.fetch_header_with_configured_checks(hash).await?;
        if reported_height != height {
            return Err(SourceError::InvalidResponse(format!("requested block {height}, got {reported_height}")));
        }
        Ok(Some(block::to_chain_header(&header, height)))
    }

    /// Fetches blocks by hash, so that a reorganisation cannot mix two branches. The list ends before the first block
    /// that does not follow the previous one.
    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError> {
        let heights: Vec<Height> = (from..=to.min(from.saturating_add(BLOCKS_MAX - 1))).collect();
        let hashes =
            self.fetch_block_hashes_until_failure(&heights).await.map_err(|error| error.into_source_error(from))?;
        let known: Vec<_> = heights.into_iter().zip(hashes).map_while(|(height, hash)| Some((height, hash?))).collect();
        let mut requests = Vec::with_capacity(known.len());
        for (height, hash) in known {
            requests
                .push(async move { (height, self.fetch_block_with_configured_checks(height, hash, watched).await) });
        }
        let mut fetched = stream::iter(requests).buffered(CONCURRENCY);
        let mut blocks: Vec<Block> = Vec::new();
        while let Some((height, block)) = fetched.next().await {
            let connected = match block {
                Ok((parsed, _)) if blocks.last().is_some_and(|last| !is_child_block(&parsed, last)) => break,
                Ok(block) => self.connect_block_and_watch_outputs(height, block, watched).await,
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

    /// Always fails, because no Bitcoin node keeps the balances of addresses at past blocks.
    async fn balances(
        &self,
        _at: &BlockRef,
        _asset: &AssetKind,
        _addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        Err(SourceError::Unsupported("balances of addresses".to_owned()))
    }

    async fn unconfirmed(
        &self,
        watched: &WatchSet,
        expecting_payment: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        self.refresh_and_list_unconfirmed(watched, expecting_payment).await
    }

    fn internal_transfers(&self) -> InternalTransfers {
        InternalTransfers::None
    }

    fn requests(&self) -> u64 {
        self.pool.requests_sent()
    }

    async fn check_endpoints(&self) -> Vec<EndpointReport> {
        self.report_endpoints().await
    }
}

/// Returns true if `parent` is the parent of `block`.
fn is_child_block(block: &ParsedBlock, parent: &Block) -> bool {
    parent.header.hash.0 == hashes::to_display_order(block.header.prev_blockhash.to_raw_hash())
}
