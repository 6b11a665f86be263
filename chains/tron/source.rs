//! The reading half: what the rest of settled asks, answered by [`crate::reader`] and the endpoint pool.

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

/// Blocks in one range at first, and at most; java-tron gives 100, and a full block has half a megabyte.
const SPAN: (u64, u64) = (20, 100);

#[derive(Debug, Clone)]
pub struct TronConfig {
    pub chain: ChainId,
    /// The last four bytes of the genesis block's id; every endpoint must have that block before it is believed anything.
    pub chain_id: u32,
    /// The coin only if it may be paid with, and the listed tokens.
    pub assets: Vec<Asset>,
    /// Endpoints and their bounds; its `chain_check` is set here. Where the solidified view has a port of its own, an endpoint
    /// finds `walletsolidity` elsewhere.
    pub pool: rpc::Config,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Contract(#[from] BadAddress),
    #[error(transparent)]
    Pool(#[from] rpc::pool::ConfigError),
    /// The asset would be credited for payments on another chain.
    #[error("asset {0} does not belong to chain {1}")]
    ForeignAsset(AssetId, ChainId),
}

/// One TRON chain behind several endpoints.
pub struct Tron {
    pub(crate) config: TronConfig,
    pub(crate) pool: Pool,
    pub(crate) assets: TrackedAssets,
    pub(crate) span: Mutex<AdaptiveSize>,
    /// Every endpoint is asked for its newest block in turn, of each view.
    turns: [AtomicUsize; 2],
    /// The newest solidified block that was heard of last.
    solid: AtomicU64,
    /// Whoever books blocks has stored all up to this one.
    stored: AtomicU64,
    heads: tokio::sync::Mutex<HeadBlocks>,
}

impl Tron {
    pub fn new(config: TronConfig) -> Result<Tron, BuildError> {
        if let Some(foreign) = config.assets.iter().find(|asset| asset.chain != config.chain) {
            return Err(BuildError::ForeignAsset(foreign.id.clone(), config.chain));
        }
        let (path, question) = genesis();
        let expected = const_hex::encode(config.chain_id.to_be_bytes());
        let chain_check = ChainCheck::field_ends_with(Request::post(&path, question), "blockID", &expected)
            .with_errors(|reply| wire::parse_reply::<serde::de::IgnoredAny>(reply).err());
        Ok(Tron {
            pool: Pool::new(rpc::Config { chain_check: Some(chain_check), ..config.pool.clone() })?,
            assets: TrackedAssets::new(&config.assets)?,
            span: Mutex::new(AdaptiveSize::new(SPAN.0, SPAN.1)),
            turns: Default::default(),
            solid: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            heads: tokio::sync::Mutex::new(HeadBlocks::default()),
            config,
        })
    }

    /// The newest block of a view, each endpoint in turn.
    pub(crate) async fn newest(&self, view: ApiView) -> Result<Header, SourceError> {
        let turn = match view {
            ApiView::Solid => &self.turns[0],
            ApiView::Head => &self.turns[1],
        };
        let first = turn.fetch_add(1, Ordering::Relaxed);
        let found = self.read_header(view, None, first).await.map_err(|failure| failure.into_source_error(0))?;
        let (endpoint, header) = found.ok_or_else(|| SourceError::Unavailable("no endpoint has a block".to_owned()))?;
        if view == ApiView::Solid {
            self.pool.record_head(endpoint, header.height);
            self.solid.store(header.height, Ordering::Relaxed);
        }
        Ok(header)
    }

    /// Where one endpoint stands, and in words what it is.
    async fn report(&self, endpoint: usize) -> Result<(Height, String), String> {
        let asked_at = Instant::now();
        let (path, question) = genesis();
        let id = self
            .pool
            .send(Request::post(&path, question).to(Target::Probe(endpoint)), genesis_in)
            .await
            .map_err(|e| e.to_string())?;
        let latency = asked_at.elapsed().as_millis();
        if id != self.config.chain_id {
            return Err(format!("is a node of chain {id:#x}, not of {:#x}", self.config.chain_id));
        }
        let newest = |view: ApiView| async move {
            let accept = |reply: &rpc::Reply<'_>| {
                let header = block::parse_header(&wire::parse_reply(reply)?).map_err(Rejection::Invalid)?;
                header.map(Verdict::Accept).ok_or_else(|| Rejection::Invalid("no newest block".to_owned()))
            };
            let question = body(&json!({ "detail": false }));
            let found = self
                .pool
                .send(Request::post(&view.path("getblock"), question).to(Target::Probe(endpoint)), accept)
                .await;
            found.map_err(|failure| format!("{view:?} view: {failure}"))
        };
        let (solid, head) = (newest(ApiView::Solid).await?, newest(ApiView::Head).await?);
        self.pool.record_head(endpoint, solid.height);
        if let Some(contract) = self.assets.any_token() {
            let path = ApiView::Solid.path("triggerconstantcontract");
            let accept = |reply: &rpc::Reply<'_>| decimals_in(reply, &contract);
            let asked = self
                .pool
                .send(Request::post(&path, decimals_of(contract.key)).to(Target::Probe(endpoint)), accept)
                .await;
            asked.map_err(|failure| match matches!(failure, RpcError::MethodMissing(_)) {
                true => "calls no contracts: the node must run with vm.supportConstant = true".to_owned(),
                false => failure.to_string(),
            })?;
        }
        let lag = head.height.saturating_sub(solid.height);
        let text = format!(
            "chain {}, solidified {}, head {lag} blocks above it, {latency} ms; TRX that contracts send is seen only if \
             the node runs with vm.saveInternalTx = true",
            self.config.chain_id, solid.height
        );
        Ok((solid.height, text))
    }
}

#[async_trait]
impl Source for Tron {
    /// The chain id in decimal. Fails if any endpoint that answers belongs to another chain.
    async fn identity(&self) -> Result<Identity, SourceError> {
        let mut troubles = Vec::new();
        let mut heard = false;
        for endpoint in 0..self.pool.endpoints().len() {
            let (path, question) = genesis();
            match self.pool.send(Request::post(&path, question).to(Target::Only(endpoint)), genesis_in).await {
                Ok(id) if id == self.config.chain_id => heard = true,
                Ok(id) => {
                    let (label, expected) = (self.pool.label(endpoint), self.config.chain_id);
                    return Err(SourceError::InvalidResponse(format!(
                        "{label} is a node of chain {id:#x}, not of {expected:#x}"
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
        let contract = address::parse(contract).map_err(|bad| SourceError::Unsupported(bad.to_string()))?;
        let path = ApiView::Solid.path("triggerconstantcontract");
        let question = decimals_of(contract.key);
        let answer = self.pool.send(Request::post(&path, question), |reply| decimals_in(reply, &contract));
        answer.await.map_err(|failure| failure.into_source_error(0))
    }

    /// The newest solidified block, which is final: no block that is read here can vanish.
    async fn tip(&self) -> Result<Tip, SourceError> {
        let head = self.newest(ApiView::Solid).await?;
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

    /// TRX only, from nodes that keep the history of balances (`storage.balance.history.lookup`). Such a node names the
    /// block in which the balance changed last (java-tron, `Wallet.getAccountBalance`). Nothing in the very block that was
    /// asked for is also what it says of accounts that it does not know, and what nodes without a history say of all.
    async fn balances(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        if *asset != AssetKind::Native {
            return Err(SourceError::Unsupported("the balance of a token after a past block".to_owned()));
        }
        let path = ApiView::Head.path("getaccountbalance");
        let mut balances = Vec::with_capacity(addresses.len());
        for of in addresses {
            let question = json!({
                "account_identifier": { "address": address::to_hex(of.key) },
                "block_identifier": { "hash": at.hash.to_string(), "number": at.height },
            });
            let answer = self.pool.send(Request::post(&path, body(&question)), |reply| {
                let past: wire::PastBalance<'_> = wire::parse_reply(reply)?;
                Ok(balance_at(at, &past))
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

    /// What stands in blocks that are not solidified.
    async fn unconfirmed(
        &self,
        watched: &WatchSet,
        _awaited: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        let mut heads = self.heads.lock().await;
        // Whoever books blocks has just asked for it.
        let solid = match self.solid.load(Ordering::Relaxed) {
            0 => self.newest(ApiView::Solid).await?.height,
            heard => heard,
        };
        let head = self.newest(ApiView::Head).await?;
        let far = head.height.saturating_sub(u64::try_from(KEEP_MAX).unwrap_or(u64::MAX));
        let above = solid.max(far);
        // A fork is noticed when what was read does not fit; then all of it is read again, once.
        for _ in 0..2 {
            while let Some((from, to)) = heads.missing(above, &head) {
                let blocks = match self.read_blocks(ApiView::Head, from, to, watched).await {
                    Ok(blocks) => blocks,
                    // Another node of the same gateway lacks the rest; what is remembered is true all the same.
                    Err(_) if !heads.is_empty() => break,
                    Err(error) => return Err(error),
                };
                let read_to = blocks.last().map(|block| block.header.height);
                if !heads.extend(blocks) || read_to == Some(to) {
                    break;
                }
            }
        }
        if heads.is_empty() && head.height > above {
            return Err(SourceError::Unavailable("the head changed while it was read".to_owned()));
        }
        // What was not stored yet stays on its way, whatever nodes think of it.
        heads.forget(solid.min(self.stored.load(Ordering::Relaxed)));
        Ok(Some(heads.unconfirmed()))
    }

    /// Where nodes save them; [`Source::check`] tells the operator.
    fn internal_transfers(&self) -> InternalTransfers {
        if self.assets.native.is_some() { InternalTransfers::Included } else { InternalTransfers::None }
    }

    fn requests(&self) -> u64 {
        self.pool.requests_sent()
    }

    async fn check_endpoints(&self) -> Vec<EndpointReport> {
        let mut reports = Vec::new();
        for endpoint in 0..self.pool.endpoints().len() {
            let outcome = self.report(endpoint).await.map(|(_, text)| text);
            reports.push(EndpointReport { endpoint: self.pool.label(endpoint), outcome });
        }
        reports
    }
}

/// The JSON of a question.
pub(crate) fn body(question: &Value) -> Vec<u8> {
    question.to_string().into_bytes()
}

/// Where the genesis block is asked for, and how.
fn genesis() -> (String, Vec<u8>) {
    (ApiView::Solid.path("getblockbynum"), body(&json!({ "num": 0 })))
}

/// The last four bytes of its id.
fn genesis_in(reply: &rpc::Reply<'_>) -> Result<Verdict<u32>, Rejection> {
    let block: wire::Block<'_> = wire::parse_reply(reply)?;
    let id =
        block.id.and_then(block::parse_bytes32).ok_or_else(|| Rejection::Invalid("no genesis block".to_owned()))?;
    Ok(Verdict::Accept(u32::from_be_bytes([id[28], id[29], id[30], id[31]])))
}

/// A call of a token's `decimals()`, by nobody.
fn decimals_of(contract: chain::AddressKey) -> Vec<u8> {
    body(&json!({
        "owner_address": address::to_hex(chain::AddressKey([0; 20])),
        "contract_address": address::to_hex(contract),
        "data": const_hex::encode(abi::decimals()),
    }))
}

fn decimals_in(reply: &rpc::Reply<'_>, contract: &Address) -> Result<Verdict<u8>, Rejection> {
    let said = wire::parse_constant_call(reply)?;
    let word = said.constant_result.first().and_then(|word| abi::amount_in(word));
    let decimals = word.and_then(|word| u8::try_from(word.units()).ok());
    decimals.map(Verdict::Accept).ok_or_else(|| Rejection::Invalid(format!("{contract} is no token with decimals")))
}

/// What a node's answer says of a balance after the block `at`; `None`: nothing.
fn balance_at(at: &BlockRef, past: &wire::PastBalance<'_>) -> Verdict<Option<Amount>> {
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
