//! Implements [`Source`] for TRON: reads blocks and headers from the endpoints. Every transaction of a block is
//! compared with its receipt.
//!
//! A gateway distributes requests over several nodes, and a node that is behind answers `{}` or `[]` for a block that
//! it does not have. So an empty answer is accepted only when the block's own transaction root is empty.

use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use chain::{
    Address, Amount, AssetKind, Block, BlockRef, Header, Height, Identity, InternalTransfers, Source, SourceError, Tip,
    Transfer, UnconfirmedTransfer, WatchSet,
    source::{Corroboration, CrossCheckResult, EndpointReport},
};
use futures_util::{StreamExt, stream};
use rpc::{AdaptiveSize, BlockOrigins, ChainCheck, Pool, Rejection, Request, RpcError, Target, Verdict};
use serde_json::json;
use tracing::info;

use crate::{
    block::{self, ParsedBlock},
    config::{BuildError, TronConfig},
    endpoint_check::build_genesis_request,
    http_api::{self, ApiView, serialize_body},
    transfers::TrackedAssets,
    unsolidified_blocks::UnsolidifiedBlocks,
};

/// The maximum number of concurrent requests for receipts.
const CONCURRENCY: usize = 3;
/// The number of blocks that the first request for a range asks for. A full block is about half a megabyte.
const RANGE_START: u64 = 20;
/// The maximum number of blocks that one request asks for. java-tron has the same limit.
const RANGE_MAX: u64 = 100;

/// The driver of one TRON chain, with one or more endpoints.
pub struct Tron {
    pub(crate) config: TronConfig,
    pub(crate) pool: Pool,
    /// TRX and the tokens whose transfers are reported.
    pub(crate) assets: TrackedAssets,
    /// The number of blocks that the next request for a range asks for.
    range_size: Mutex<AdaptiveSize>,
    /// For each view, a counter that selects the endpoint of the next request for the newest block, so that the
    /// endpoints take turns.
    next_endpoint: [AtomicUsize; 2],
    /// The height of the newest solidified block that an endpoint returned; 0 before the first answer.
    pub(crate) solid_height: AtomicU64,
    /// The height up to which the follower has stored all blocks.
    pub(crate) stored_height: AtomicU64,
    pub(crate) unsolidified_blocks: tokio::sync::Mutex<UnsolidifiedBlocks>,
    /// The endpoints that returned solidified blocks and their receipts.
    block_origins: Mutex<BlockOrigins>,
}

impl Tron {
    /// Builds the endpoint pool and returns the driver. The pool uses an endpoint only if its genesis block has the
    /// configured chain id.
    ///
    /// # Errors
    ///
    /// Fails when an asset belongs to another chain, when a token contract is not a TRON address, or when the
    /// configuration of the endpoint pool is invalid.
    pub fn from_config(config: TronConfig) -> Result<Tron, BuildError> {
        if let Some(foreign) = config.assets.iter().find(|asset| asset.chain != config.chain) {
            return Err(BuildError::ForeignAsset(foreign.id.clone(), config.chain));
        }
        let (path, request) = build_genesis_request();
        let expected = const_hex::encode(config.chain_id.to_be_bytes());
        let chain_check = ChainCheck::expect_field_ending(Request::http_post(&path, request), "blockID", &expected)
            .with_error_finder(|reply| http_api::parse_json_or_node_error::<serde::de::IgnoredAny>(reply).err());
        Ok(Tron {
            pool: Pool::new(rpc::Config { chain_check: Some(chain_check), ..config.pool.clone() })?,
            assets: TrackedAssets::from_assets(&config.assets)?,
            range_size: Mutex::new(AdaptiveSize::new(RANGE_START, RANGE_MAX)),
            next_endpoint: Default::default(),
            solid_height: AtomicU64::new(0),
            stored_height: AtomicU64::new(0),
            unsolidified_blocks: tokio::sync::Mutex::default(),
            block_origins: Mutex::default(),
            config,
        })
    }

    /// Returns the newest header of a view. Each call begins with the next endpoint. In the solidified view, the height
    /// is also recorded in the pool as the newest block of the endpoint, and in `solid_height`.
    pub(crate) async fn fetch_and_record_newest_header(&self, view: ApiView) -> Result<Header, SourceError> {
        let next_endpoint = match view {
            ApiView::Solid => &self.next_endpoint[0],
            ApiView::Head => &self.next_endpoint[1],
        };
        let first = next_endpoint.fetch_add(1, Ordering::Relaxed);
        let found = self.fetch_header_or_newest(view, None, Target::From(first)).await;
        let found = found.map_err(|failure| failure.into_source_error(0))?;
        let (endpoint, header) =
            found.ok_or_else(|| SourceError::Unavailable("no endpoint returned its newest block".to_owned()))?;
        if view == ApiView::Solid {
            self.pool.record_head(endpoint, header.height);
            self.solid_height.store(header.height, Ordering::Relaxed);
        }
        Ok(header)
    }

    /// Returns consecutive blocks with their transfers to `watched` addresses. The list begins with the block `from`.
    /// It ends at `to` or before the first block that cannot be fetched; only a failure at the first block is an error.
    pub(crate) async fn fetch_complete_blocks_until_failure(
        &self,
        view: ApiView,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<Block>, SourceError> {
        let blocks = self.fetch_block_range_adaptively(view, from, to, watched).await?;
        let mut complete = stream::iter(
            blocks.into_iter().map(|body| self.complete_block_and_record_receipt_origin(view, body, watched)),
        );
        let mut complete = complete.by_ref().buffered(CONCURRENCY);
        let mut blocks = Vec::new();
        while let Some(block) = complete.next().await {
            match block {
                Ok(block) => blocks.push(block),
                // The blocks before the failed block are complete.
                Err(_) if !blocks.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(blocks)
    }

    /// Returns the header at `height`, or the newest header if `height` is `None`, with the index of the endpoint of
    /// `target` that returned it. Returns `None` when no endpoint has the block.
    pub(crate) async fn fetch_header_or_newest(
        &self,
        view: ApiView,
        height: Option<Height>,
        target: Target,
    ) -> Result<Option<(usize, Header)>, RpcError> {
        let request = match height {
            Some(height) => json!({ "id_or_num": height.to_string(), "detail": false }),
            None => json!({ "detail": false }),
        };
        let accept = |reply: &rpc::Reply<'_>| {
            let header = block::parse_and_verify_header(&http_api::parse_json_or_node_error(reply)?)
                .map_err(Rejection::Invalid)?;
            let Some(header) = header else { return Ok(Verdict::Fallback(None)) };
            match height {
                Some(height) if height != header.height => {
                    Err(Rejection::Invalid(format!("requested block {height}, received block {}", header.height)))
                }
                Some(_) | None => Ok(Verdict::Accept(Some((reply.endpoint, header)))),
            }
        };
        let path = view.api_path("getblock");
        self.pool.send_request(Request::http_post(&path, serialize_body(&request)).with_target(target), accept).await
    }

    /// Returns consecutive blocks that begin with `from`, without receipts. The list may end before `to`, because the
    /// endpoint may have fewer blocks, or because the range was made smaller after a reply that was too large or took
    /// too long.
    async fn fetch_block_range_adaptively(
        &self,
        view: ApiView,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<ParsedBlock>, SourceError> {
        loop {
            let to = to.min(from.saturating_add(self.lock_range_size().size() - 1));
            let used = to.saturating_sub(from) + 1;
            // The node does not return the block `endNum` itself.
            let request = json!({ "startNum": from, "endNum": to.saturating_add(1) });
            let path = view.api_path("getblockbylimitnext");
            let answer = self.pool.send_request(Request::http_post(&path, serialize_body(&request)), |reply| {
                let (native, watched) = (self.assets.native.as_ref(), watched.lock_addresses());
                let blocks = block::parse_blocks_while_linked(
                    &http_api::parse_json_or_node_error(reply)?,
                    from,
                    to,
                    native,
                    &watched,
                )
                .map_err(Rejection::Invalid)?;
                let is_empty = blocks.is_empty();
                let answer = (reply.endpoint, blocks);
                Ok(if is_empty { Verdict::Fallback(answer) } else { Verdict::Accept(answer) })
            });
            match answer.await {
                Ok((_, blocks)) if blocks.is_empty() => return Err(SourceError::BlockNotFound(from)),
                Ok((endpoint, blocks)) => {
                    self.lock_range_size().grow_after_ten_full_size_successes(used);
                    for block in blocks.iter().filter(|_| view == ApiView::Solid) {
                        self.lock_block_origins().record_endpoint(block.header.block_ref(), endpoint);
                    }
                    return Ok(blocks);
                }
                Err(failure) => {
                    let smaller = self.lock_range_size().shrink_if_too_large_or_timed_out(used, &failure);
                    // After a timeout, no time is left for a second request. The caller repeats the call later, and the
                    // range is then smaller.
                    if !smaller || !matches!(failure, RpcError::TooLarge(_)) {
                        return Err(failure.into_source_error(from));
                    }
                    info!(chain = %self.config.chain, "the answer for a range of {used} blocks is too large; requesting fewer: {failure}");
                }
            }
        }
    }

    /// Locks the record of the endpoints that returned solidified blocks and their receipts.
    pub(crate) fn lock_block_origins(&self) -> MutexGuard<'_, BlockOrigins> {
        self.block_origins.lock().expect("the lock is never poisoned: no code panics while holding it")
    }

    /// Locks the number of blocks that one request asks for.
    fn lock_range_size(&self) -> MutexGuard<'_, AdaptiveSize> {
        self.range_size.lock().expect("the lock is never poisoned: no code panics while holding it")
    }
}

#[async_trait]
impl Source for Tron {
    /// Returns the chain id in decimal.
    async fn identity(&self) -> Result<Identity, SourceError> {
        self.fetch_identity_checking_endpoints().await
    }

    async fn decimals(&self, contract: &str) -> Result<u8, SourceError> {
        self.fetch_token_decimals(contract).await
    }

    /// Returns the newest solidified block, which is final.
    async fn tip(&self) -> Result<Tip, SourceError> {
        let head = self.fetch_and_record_newest_header(ApiView::Solid).await?;
        Ok(Tip { head, finalized: Some(head.block_ref()) })
    }

    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError> {
        let found = self.fetch_header_or_newest(ApiView::Solid, Some(height), Target::Any).await;
        Ok(found.map_err(|failure| failure.into_source_error(height))?.map(|(_, header)| header))
    }

    /// Returns true: the id of a block does not commit to its receipts, and the signatures of the block producers are
    /// not verified.
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
        self.stored_height.fetch_max(from.saturating_sub(1), Ordering::Relaxed);
        self.fetch_complete_blocks_until_failure(ApiView::Solid, from, to, watched).await
    }

    async fn balances(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        self.fetch_past_trx_balances(Target::Any, at, asset, addresses).await
    }

    async fn unconfirmed(
        &self,
        watched: &WatchSet,
        _expecting_payment: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        self.refresh_and_list_unconfirmed(watched).await.map(Some)
    }

    /// Internal transfers are included only if the node is configured to save them. The node does not report this
    /// setting; [`Source::check_endpoints`] reminds the operator of it.
    fn internal_transfers(&self) -> InternalTransfers {
        if self.assets.native.is_some() { InternalTransfers::Included } else { InternalTransfers::None }
    }

    fn requests(&self) -> u64 {
        self.pool.requests_sent()
    }

    async fn check_endpoints(&self) -> Vec<EndpointReport> {
        self.report_endpoints().await
    }
}
