//! A node of a model chain: implements [`Source`] and [`Sender`], with which the daemon reads the chain and broadcasts
//! to it.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use chain::{
    Address, Amount, AssetId, AssetKind, Block, BlockHash, BlockRef, BroadcastOutcome, Family, Header, Height,
    Identity, InternalTransfers, Sender, Source, SourceError, Tip, Transfer, UnconfirmedTransfer, WatchSet,
    source::{Corroboration, CrossCheckResult, EndpointReport},
};

use crate::{fault::NodeFault, model_chain::ModelChain, transfers::TransferFilter};

/// The maximum number of blocks that one request returns.
const BLOCKS_MAX: u64 = 500;

/// The node of one model chain.
#[derive(Debug)]
pub struct ModelNode {
    model: Mutex<ModelChain>,
    requests: AtomicU64,
}

impl ModelNode {
    /// Returns a node of this chain that has received no requests.
    pub fn new(model: ModelChain) -> Arc<ModelNode> {
        Arc::new(ModelNode { model: Mutex::new(model), requests: AtomicU64::new(0) })
    }

    /// Locks and returns the model chain of the node.
    pub fn lock_model(&self) -> MutexGuard<'_, ModelChain> {
        self.model.lock().expect("no thread panics while it holds the lock")
    }

    /// Counts a request, then locks and returns the model chain. Fails when a block could not be stored, or when a
    /// fault that affects all requests is on.
    fn count_request_and_lock_unless_failing(&self) -> Result<MutexGuard<'_, ModelChain>, SourceError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut model = self.lock_model();
        if let Some(reason) = &model.storage_error {
            return Err(SourceError::Unavailable(reason.clone()));
        }
        if model.faults.fail_next > 0 {
            model.faults.fail_next -= 1;
            return Err(SourceError::Unavailable("the test makes this request fail".into()));
        }
        if model.faults.is_on(NodeFault::Unavailable) {
            return Err(SourceError::Unavailable("the model chain is switched off".into()));
        }
        Ok(model)
    }
}

/// Returns the newest block that the node reports. With [`NodeFault::Stale`], it is behind the chain.
fn find_reported_head(model: &ModelChain) -> Header {
    let height = model.head().height.saturating_sub(model.faults.count_lag_blocks()).max(model.oldest_height());
    model.find_block(height).expect("the height is between those of the oldest kept block and the head").header
}

#[async_trait]
impl Source for ModelNode {
    async fn identity(&self) -> Result<Identity, SourceError> {
        let model = self.count_request_and_lock_unless_failing()?;
        let genesis = if model.faults.is_on(NodeFault::OtherChain) { BlockHash([0xee; 32]) } else { model.genesis };
        Ok(Identity { id: genesis.to_string() })
    }

    async fn decimals(&self, contract: &str) -> Result<u8, SourceError> {
        let model = self.count_request_and_lock_unless_failing()?;
        let is_contract = |kind: &AssetKind| matches!(kind, AssetKind::Token { contract: c } if c == contract);
        let asset = model.spec.assets.iter().find(|asset| is_contract(&asset.kind));
        let decimals = asset.map(|asset| asset.decimals);
        let decimals = decimals.ok_or_else(|| SourceError::Unsupported(format!("no token contract at {contract}")))?;
        Ok(if model.faults.is_on(NodeFault::WrongDecimals) { decimals.saturating_add(1) } else { decimals })
    }

    async fn tip(&self) -> Result<Tip, SourceError> {
        let model = self.count_request_and_lock_unless_failing()?;
        let head = find_reported_head(&model);
        let finalized = model.find_finalized_block(head.height);
        let halved = model.faults.is_on(NodeFault::FinalityRegresses);
        let finalized =
            finalized.and_then(|mark| if halved { model.find_block_ref(mark.height / 2) } else { Some(mark) });
        Ok(Tip { head, finalized })
    }

    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError> {
        let model = self.count_request_and_lock_unless_failing()?;
        if height > find_reported_head(&model).height {
            return Ok(None);
        }
        model.find_block(height).map(|block| Some(block.header)).ok_or_else(|| pruned_block_error(height))
    }

    fn needs_second_source(&self) -> bool {
        self.lock_model().needs_second_source()
    }

    /// Returns 2 on EVM and TRON, where the model has a second endpoint unless a fault removes it. Returns 1 on
    /// Bitcoin.
    fn independent_provider_count(&self) -> usize {
        let model = self.lock_model();
        if model.needs_second_source() && !model.faults.is_on(NodeFault::SingleEndpoint) { 2 } else { 1 }
    }

    async fn confirm(&self, block: &BlockRef, transfers: &[Transfer]) -> Vec<Corroboration> {
        let model = self.lock_model();
        if model.needs_second_source() {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        model.corroborate_transfers(block, transfers)
    }

    async fn cross_check(&self, at: &BlockRef) -> CrossCheckResult {
        self.lock_model().cross_check_block(at)
    }

    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError> {
        let model = self.count_request_and_lock_unless_failing()?;
        let head = find_reported_head(&model).height.saturating_sub(model.faults.count_withheld_blocks());
        if from > head || from > to || model.faults.is_on(NodeFault::MissingBlocks) {
            return Err(SourceError::BlockNotFound(from));
        }
        let addresses = watched.lock_addresses();
        let filter = TransferFilter { watched: &addresses, internal_transfers: model.internal_transfers };
        let last = to.min(head).min(from.saturating_add(BLOCKS_MAX - 1));
        let mut blocks = Vec::new();
        for height in from..=last {
            let block = model.find_block(height).ok_or_else(|| pruned_block_error(height))?;
            let hidden = block.txs.is_empty() || model.faults.is_on(NodeFault::HideTransfers);
            let mut transfers = if hidden { Vec::new() } else { model.list_watched_transfers(&block.txs, filter) };
            let invented = model.list_invented_transfers(height).filter(|transfer| addresses.contains(&transfer.to));
            transfers.extend(invented.cloned());
            blocks.push(Block { header: block.header, transfers, spends: Vec::new() });
        }
        if model.faults.is_on(NodeFault::WrongParent) {
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
        let model = self.count_request_and_lock_unless_failing()?;
        if model.faults.is_on(NodeFault::NoBalances) {
            return Err(SourceError::Unavailable("no endpoint returns balances".into()));
        }
        if at.height > find_reported_head(&model).height {
            return Err(SourceError::BlockNotFound(at.height));
        }
        let block = model.find_block(at.height).ok_or_else(|| pruned_block_error(at.height))?;
        if block.header.hash != at.hash {
            return Err(SourceError::BlockNotFound(at.height));
        }
        let asset = AssetId::on_chain(&model.spec.chain, asset);
        Ok(addresses.iter().map(|address| model.first_endpoint_balance_at(at.height, &asset, address.key)).collect())
    }

    /// Returns the unconfirmed transfers on Bitcoin, and `None` on the other families.
    async fn unconfirmed(
        &self,
        watched: &WatchSet,
        _expecting_payment: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        let model = self.count_request_and_lock_unless_failing()?;
        let addresses = watched.lock_addresses();
        let filter = TransferFilter { watched: &addresses, internal_transfers: model.internal_transfers };
        Ok((model.spec.family == Family::Bitcoin).then(|| model.list_watched_unconfirmed_transfers(filter)))
    }

    fn internal_transfers(&self) -> InternalTransfers {
        self.lock_model().internal_transfers
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    async fn check_endpoints(&self) -> Vec<EndpointReport> {
        let outcome = self
            .count_request_and_lock_unless_failing()
            .map(|model| format!("model chain, block {}", find_reported_head(&model).height));
        vec![EndpointReport { endpoint: "simnet".into(), outcome: outcome.map_err(|e| e.to_string()) }]
    }
}

/// Returns the error for a block that the chain no longer keeps.
fn pruned_block_error(height: Height) -> SourceError {
    SourceError::Unsupported(format!("block {height} is older than the kept blocks"))
}

#[async_trait]
impl Sender for ModelNode {
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome {
        let mut model = match self.count_request_and_lock_unless_failing() {
            Ok(model) => model,
            Err(e) => return BroadcastOutcome::Unknown(e.to_string()),
        };
        if model.faults.is_on(NodeFault::RejectBroadcast) {
            return BroadcastOutcome::Rejected("this node rejects all transactions".into());
        }
        if model.faults.is_on(NodeFault::BroadcastLost) {
            return BroadcastOutcome::Accepted;
        }
        let outcome = model.verify_and_add_to_mempool(raw);
        if model.faults.is_on(NodeFault::AnswerLost) {
            BroadcastOutcome::Unknown("the answer was lost".into())
        } else {
            outcome
        }
    }
}
