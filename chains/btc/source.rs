//! The reading half: what the rest of settled asks, answered by a node of one's own or by Esplora, proven alike.

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
use rpc::{ChainCheck, Pool, Rejection, Request, RpcError};
use tracing::debug;

use crate::{
    block::{self, Body, Hit},
    core, esplora,
    fees::FeeRate,
    memory::{Known, Memory},
    pool::MempoolIndex,
    work,
};

/// Blocks under way at once: each may be eight megabytes of hexadecimal text.
const CONCURRENT: usize = 3;
/// Most blocks of one answer.
const BLOCKS_MAX: u64 = 100;
/// A coinbase may be spent by the block after this many (its own counted): until then it counts for nothing.
const MATURITY: usize = 100;
/// Waiting transactions that are fetched for one answer.
const LOOKS_MAX: (usize, usize) = (20_000, 200);
/// A public server whose mempool is longer would be asked for every transaction of the world: it is asked for addresses.
const PUBLIC_POOL_MAX: usize = 5_000;
/// From here on every coinbase of mainnet names its height (BIP34).
const MAINNET_NAMES_HEIGHTS: Height = 227_931;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nodes of one's own, over JSON-RPC.
    Core,
    /// Esplora servers, over HTTP.
    Esplora,
}

/// Which addresses are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    P2wpkh,
    P2tr,
}

/// What is computed again. Only a node of one's own may go without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    /// The work of every header and its difficulty beside its parent's.
    pub work: bool,
    /// The roots of transactions and witnesses.
    pub commitments: bool,
}

impl Verify {
    pub const ALL: Verify = Verify { work: true, commitments: true };
}

#[derive(Debug, Clone)]
pub struct BitcoinConfig {
    pub network: Network,
    /// The coin.
    pub asset: Asset,
    pub access: Access,
    pub kind: Kind,
    pub verify: Verify,
    /// A public server is asked for single addresses at most so often.
    pub address_pause: Duration,
    /// Endpoints and their bounds; its `chain_check` is set here.
    pub pool: rpc::Config,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Pool(#[from] rpc::pool::ConfigError),
    #[error("{0} is no coin of Bitcoin: there are no tokens")]
    NoCoin(chain::AssetId),
}

/// One Bitcoin network behind several endpoints.
pub struct Bitcoin {
    pub(crate) config: BitcoinConfig,
    pub(crate) pool: Pool,
    /// Every endpoint is asked for its head in turn.
    head_turn: AtomicUsize,
    head: Mutex<Option<(BlockHash, Header)>>,
    memory: Mutex<Memory>,
    mempool: tokio::sync::Mutex<MempoolIndex>,
    /// When addresses were asked for.
    asked_at: Mutex<Option<Instant>>,
}

impl Bitcoin {
    pub fn new(config: BitcoinConfig) -> Result<Bitcoin, BuildError> {
        if !config.asset.is_native() {
            return Err(BuildError::NoCoin(config.asset.id));
        }
        let genesis = identity_of(config.network);
        let chain_check = match config.access {
            Access::Core => ChainCheck::result_is(Request::call("getblockhash", &[0]), &genesis),
            Access::Esplora => ChainCheck::body_is(Request::get(esplora::FIRST_BLOCK), &genesis),
        };
        let verify = match config.access {
            Access::Core => config.verify,
            Access::Esplora => Verify::ALL,
        };
        let pool = Pool::new(rpc::Config { chain_check: Some(chain_check), ..config.pool.clone() })?;
        Ok(Bitcoin {
            config: BitcoinConfig { verify, ..config },
            pool,
            head_turn: AtomicUsize::new(0),
            head: Mutex::default(),
            memory: Mutex::default(),
            mempool: tokio::sync::Mutex::default(),
            asked_at: Mutex::default(),
        })
    }

    /// What a transaction should pay to be in one of the next `blocks` blocks, within the bounds of [`crate::fees`]; the
    /// least there is while nobody can say.
    pub async fn fee_rate(&self, blocks: u16) -> Result<FeeRate, SourceError> {
        let said = match self.config.access {
            Access::Core => core::fee_rate(&self.pool, blocks).await,
            Access::Esplora => esplora::fee_rate(&self.pool, blocks).await,
        };
        said.map(|rate| rate.unwrap_or(crate::fees::LEAST).clamped()).map_err(|failure| failure.into_source_error(0))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no panic while the memory is held")
    }

    async fn hashes(&self, heights: &[Height]) -> Result<Vec<Option<BlockHash>>, RpcError> {
        match self.config.access {
            Access::Core => core::hashes(&self.pool, heights).await,
            Access::Esplora => esplora::hashes(&self.pool, heights).await,
        }
    }

    /// A header that hashes to its name and has the work that it claims, where its node puts it.
    async fn placed(&self, hash: BlockHash) -> Result<(Height, RawHeader), SourceError> {
        let (height, header) = match self.config.access {
            Access::Core => core::header(&self.pool, hash).await,
            Access::Esplora => esplora::header(&self.pool, hash).await,
        }
        .map_err(|failure| failure.into_source_error(0))?;
        if self.config.verify.work {
            work::proves_itself(self.config.network, height, &header).map_err(SourceError::InvalidResponse)?;
        }
        Ok((height, header))
    }

    /// A block by its hash, proven as far as it can be without its parent. What an endpoint gets wrong is asked elsewhere.
    /// Comes with its bytes.
    async fn body(&self, height: Height, hash: BlockHash, watched: &WatchSet) -> Result<(Body, Vec<u8>), SourceError> {
        let Verify { work, commitments } = self.config.verify;
        let network = self.config.network;
        let read = |bytes: Vec<u8>| {
            let body = block::read(&bytes, self.config.kind, commitments, &watched.read_addresses())
                .map_err(|wrong| Rejection::Invalid(format!("block {hash}: {wrong}")))?;
            core::proven(body.header, hash)?;
            if work {
                work::proves_itself(network, height, &body.header).map_err(Rejection::Invalid)?;
            }
            if names_heights(network, height) && body.named_height != Some(height) {
                return Err(Rejection::Invalid(format!("block {hash} says that it is another block than {height}")));
            }
            Ok((body, bytes))
        };
        let body = match self.config.access {
            Access::Core => core::block(&self.pool, hash, read).await,
            Access::Esplora => esplora::block(&self.pool, hash, read).await,
        };
        body.map_err(|failure| failure.into_source_error(height))
    }

    /// Holds a block's difficulty against its parent's.
    async fn follows(&self, height: Height, header: &RawHeader) -> Result<(), SourceError> {
        let network = self.config.network;
        if height == 0 || !self.config.verify.work || !work::adjusts(network) {
            return Ok(());
        }
        let remembered = self.memory().header(header.prev_blockhash);
        let parent = match remembered {
            Some(parent) => parent,
            None => self.placed(header.prev_blockhash).await?.1,
        };
        work::may_follow(network, height, header, &parent).map_err(SourceError::InvalidResponse)
    }

    /// What the coinbase paid that may be spent from the block at `height` on, which is the newest in memory.
    async fn matured(&self, height: Height) -> Result<Vec<Hit>, SourceError> {
        let depth = MATURITY - 1;
        if let Some(known) = self.memory().below(depth) {
            return Ok(known.coinbase.clone());
        }
        let Some(mined_at) = height.checked_sub(u64::try_from(depth).expect("99")) else { return Ok(Vec::new()) };
        // After a start only: soon the memory reaches as deep.
        let found = self.hashes(&[mined_at]).await.map_err(|failure| failure.into_source_error(mined_at))?;
        let hash = found.first().copied().flatten().ok_or(SourceError::BlockNotFound(mined_at))?;
        Ok(self.body(mined_at, hash, &WatchSet::default()).await?.0.coinbase)
    }

    /// One block of a page, held against the one before it and remembered.
    async fn take(
        &self,
        height: Height,
        (body, bytes): (Body, Vec<u8>),
        watched: &WatchSet,
    ) -> Result<Block, SourceError> {
        self.follows(height, &body.header).await?;
        let (hash, header) = (body.header.block_hash(), body.header);
        self.memory().extend(Known { hash, header, coinbase: body.coinbase });
        let mut hits = self.matured(height).await?;
        hits.retain(|hit| watched.contains(&hit.to));
        hits.extend(body.hits);
        hits.retain(|hit| hit.sats > 0);
        if !hits.is_empty() {
            watched.insert_outputs(hits.iter().map(Hit::output));
        }
        let spends = block::spends(&bytes, &watched.read_outputs());
        let spends = spends.map_err(|wrong| SourceError::InvalidResponse(format!("block {hash}: {wrong}")))?;
        let transfers = hits.iter().map(|hit| hit.transfer(&self.config.asset.id)).collect();
        Ok(Block { header: block::header(&header, height), transfers, spends })
    }

    async fn fetch(&self, txids: &[TxId]) -> Result<Vec<Option<Vec<u8>>>, SourceError> {
        match self.config.access {
            Access::Core => core::transactions(&self.pool, txids).await,
            Access::Esplora => esplora::transactions(&self.pool, txids).await,
        }
        .map_err(|failure| failure.into_source_error(0))
    }

    /// `None` while addresses were asked for a moment ago.
    async fn waiting_in_public(&self, awaited: &[Address]) -> Result<Option<Vec<TxId>>, RpcError> {
        if esplora::crowd(&self.pool).await? <= u64::try_from(PUBLIC_POOL_MAX).unwrap_or(u64::MAX) {
            let listed = esplora::waiting(&self.pool).await?;
            // Another server may have counted.
            if listed.len() <= PUBLIC_POOL_MAX {
                return Ok(Some(listed));
            }
        }
        if !self.may_ask_for_addresses() {
            return Ok(None);
        }
        esplora::waiting_for(&self.pool, awaited).await.map(Some)
    }

    fn may_ask_for_addresses(&self) -> bool {
        let mut asked_at = self.asked_at.lock().expect("no panic while the time is held");
        let rested = asked_at.is_none_or(|asked_at| asked_at.elapsed() >= self.config.address_pause);
        if rested {
            *asked_at = Some(Instant::now());
        }
        rested
    }

    /// What one endpoint is and offers, in words, and where it stands.
    async fn report(&self, endpoint: usize) -> Result<(Height, String), String> {
        let in_words = |failure: RpcError| failure.to_string();
        let genesis = match self.config.access {
            Access::Core => core::first_block_of(&self.pool, endpoint).await,
            Access::Esplora => esplora::first_block_of(&self.pool, endpoint).await,
        }
        .map_err(in_words)?
        .to_string();
        if genesis != identity_of(self.config.network) {
            return Err(format!("begins with block {genesis}: a node of another network than {}", self.config.network));
        }
        let (height, text) = match self.config.access {
            Access::Core => {
                let standing = core::standing(&self.pool, endpoint).await.map_err(in_words)?;
                let (blocks, headers) = (standing.blocks, standing.headers);
                if standing.initialblockdownload || headers > blocks + 1 {
                    return Err(format!("still syncs: it has block {blocks} of {headers}; wait until it is there"));
                }
                let pruned = match (standing.pruned, standing.pruneheight) {
                    (false, _) => "complete".to_owned(),
                    (true, kept) => format!(
                        "pruned below block {}: a longer downtime cannot be caught up",
                        kept.unwrap_or_default()
                    ),
                };
                (blocks, format!("Bitcoin Core, {}, head {blocks}, {pruned}", standing.chain))
            }
            Access::Esplora => {
                let height = esplora::head_of(&self.pool, endpoint).await.map_err(in_words)?;
                (height, format!("Esplora, head {height}, every block is proven"))
            }
        };
        self.pool.record_head(endpoint, height);
        Ok((height, text))
    }
}

#[async_trait]
impl Source for Bitcoin {
    /// The hash of the first block. Fails if any endpoint that answers belongs to another network.
    async fn identity(&self) -> Result<Identity, SourceError> {
        let expected = identity_of(self.config.network);
        let (mut troubles, mut heard) = (Vec::new(), false);
        for endpoint in 0..self.pool.endpoints().len() {
            let label = self.pool.label(endpoint);
            let said = match self.config.access {
                Access::Core => core::find_first_block(&self.pool, endpoint).await,
                Access::Esplora => esplora::find_first_block(&self.pool, endpoint).await,
            };
            match said.map(|hash| hash.to_string()) {
                Ok(hash) if hash == expected => heard = true,
                Ok(hash) => {
                    return Err(SourceError::InvalidResponse(format!(
                        "{label} begins with block {hash}, not with {expected}"
                    )));
                }
                Err(failure) => troubles.push(format!("{label}: {failure}")),
            }
        }
        if heard { Ok(Identity { id: expected }) } else { Err(SourceError::Unavailable(troubles.join("; "))) }
    }

    async fn decimals(&self, _contract: &str) -> Result<u8, SourceError> {
        Err(SourceError::Unsupported("Bitcoin has no tokens".to_owned()))
    }

    /// One request, and one more when the head moved. Bitcoin marks no block final.
    async fn tip(&self) -> Result<Tip, SourceError> {
        let first = self.head_turn.fetch_add(1, Ordering::Relaxed);
        let (endpoint, hash) = match self.config.access {
            Access::Core => core::head(&self.pool, first).await,
            Access::Esplora => esplora::head(&self.pool, first).await,
        }
        .map_err(|failure| failure.into_source_error(0))?;
        let last = *self.head.lock().expect("no panic while the head is held");
        let head = match last.filter(|(known, _)| *known == hash) {
            Some((_, head)) => head,
            None => {
                let (height, header) = self.placed(hash).await?;
                block::header(&header, height)
            }
        };
        *self.head.lock().expect("no panic while the head is held") = Some((hash, head));
        self.pool.record_head(endpoint, head.height);
        Ok(Tip { head, finalized: None })
    }

    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError> {
        let found = self.hashes(&[height]).await.map_err(|failure| failure.into_source_error(height))?;
        let Some(hash) = found.first().copied().flatten() else { return Ok(None) };
        let (said, header) = self.placed(hash).await?;
        if said != height {
            return Err(SourceError::InvalidResponse(format!("asked for block {height}, got {said}")));
        }
        Ok(Some(block::header(&header, height)))
    }

    /// By hash, so that a reorganisation cannot mix branches: the answer ends where one shows.
    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError> {
        let heights: Vec<Height> = (from..=to.min(from.saturating_add(BLOCKS_MAX - 1))).collect();
        let hashes = self.hashes(&heights).await.map_err(|failure| failure.into_source_error(from))?;
        let there: Vec<_> = heights.into_iter().zip(hashes).map_while(|(height, hash)| Some((height, hash?))).collect();
        let mut asked = Vec::with_capacity(there.len());
        for (height, hash) in there {
            asked.push(async move { (height, self.body(height, hash, watched).await) });
        }
        let mut bodies = stream::iter(asked).buffered(CONCURRENT);
        let mut blocks: Vec<Block> = Vec::new();
        while let Some((height, body)) = bodies.next().await {
            let taken = match body {
                Ok((body, _)) if blocks.last().is_some_and(|last| !continues(last, &body)) => break,
                Ok(body) => self.take(height, body, watched).await,
                Err(error) => Err(error),
            };
            match taken {
                Ok(block) => blocks.push(block),
                Err(error) if blocks.is_empty() => return Err(error),
                Err(error) => {
                    debug!(chain = %self.config.asset.chain, height, "reading stops early: {error}");
                    break;
                }
            }
        }
        if blocks.is_empty() { Err(SourceError::BlockNotFound(from)) } else { Ok(blocks) }
    }

    /// No node keeps them by address and block.
    async fn balances(
        &self,
        _at: &BlockRef,
        _asset: &AssetKind,
        _addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        Err(SourceError::Unsupported("balances of addresses".to_owned()))
    }

    /// Each waiting transaction is fetched once. Until all were mempool at there is an error instead of half an answer.
    async fn unconfirmed(
        &self,
        watched: &WatchSet,
        awaited: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        let (listed, looks_max) = match self.config.access {
            Access::Core => (core::waiting(&self.pool).await.map(Some), LOOKS_MAX.0),
            Access::Esplora => (self.waiting_in_public(awaited).await, LOOKS_MAX.1),
        };
        let Some(listed) = listed.map_err(|failure| failure.into_source_error(0))? else { return Ok(None) };
        let mut mempool = self.mempool.lock().await;
        let new = mempool.compare(&listed);
        let now = &new[..new.len().min(looks_max)];
        let fetched = self.fetch(now).await?;
        let rest = new.len() - fetched.len();
        for (txid, raw) in now.iter().zip(fetched) {
            let Some(raw) = raw else { continue };
            let (hits, replaceable, named) = block::read_tx(&raw, self.config.kind, &watched.read_addresses())
                .map_err(|wrong| SourceError::InvalidResponse(format!("transaction {txid}: {wrong}")))?;
            if named != *txid {
                return Err(SourceError::InvalidResponse(format!("asked for transaction {txid}, got {named}")));
            }
            let unconfirmed = |hit: &Hit| {
                let transfer = hit.transfer(&self.config.asset.id);
                let (part, asset, to, amount) = (transfer.index.part, transfer.asset, transfer.to, transfer.amount);
                UnconfirmedTransfer { txid: *txid, part, asset, to, amount, replaceable }
            };
            mempool.add(*txid, hits.iter().filter(|hit| hit.sats > 0).map(unconfirmed).collect());
        }
        if rest > 0 {
            return Err(SourceError::Unavailable(format!("{rest} waiting transactions are still to be mempool at")));
        }
        Ok(Some(mempool.unconfirmed()))
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
            reports.push((self.pool.label(endpoint), self.report(endpoint).await));
        }
        let best = reports.iter().filter_map(|(_, report)| report.as_ref().ok()).map(|(height, _)| *height).max();
        let in_words = |(height, text): (Height, String)| match best.map_or(0, |best| best - height) {
            0 => text,
            behind => format!("{text}, {behind} blocks behind the best"),
        };
        let report =
            |(endpoint, report): (String, Result<_, _>)| EndpointReport { endpoint, outcome: report.map(in_words) };
        reports.into_iter().map(report).collect()
    }
}

/// The hash of a network's first block, by which all its nodes know it.
fn identity_of(network: Network) -> String {
    genesis_block(network).block_hash().to_string()
}

fn names_heights(network: Network, height: Height) -> bool {
    if network == Network::Bitcoin {
        height >= MAINNET_NAMES_HEIGHTS
    } else {
        // The old testnet began without; nobody reads that far back.
        height > 0 && network != Network::Testnet
    }
}

fn continues(last: &Block, body: &Body) -> bool {
    last.header.hash.0 == block::shown(body.header.prev_blockhash.to_raw_hash())
}
