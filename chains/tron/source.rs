//! Implements [`Source`] for TRON with [`crate::reader`] and the endpoint pool.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use chain::{
    Address, Amount, Asset, AssetId, AssetKind, Block, BlockRef, ChainId, Header, Height, Identity, InternalTransfers,
    Source, SourceError, Tip, UnconfirmedTransfer, WatchSet, source::EndpointReport,
};
use rpc::{AdaptiveSize, ChainCheck, Pool, Rejection, Request, RpcError, Target, Verdict};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    abi,
    address::{self, BadAddress},
    block,
    heads::{HeadBlocks, KEEP_MAX},
    reader::ApiView,
    receipts::TrackedAssets,
    wire,
};

/// The initial number of blocks in a range. A full block takes half a megabyte.
const RANGE_START: u64 = 20;
/// The maximum number of blocks in a range, as in java-tron.
const RANGE_MAX: u64 = 100;

/// The configuration of a TRON chain.
#[derive(Debug, Clone)]
pub struct TronConfig {
    /// The configured name of the chain, to which all assets must belong.
    pub chain: ChainId,
    /// The last four bytes of the genesis block's id. An endpoint is used only after it returned that block.
    pub chain_id: u32,
    /// The accepted assets: listed tokens, and TRX only if it is accepted for payments.
    pub assets: Vec<Asset>,
    /// Endpoints and their limits. [`Tron::new`] replaces its `chain_check`. Where a node serves the solidified view on
    /// another port, the endpoint maps `walletsolidity` to that URL.
    pub pool: rpc::Config,
}

/// The driver cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configured address of a token contract is not a valid TRON address.
    #[error(transparent)]
    Contract(#[from] BadAddress),
    /// The endpoint pool rejects its configuration.
    #[error(transparent)]
    Pool(#[from] rpc::pool::ConfigError),
    /// The asset belongs to another chain.
    #[error("asset {0} does not belong to chain {1}")]
    ForeignAsset(AssetId, ChainId),
}

/// The driver of one TRON chain, with one or more endpoints.
pub struct Tron {
    pub(crate) config: TronConfig,
    pub(crate) pool: Pool,
    pub(crate) assets: TrackedAssets,
    pub(crate) span: Mutex<AdaptiveSize>,
    /// For each view, the endpoint that gets the next request for the newest block. The endpoints take turns.
    next_endpoint: [AtomicUsize; 2],
    /// The height of the newest solidified block that an endpoint returned; 0 before the first answer.
    solid: AtomicU64,
    /// The height up to which the follower has stored all blocks.
    stored: AtomicU64,
    heads: tokio::sync::Mutex<HeadBlocks>,
}

impl Tron {
    /// # Errors
    ///
    /// Fails when an asset belongs to another chain, a token contract is not a TRON address, or the endpoint pool
    /// rejects its configuration.
    pub fn new(config: TronConfig) -> Result<Tron, BuildError> {
        if let Some(foreign) = config.assets.iter().find(|asset| asset.chain != config.chain) {
            return Err(BuildError::ForeignAsset(foreign.id.clone(), config.chain));
        }
        let (path, request) = build_genesis_request();
        let expected = const_hex::encode(config.chain_id.to_be_bytes());
        let chain_check = ChainCheck::expect_field_ending(Request::http_post(&path, request), "blockID", &expected)
            .with_error_finder(|reply| wire::parse_json_reply::<serde::de::IgnoredAny>(reply).err());
        Ok(Tron {
            pool: Pool::new(rpc::Config { chain_check: Some(chain_check), ..config.pool.clone() })?,
            assets: TrackedAssets::new(&config.assets)?,
            span: Mutex::new(AdaptiveSize::new(RANGE_START, RANGE_MAX)),
            next_endpoint: Default::default(),
            solid: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            heads: tokio::sync::Mutex::new(HeadBlocks::default()),
            config,
        })
    }

    /// Returns the newest header of a view. Each call begins with the next endpoint.
    pub(crate) async fn read_newest_header(&self, view: ApiView) -> Result<Header, SourceError> {
        let next_endpoint = match view {
            ApiView::Solid => &self.next_endpoint[0],
            ApiView::Head => &self.next_endpoint[1],
        };
        let first = next_endpoint.fetch_add(1, Ordering::Relaxed);
        let found = self.read_header(view, None, first).await.map_err(|failure| failure.into_source_error(0))?;
        let (endpoint, header) =
            found.ok_or_else(|| SourceError::Unavailable("no endpoint returned its newest block".to_owned()))?;
        if view == ApiView::Solid {
            self.pool.record_head(endpoint, header.height);
            self.solid.store(header.height, Ordering::Relaxed);
        }
        Ok(header)
    }

    /// Checks one endpoint. Returns its solidified height and a description for the operator.
    async fn check_endpoint(&self, endpoint: usize) -> Result<(Height, String), String> {
        let requested_at = Instant::now();
        let (path, request) = build_genesis_request();
        let id = self
            .pool
            .send_request(Request::http_post(&path, request).with_target(Target::Probe(endpoint)), parse_genesis)
            .await
            .map_err(|e| e.to_string())?;
        let latency = requested_at.elapsed().as_millis();
        if id != self.config.chain_id {
            return Err(format!("is a node of chain {id:#x}, not of {:#x}", self.config.chain_id));
        }
        let newest = |view: ApiView| async move {
            let accept = |reply: &rpc::Reply<'_>| {
                let header = block::parse_header(&wire::parse_json_reply(reply)?).map_err(Rejection::Invalid)?;
                header
                    .map(Verdict::Accept)
                    .ok_or_else(|| Rejection::Invalid("the endpoint returned no newest block".to_owned()))
            };
            let request = serialize_body(&json!({ "detail": false }));
            let found = self
                .pool
                .send_request(
                    Request::http_post(&view.api_path("getblock"), request).with_target(Target::Probe(endpoint)),
                    accept,
                )
                .await;
            found.map_err(|failure| format!("{view:?} view: {failure}"))
        };
        let (solid, head) = (newest(ApiView::Solid).await?, newest(ApiView::Head).await?);
        self.pool.record_head(endpoint, solid.height);
        if let Some(contract) = self.assets.find_any_token() {
            let path = ApiView::Solid.api_path("triggerconstantcontract");
            let accept = |reply: &rpc::Reply<'_>| parse_decimals(reply, &contract);
            let simulated = self
                .pool
                .send_request(
                    Request::http_post(&path, build_decimals_request(contract.key))
                        .with_target(Target::Probe(endpoint)),
                    accept,
                )
                .await;
            simulated.map_err(|failure| match matches!(failure, RpcError::MethodMissing(_)) {
                true => "does not simulate contract calls; run the node with vm.supportConstant = true".to_owned(),
                false => failure.to_string(),
            })?;
        }
        let lag = head.height.saturating_sub(solid.height);
        let text = format!(
            "chain {}, solidified {}, head {lag} blocks above it, {latency} ms; payments in TRX that contracts send are \
             found only if the node runs with vm.saveInternalTx = true",
            self.config.chain_id, solid.height
        );
        Ok((solid.height, text))
    }
}

#[async_trait]
impl Source for Tron {
    /// Returns the chain id in decimal. Fails when an endpoint that answers belongs to another chain.
    async fn identity(&self) -> Result<Identity, SourceError> {
        let mut failures = Vec::new();
        let mut confirmed = false;
        for endpoint in 0..self.pool.endpoints().len() {
            let (path, request) = build_genesis_request();
            match self
                .pool
                .send_request(Request::http_post(&path, request).with_target(Target::Only(endpoint)), parse_genesis)
                .await
            {
                Ok(id) if id == self.config.chain_id => confirmed = true,
                Ok(id) => {
                    let (label, expected) = (self.pool.endpoint_label(endpoint), self.config.chain_id);
                    return Err(SourceError::InvalidResponse(format!(
                        "{label} is a node of chain {id:#x}, not of {expected:#x}"
                    )));
                }
                Err(failure) => failures.push(format!("{}: {failure}", self.pool.endpoint_label(endpoint))),
            }
        }
        if confirmed {
            Ok(Identity { id: self.config.chain_id.to_string() })
        } else {
            Err(SourceError::Unavailable(failures.join("; ")))
        }
    }

    async fn decimals(&self, contract: &str) -> Result<u8, SourceError> {
        let contract =
            address::parse_tron_address(contract).map_err(|bad| SourceError::Unsupported(bad.to_string()))?;
        let path = ApiView::Solid.api_path("triggerconstantcontract");
        let request = build_decimals_request(contract.key);
        let answer =
            self.pool.send_request(Request::http_post(&path, request), |reply| parse_decimals(reply, &contract));
        answer.await.map_err(|failure| failure.into_source_error(0))
    }

    /// Returns the newest solidified block, which is final.
    async fn tip(&self) -> Result<Tip, SourceError> {
        let head = self.read_newest_header(ApiView::Solid).await?;
        Ok(Tip { head, finalized: Some(head.block_ref()) })
    }

    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError> {
        let found = self.read_header(ApiView::Solid, Some(height), 0).await;
        Ok(found.map_err(|failure| failure.into_source_error(height))?.map(|(_, header)| header))
    }

    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError> {
        self.stored.fetch_max(from.saturating_sub(1), Ordering::Relaxed);
        self.read_blocks(ApiView::Solid, from, to, watched).await
    }

    /// Returns past balances of TRX, from nodes that keep the history of balances (`storage.balance.history.lookup`).
    /// Such a node returns the block in which the balance changed last (java-tron: `Wallet.getAccountBalance`). A
    /// balance of 0 that changed in the requested block proves nothing: nodes return it for unknown accounts too, and
    /// nodes without the history return it for all accounts.
    async fn balances(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        if *asset != AssetKind::Native {
            return Err(SourceError::Unsupported("the balance of a token after a past block".to_owned()));
        }
        let path = ApiView::Head.api_path("getaccountbalance");
        let mut balances = Vec::with_capacity(addresses.len());
        for address in addresses {
            let request = json!({
                "account_identifier": { "address": address::to_prefixed_hex(address.key) },
                "block_identifier": { "hash": at.hash.to_string(), "number": at.height },
            });
            let answer = self.pool.send_request(Request::http_post(&path, serialize_body(&request)), |reply| {
                let past: wire::PastBalance<'_> = wire::parse_json_reply(reply)?;
                Ok(verify_past_balance(at, &past))
            });
            let unsupported = || SourceError::Unsupported("past balances".to_owned());
            match answer.await {
                Ok(balance) => balances.push(balance.ok_or_else(unsupported)?),
                Err(RpcError::NodeError(_) | RpcError::MethodMissing(_)) => return Err(unsupported()),
                Err(failure) => return Err(failure.into_source_error(at.height)),
            }
        }
        Ok(balances)
    }

    /// Returns the transfers in blocks that are not solidified, or not stored by the follower yet.
    async fn unconfirmed(
        &self,
        watched: &WatchSet,
        _awaited: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        let mut heads = self.heads.lock().await;
        // The follower requests the solidified height shortly before, so it is not requested again here.
        let solid = match self.solid.load(Ordering::Relaxed) {
            0 => self.read_newest_header(ApiView::Solid).await?.height,
            height => height,
        };
        let head = self.read_newest_header(ApiView::Head).await?;
        let lowest_kept = head.height.saturating_sub(u64::try_from(KEEP_MAX).unwrap_or(u64::MAX));
        let above = solid.max(lowest_kept);
        // If the new blocks do not follow the cached blocks, the chain has forked, so all head blocks are read again
        // once.
        for _ in 0..2 {
            while let Some((from, to)) = heads.find_missing_range(above, &head) {
                let blocks = match self.read_blocks(ApiView::Head, from, to, watched).await {
                    Ok(blocks) => blocks,
                    // The gateway may have used a node that lacks the newer blocks. The cached blocks are still valid.
                    Err(_) if !heads.is_empty() => break,
                    Err(error) => return Err(error),
                };
                let read_to = blocks.last().map(|block| block.header.height);
                if !heads.extend_blocks(blocks) || read_to == Some(to) {
                    break;
                }
            }
        }
        if heads.is_empty() && head.height > above {
            return Err(SourceError::Unavailable("the head changed while its blocks were read".to_owned()));
        }
        // A transfer stays unconfirmed until the follower has stored its block, even if the block is solidified.
        heads.remove_blocks_up_to(solid.min(self.stored.load(Ordering::Relaxed)));
        Ok(Some(heads.list_unconfirmed_transfers()))
    }

    /// Internal transfers are included only if the node saves them. The node does not report its setting;
    /// [`Source::check_endpoints`] reminds the operator of it.
    fn internal_transfers(&self) -> InternalTransfers {
        if self.assets.native.is_some() { InternalTransfers::Included } else { InternalTransfers::None }
    }

    fn requests(&self) -> u64 {
        self.pool.requests_sent()
    }

    async fn check_endpoints(&self) -> Vec<EndpointReport> {
        let mut reports = Vec::new();
        for endpoint in 0..self.pool.endpoints().len() {
            let outcome = self.check_endpoint(endpoint).await.map(|(_, text)| text);
            reports.push(EndpointReport { endpoint: self.pool.endpoint_label(endpoint), outcome });
        }
        reports
    }
}

/// Serialises a request body.
pub(crate) fn serialize_body(request: &Value) -> Vec<u8> {
    request.to_string().into_bytes()
}

/// Returns the path and the body of a request for the genesis block.
fn build_genesis_request() -> (String, Vec<u8>) {
    (ApiView::Solid.api_path("getblockbynum"), serialize_body(&json!({ "num": 0 })))
}

/// Parses the genesis block and returns the chain id, which is the last four bytes of the block's id.
fn parse_genesis(reply: &rpc::Reply<'_>) -> Result<Verdict<u32>, Rejection> {
    let block: wire::Block<'_> = wire::parse_json_reply(reply)?;
    let id = block
        .id
        .and_then(block::parse_bytes32)
        .ok_or_else(|| Rejection::Invalid("the endpoint returned no genesis block".to_owned()))?;
    Ok(Verdict::Accept(u32::from_be_bytes([id[28], id[29], id[30], id[31]])))
}

/// Returns the body of a request that calls a token's `decimals()` from the zero address.
fn build_decimals_request(contract: chain::AddressKey) -> Vec<u8> {
    serialize_body(&json!({
        "owner_address": address::to_prefixed_hex(chain::AddressKey([0; 20])),
        "contract_address": address::to_prefixed_hex(contract),
        "data": const_hex::encode(abi::encode_decimals_call()),
    }))
}

fn parse_decimals(reply: &rpc::Reply<'_>, contract: &Address) -> Result<Verdict<u8>, Rejection> {
    let call = wire::parse_constant_call(reply)?;
    let word = call.constant_result.first().and_then(|word| abi::parse_amount_word(word));
    let decimals = word.and_then(|word| u8::try_from(word.units()).ok());
    decimals
        .map(Verdict::Accept)
        .ok_or_else(|| Rejection::Invalid(format!("the contract {contract} does not return its decimals")))
}

/// Verifies that a node's reply is about block `at` and returns the balance after that block; `None` when the reply
/// does not contain the balance.
fn verify_past_balance(at: &BlockRef, past: &wire::PastBalance<'_>) -> Verdict<Option<Amount>> {
    let (Some(changed), Ok(sun)) = (&past.block_identifier, u64::try_from(past.balance)) else {
        return Verdict::Fallback(None);
    };
    let amount = Some(Amount::from(sun));
    match u64::try_from(changed.number) {
        Ok(height) if height < at.height => Verdict::Accept(amount),
        Ok(height) if height == at.height && block::parse_bytes32(changed.hash) == Some(at.hash.0) => {
            if sun > 0 {
                Verdict::Accept(amount)
            } else {
                Verdict::Fallback(amount)
            }
        }
        Ok(_) | Err(_) => Verdict::Fallback(None),
    }
}
