//! Implements the chain contract on a model chain: settled reads the chain and broadcasts to it through this module.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use chain::{
    Address, Amount, AssetId, AssetKind, Block, BlockHash, BlockRef, BroadcastOutcome, Family, Header, Height,
    Identity, InternalTransfers, Sender, Source, SourceError, Tip, UnconfirmedTransfer, WatchSet,
    source::{CrossCheckResult, EndpointReport},
};

use crate::{
    fault::Fault,
    model::{Model, View},
};

/// Maximum number of blocks in one answer.
const PAGE: u64 = 500;

/// One chain, with direct access for its operator and the chain contract for its readers.
#[derive(Debug)]
pub struct Node {
    model: Mutex<Model>,
    requests: AtomicU64,
}

impl Node {
    /// Returns a node of the chain that has received no requests.
    pub fn new(model: Model) -> Arc<Node> {
        Arc::new(Node { model: Mutex::new(model), requests: AtomicU64::new(0) })
    }

    /// Locks and returns the chain.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect("nobody panics while holding a chain")
    }

    /// Counts a request and applies the faults that concern every request. Returns the locked chain.
    fn ask(&self) -> Result<MutexGuard<'_, Model>, SourceError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut model = self.model();
        if let Some(reason) = &model.broken {
            return Err(SourceError::Unavailable(reason.clone()));
        }
        if model.faults.fail_next > 0 {
            model.faults.fail_next -= 1;
            return Err(SourceError::Unavailable("this request was to fail".into()));
        }
        if model.faults.has(Fault::Unavailable) {
            return Err(SourceError::Unavailable("the model chain is switched off".into()));
        }
        Ok(model)
    }
}

/// Returns the head that the node reports, which lags behind with [`Fault::Stale`].
fn head_of(model: &Model) -> Header {
    let height = model.head().height.saturating_sub(model.faults.lag()).max(model.base());
    model.block(height).expect("between the oldest kept block and the head").header
}

#[async_trait]
impl Source for Node {
    async fn identity(&self) -> Result<Identity, SourceError> {
        let model = self.ask()?;
        let genesis = if model.faults.has(Fault::OtherChain) { BlockHash([0xee; 32]) } else { model.genesis };
        Ok(Identity { id: genesis.to_string() })
    }

    async fn decimals(&self, contract: &str) -> Result<u8, SourceError> {
        let model = self.ask()?;
        let is_it = |kind: &AssetKind| matches!(kind, AssetKind::Token { contract: c } if c == contract);
        let asset = model.spec.assets.iter().find(|asset| is_it(&asset.kind));
        let decimals = asset.map(|asset| asset.decimals);
        let decimals = decimals.ok_or_else(|| SourceError::Unsupported(format!("no token contract at {contract}")))?;
        Ok(if model.faults.has(Fault::WrongDecimals) { decimals.saturating_add(1) } else { decimals })
    }

    async fn tip(&self) -> Result<Tip, SourceError> {
        let model = self.ask()?;
        let head = head_of(&model);
        let finalized = model.finalized(head.height);
        let halved = model.faults.has(Fault::GoBack);
        let finalized = finalized.and_then(|mark| if halved { model.position(mark.height / 2) } else { Some(mark) });
        Ok(Tip { head, finalized })
    }

    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError> {
        let model = self.ask()?;
        if height > head_of(&model).height {
            return Ok(None);
        }
        model.block(height).map(|block| Some(block.header)).ok_or_else(|| forgotten(height))
    }

    /// On EVM chains, where a block proves nothing, a second endpoint without faults exists.
    fn independent_endpoints(&self) -> usize {
        if self.model().spec.family == Family::Evm { 2 } else { 1 }
    }

    async fn cross_check(&self, at: &BlockRef) -> CrossCheckResult {
        let (model, endpoint) = (self.model(), "another model node".to_owned());
        if model.faults.has(Fault::Disputed) {
            return CrossCheckResult::Conflicting { endpoint, hash: BlockHash([0xee; 32]) };
        }
        match model.position(at.height) {
            Some(block) if block == *at => CrossCheckResult::Confirmed,
            Some(block) => CrossCheckResult::Conflicting { endpoint, hash: block.hash },
            None if at.height > model.head().height => CrossCheckResult::Behind { endpoint, head: model.head() },
            None => CrossCheckResult::NoAnswer(format!("block {} is forgotten", at.height)),
        }
    }

    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError> {
        let model = self.ask()?;
        let head = head_of(&model).height.saturating_sub(model.faults.withheld());
        if from > head || from > to || model.faults.has(Fault::NotThere) {
            return Err(SourceError::BlockNotFound(from));
        }
        let keys = watched.read_addresses();
        let view = View { watched: &keys, internal_transfers: model.internal_transfers };
        let last = to.min(head).min(from.saturating_add(PAGE - 1));
        let mut blocks = Vec::new();
        for height in from..=last {
            let block = model.block(height).ok_or_else(|| forgotten(height))?;
            let hidden = block.txs.is_empty() || model.faults.has(Fault::HideTransfers);
            let transfers = if hidden { Vec::new() } else { model.transfers(&block.txs, view) };
            blocks.push(Block { header: block.header, transfers, spends: Vec::new() });
        }
        if model.faults.has(Fault::WrongParent) {
            blocks[0].header.parent = BlockHash([0xee; 32]);
        }
        Ok(blocks)
    }

    async fn balances(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        let model = self.ask()?;
        if model.faults.has(Fault::NoBalances) {
            return Err(SourceError::Unavailable("nobody tells balances".into()));
        }
        if at.height > head_of(&model).height {
            return Err(SourceError::BlockNotFound(at.height));
        }
        let block = model.block(at.height).ok_or_else(|| forgotten(at.height))?;
        if block.header.hash != at.hash {
            return Err(SourceError::BlockNotFound(at.height));
        }
        let asset = AssetId::on_chain(&model.spec.chain, asset);
        Ok(addresses.iter().map(|address| model.balance_at(at.height, &asset, address.key)).collect())
    }

    /// Supported on Bitcoin only, where the mempool shows the payments that will probably be mined.
    async fn unconfirmed(
        &self,
        watched: &WatchSet,
        _awaited: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        let model = self.ask()?;
        let keys = watched.read_addresses();
        let view = View { watched: &keys, internal_transfers: model.internal_transfers };
        Ok((model.spec.family == Family::Bitcoin).then(|| model.unconfirmed(view)))
    }

    fn internal_transfers(&self) -> InternalTransfers {
        self.model().internal_transfers
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    async fn check_endpoints(&self) -> Vec<EndpointReport> {
        let outcome = self.ask().map(|model| format!("model chain, block {}", head_of(&model).height));
        vec![EndpointReport { endpoint: "simnet".into(), outcome: outcome.map_err(|e| e.to_string()) }]
    }
}

fn forgotten(height: Height) -> SourceError {
    SourceError::Unsupported(format!("block {height} is older than what is kept"))
}

#[async_trait]
impl Sender for Node {
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome {
        let mut model = match self.ask() {
            Ok(model) => model,
            Err(e) => return BroadcastOutcome::Unknown(e.to_string()),
        };
        if model.faults.has(Fault::RefuseBroadcast) {
            return BroadcastOutcome::Refused("this node takes no transactions".into());
        }
        if model.faults.has(Fault::BroadcastLost) {
            return BroadcastOutcome::Accepted;
        }
        let outcome = model.broadcast(raw);
        if model.faults.has(Fault::AnswerLost) {
            BroadcastOutcome::Unknown("the answer got lost".into())
        } else {
            outcome
        }
    }
}
