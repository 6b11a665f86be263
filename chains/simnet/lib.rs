//! Model chains behind the chain contract: the demo, test mode and the simulator run on them.
//!
//! Addresses and keys are real, everything else is a model: a block is what somebody said should be mined, at the time
//! that was said. Nothing here reads a clock, and the same seed with the same calls makes the same hashes. Operators
//! and buyers act through [`Simnet`]; settled reads and broadcasts through [`Source`] and [`Sender`].

pub mod address;
mod buyers;
pub mod conformance;
pub mod fault;
mod journal;
mod ledger;
mod model;
mod node;
mod pool;
pub mod spec;
pub mod tx;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use chain::{
    Address, AddressKey, Amount, AssetId, AssetKind, BlockRef, BroadcastOutcome, ChainId, Family, InternalTransfers,
    Sender, Source, Tip, TxId, derive,
};
use model::Model;
use node::Node;
use rand::Rng as _;

pub use fault::Fault;
pub use journal::OpenError;
pub use model::{KEPT_BLOCKS, Keep, TxStatus};
pub use spec::{ChainSpec, Finality};

use crate::tx::{Move, OutPoint};

/// A set of model chains. Clones are the same chains.
///
/// Only [`Simnet::pay`] and its kin, [`Simnet::source`] and [`Simnet::sender`] expect unknown chains.
///
/// # Panics
/// Everything else panics when the chain is not one of those that the set was made of.
#[derive(Clone, Debug)]
pub struct Simnet {
    nodes: Arc<BTreeMap<ChainId, Arc<Node>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    #[error("there is no model chain {0}")]
    UnknownChain(ChainId),
    #[error("{0} is not listed")]
    UnknownAsset(AssetId),
    #[error(transparent)]
    BadAddress(#[from] address::BadAddress),
    #[error("no buyer has that much")]
    InsufficientFunds,
    #[error("the family has no such payment")]
    Unsupported,
    #[error("the node refuses it: {0}")]
    Refused(String),
}

impl Simnet {
    /// Chains that are gone with the last clone.
    pub fn in_memory(specs: Vec<ChainSpec>, seed: u64, genesis_time: i64) -> Simnet {
        let node = |spec: ChainSpec| (spec.chain.clone(), Node::new(Model::new(spec, seed, genesis_time)));
        Simnet { nodes: Arc::new(specs.into_iter().map(node).collect()) }
    }

    /// Chains that are kept in a folder, one file each, begun at `genesis_time` (unix seconds) when it is not there
    /// yet. What waits in a pool is not kept. One process at a time.
    pub fn open(folder: &Path, specs: Vec<ChainSpec>, genesis_time: i64) -> Result<Simnet, OpenError> {
        let mut nodes = BTreeMap::new();
        for spec in specs {
            let seed = rand::rng().next_u64();
            nodes.insert(spec.chain.clone(), Node::new(journal::open(folder, spec, seed, genesis_time)?));
        }
        Ok(Simnet { nodes: Arc::new(nodes) })
    }

    pub fn source(&self, chain: &ChainId) -> Option<Arc<dyn Source>> {
        Some(self.nodes.get(chain)?.clone())
    }

    pub fn sender(&self, chain: &ChainId) -> Option<Arc<dyn Sender>> {
        Some(self.nodes.get(chain)?.clone())
    }

    pub fn chains(&self) -> Vec<ChainId> {
        self.nodes.keys().cloned().collect()
    }

    /// A buyer pays. The payment waits until a block is mined.
    pub fn pay(&self, chain: &ChainId, asset: &AssetId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        self.pay_many(chain, vec![(asset.clone(), to.to_owned(), amount)])
    }

    /// Several movements in one transaction. On account-based chains the first native one is the transaction's value,
    /// further ones are internal, as a distributing contract makes them.
    pub fn pay_many(&self, chain: &ChainId, payments: Vec<(AssetId, String, Amount)>) -> Result<TxId, PayError> {
        self.payment(chain, payments, Manner::Plain)
    }

    /// The native coin, sent by a contract inside a transaction.
    pub fn pay_internal(&self, chain: &ChainId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        self.payment(chain, vec![(native(chain), to.to_owned(), amount)], Manner::Internal)
    }

    /// A payment that is mined and reverts: it moves nothing.
    pub fn pay_failing(&self, chain: &ChainId, asset: &AssetId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        self.payment(chain, vec![(asset.clone(), to.to_owned(), amount)], Manner::Failing)
    }

    /// A transfer of nothing, as address poisoning uses it.
    pub fn zero_value(&self, chain: &ChainId, asset: &AssetId, to: &str) -> Result<TxId, PayError> {
        self.pay(chain, asset, to, Amount::ZERO)
    }

    /// A transfer of a token that nobody listed, whatever it calls itself.
    pub fn fake_token(&self, chain: &ChainId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        let account = AddressKey([0xfa; 20]);
        let contract = match self.family(chain)? {
            Family::Bitcoin => return Err(PayError::Unsupported),
            Family::Evm => derive::evm_address(account).text,
            Family::Tron => derive::tron_address(account).text,
        };
        let fake = AssetId::on_chain(chain, &AssetKind::Token { contract });
        self.payment(chain, vec![(fake, to.to_owned(), amount)], Manner::Unlisted)
    }

    /// Mines `blocks` blocks; the first takes what waits. `time` is the last one's, in unix seconds; those before it
    /// are a second apart, and none is older than its parent. Returns the head.
    pub fn mine(&self, chain: &ChainId, blocks: u64, time: i64) -> BlockRef {
        self.model(chain).mine(blocks, time)
    }

    /// Replaces the last `depth` blocks by `depth + 1` new ones, the first of which takes what waits. Never passes the
    /// oldest kept block. `time` as in [`Simnet::mine`]. Returns the head.
    pub fn reorg(&self, chain: &ChainId, depth: u64, then: Keep, time: i64) -> BlockRef {
        self.model(chain).reorg(depth, then, time)
    }

    /// Switches a fault on or off; a fault replaces another one of its kind.
    pub fn set_fault(&self, chain: &ChainId, fault: Fault, on: bool) {
        self.model(chain).faults.set(fault, on);
    }

    /// The next `calls` calls of source and sender fail as if nobody answered.
    pub fn fail_next(&self, chain: &ChainId, calls: u64) {
        self.model(chain).faults.fail_next = calls;
    }

    /// Whether native coins that contracts send are left out of blocks and show in balances only.
    pub fn internals_by_balance(&self, chain: &ChainId, on: bool) {
        let mut model = self.model(chain);
        model.internal_transfers = match (model.spec.family, on) {
            (Family::Bitcoin, _) => InternalTransfers::None,
            (Family::Evm | Family::Tron, true) => InternalTransfers::ByBalance,
            (Family::Evm | Family::Tron, false) => InternalTransfers::Included,
        };
    }

    /// The true tip, whatever faults say.
    pub fn head(&self, chain: &ChainId) -> Tip {
        self.model(chain).tip()
    }

    /// What an address has after the head; zero for a text that is no address.
    pub fn balance(&self, chain: &ChainId, asset: &AssetId, address: &str) -> Amount {
        let model = self.model(chain);
        let account = address::parse(model.spec.family, address);
        account.map_or(Amount::ZERO, |account| model.balance_at(model.head().height, asset, account.key))
    }

    /// All that exists of an asset: the same after every block.
    pub fn supply(&self, chain: &ChainId, asset: &AssetId) -> Amount {
        self.model(chain).ledger.supply(asset)
    }

    /// `None` for transactions that the chain never had, lost, or forgot with their block.
    pub fn transaction(&self, chain: &ChainId, txid: TxId) -> Option<TxStatus> {
        self.model(chain).status(txid)
    }

    /// The number of the next transaction of an account, after those that wait.
    pub fn next_nonce(&self, chain: &ChainId, account: AddressKey) -> u64 {
        self.model(chain).ledger.next_nonce(account)
    }

    /// The coins that an address can spend, with the outputs of what waits.
    pub fn coins(&self, chain: &ChainId, owner: AddressKey) -> Vec<(OutPoint, Amount)> {
        self.model(chain).ledger.coins_of(owner).collect()
    }

    /// What waits for a block, in the order in which it will be taken.
    pub fn mempool(&self, chain: &ChainId) -> Vec<TxId> {
        self.model(chain).pool.txids().collect()
    }

    pub fn drop_mempool(&self, chain: &ChainId) {
        self.model(chain).drop_pool();
    }

    /// While held, blocks stay empty and everything waits.
    pub fn hold_mempool(&self, chain: &ChainId, hold: bool) {
        self.model(chain).pool.held = hold;
    }

    fn payment(
        &self,
        chain: &ChainId,
        payments: Vec<(AssetId, String, Amount)>,
        manner: Manner,
    ) -> Result<TxId, PayError> {
        let family = self.family(chain)?;
        if family == Family::Bitcoin && matches!(manner, Manner::Internal | Manner::Failing) {
            return Err(PayError::Unsupported);
        }
        let mut model = self.model(chain);
        let mut moves = Vec::new();
        for (asset, to, amount) in payments {
            let to: Address = address::parse(family, &to)?;
            if manner != Manner::Unlisted && !model.ledger.rules.endowment.contains_key(&asset) {
                return Err(PayError::UnknownAsset(asset));
            }
            moves.push(Move { asset, to, amount, internal: manner == Manner::Internal });
        }
        let Model { buyers, ledger, .. } = &mut *model;
        let tx = buyers.pay(ledger, moves, manner == Manner::Failing).ok_or(PayError::InsufficientFunds)?;
        match model.broadcast(tx.raw().as_bytes()) {
            BroadcastOutcome::Accepted | BroadcastOutcome::AlreadyKnown => Ok(tx.txid),
            BroadcastOutcome::Refused(reason) | BroadcastOutcome::Unknown(reason) => Err(PayError::Refused(reason)),
        }
    }

    fn family(&self, chain: &ChainId) -> Result<Family, PayError> {
        let node = self.nodes.get(chain).ok_or_else(|| PayError::UnknownChain(chain.clone()))?;
        Ok(node.model().spec.family)
    }

    fn model(&self, chain: &ChainId) -> std::sync::MutexGuard<'_, Model> {
        self.nodes.get(chain).expect("the chain is one of those that the set was made of").model()
    }
}

fn native(chain: &ChainId) -> AssetId {
    AssetId::on_chain(chain, &AssetKind::Native)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Plain,
    Internal,
    Failing,
    Unlisted,
}
