//! Model chains that implement the chain contract. The demo, test mode and the simulator use them.
//!
//! Addresses and keys have the real formats; everything else is a model. A block is mined only when a caller requests
//! it, with the time that the caller gives. Nothing here reads a clock, and the same seed with the same calls gives the
//! same hashes. Operators and buyers act through [`Simnet`]; settled reads and broadcasts through [`Source`] and
//! [`Sender`].

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

/// A set of model chains. Clones share the same chains.
///
/// The payments, such as [`Simnet::pay`], return an error for an unknown chain. [`Simnet::source`] and
/// [`Simnet::sender`] return `None`.
///
/// # Panics
/// All other methods with a parameter `chain` panic when the chain is not in the set.
#[derive(Clone, Debug)]
pub struct Simnet {
    nodes: Arc<BTreeMap<ChainId, Arc<Node>>>,
}

/// The reason for which a buyer's payment failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    /// The set has no chain with this name.
    #[error("there is no model chain {0}")]
    UnknownChain(ChainId),
    /// The asset is not listed on the chain.
    #[error("{0} is not listed")]
    UnknownAsset(AssetId),
    /// The recipient is not a valid address of the chain.
    #[error(transparent)]
    BadAddress(#[from] address::BadAddress),
    /// No buyer's wallet has sufficient funds.
    #[error("no buyer has that much")]
    InsufficientFunds,
    /// The chain's family has no payment of this kind.
    #[error("the family has no such payment")]
    Unsupported,
    /// The node refused or lost the transaction, for the given reason.
    #[error("the node refuses it: {0}")]
    Refused(String),
}

impl Simnet {
    /// Returns chains in memory, which are lost with the last clone. `genesis_time` is in unix seconds.
    pub fn in_memory(specs: Vec<ChainSpec>, seed: u64, genesis_time: i64) -> Simnet {
        let node = |spec: ChainSpec| (spec.chain.clone(), Node::new(Model::new(spec, seed, genesis_time)));
        Simnet { nodes: Arc::new(specs.into_iter().map(node).collect()) }
    }

    /// Opens chains that are stored in a folder, one file per chain. A chain without a file starts with a random seed
    /// at `genesis_time`, in unix seconds. Transactions in a mempool are not stored. Only one process may open the
    /// folder at a time.
    ///
    /// # Errors
    /// Fails when a file cannot be read or written, is damaged, or contains another chain.
    pub fn open(folder: &Path, specs: Vec<ChainSpec>, genesis_time: i64) -> Result<Simnet, OpenError> {
        let mut nodes = BTreeMap::new();
        for spec in specs {
            let seed = rand::rng().next_u64();
            nodes.insert(spec.chain.clone(), Node::new(journal::open(folder, spec, seed, genesis_time)?));
        }
        Ok(Simnet { nodes: Arc::new(nodes) })
    }

    /// Returns the source with which settled reads the chain, or `None` when the chain is not in the set.
    pub fn source(&self, chain: &ChainId) -> Option<Arc<dyn Source>> {
        Some(self.nodes.get(chain)?.clone())
    }

    /// Returns the sender with which settled broadcasts to the chain, or `None` when the chain is not in the set.
    pub fn sender(&self, chain: &ChainId) -> Option<Arc<dyn Sender>> {
        Some(self.nodes.get(chain)?.clone())
    }

    /// Returns the names of all chains, in alphabetical order.
    pub fn chains(&self) -> Vec<ChainId> {
        self.nodes.keys().cloned().collect()
    }

    /// Sends a payment from a buyer's wallet. It waits in the mempool until a block is mined.
    pub fn pay(&self, chain: &ChainId, asset: &AssetId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        self.pay_many(chain, vec![(asset.clone(), to.to_owned(), amount)])
    }

    /// Sends several payments in one transaction. On account-based chains the first native payment is the value of the
    /// transaction, and further native payments are internal, as those of a distributing contract.
    pub fn pay_many(&self, chain: &ChainId, payments: Vec<(AssetId, String, Amount)>) -> Result<TxId, PayError> {
        self.payment(chain, payments, Manner::Plain)
    }

    /// Sends the native coin from a contract inside a transaction. Bitcoin does not support this.
    pub fn pay_internal(&self, chain: &ChainId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        self.payment(chain, vec![(native(chain), to.to_owned(), amount)], Manner::Internal)
    }

    /// Sends a payment that is mined and reverts, so it moves nothing. Bitcoin does not support this.
    pub fn pay_failing(&self, chain: &ChainId, asset: &AssetId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        self.payment(chain, vec![(asset.clone(), to.to_owned(), amount)], Manner::Failing)
    }

    /// Sends a transfer of amount zero, as in address poisoning attacks.
    pub fn zero_value(&self, chain: &ChainId, asset: &AssetId, to: &str) -> Result<TxId, PayError> {
        self.pay(chain, asset, to, Amount::ZERO)
    }

    /// Sends a transfer of an unlisted token. Bitcoin does not support this.
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

    /// Mines `blocks` blocks. The first one contains the waiting transactions. `time` is the time of the last block, in
    /// unix seconds; the blocks before it are one second apart, and no block is older than its parent. Returns the
    /// head.
    pub fn mine(&self, chain: &ChainId, blocks: u64, time: i64) -> BlockRef {
        self.model(chain).mine(blocks, time)
    }

    /// Replaces the last `depth` blocks by `depth + 1` new ones, of which the first contains the waiting transactions.
    /// `then` decides about the transactions of the replaced blocks. The oldest kept block is never replaced. `time`
    /// has the same meaning as in [`Simnet::mine`]. Returns the head.
    pub fn reorg(&self, chain: &ChainId, depth: u64, then: Keep, time: i64) -> BlockRef {
        self.model(chain).reorg(depth, then, time)
    }

    /// Switches a fault on or off. A fault replaces another one of its kind.
    pub fn set_fault(&self, chain: &ChainId, fault: Fault, on: bool) {
        self.model(chain).faults.set(fault, on);
    }

    /// Makes the next `calls` calls of source and sender fail as if the node did not answer.
    pub fn fail_next(&self, chain: &ChainId, calls: u64) {
        self.model(chain).faults.fail_next = calls;
    }

    /// With `on`, transfers by contracts are left out of blocks and show only in balances. Has no effect on Bitcoin.
    pub fn internals_by_balance(&self, chain: &ChainId, on: bool) {
        let mut model = self.model(chain);
        model.internal_transfers = match (model.spec.family, on) {
            (Family::Bitcoin, _) => InternalTransfers::None,
            (Family::Evm | Family::Tron, true) => InternalTransfers::ByBalance,
            (Family::Evm | Family::Tron, false) => InternalTransfers::Included,
        };
    }

    /// Returns the true tip, which faults do not change.
    pub fn head(&self, chain: &ChainId) -> Tip {
        self.model(chain).tip()
    }

    /// Returns the balance of an address after the head; zero for an invalid address.
    pub fn balance(&self, chain: &ChainId, asset: &AssetId, address: &str) -> Amount {
        let model = self.model(chain);
        let account = address::parse(model.spec.family, address);
        account.map_or(Amount::ZERO, |account| model.balance_at(model.head().height, asset, account.key))
    }

    /// Returns the sum of all balances of an asset, which is the same after every block.
    pub fn supply(&self, chain: &ChainId, asset: &AssetId) -> Amount {
        self.model(chain).ledger.supply(asset)
    }

    /// Returns the status of a transaction, or `None` for one that was never broadcast, was dropped, or is in a block
    /// older than [`KEPT_BLOCKS`].
    pub fn transaction(&self, chain: &ChainId, txid: TxId) -> Option<TxStatus> {
        self.model(chain).status(txid)
    }

    /// Returns the nonce of an account's next transaction, after the waiting ones.
    pub fn next_nonce(&self, chain: &ChainId, account: AddressKey) -> u64 {
        self.model(chain).ledger.next_nonce(account)
    }

    /// Returns the unspent outputs of an account on Bitcoin with their amounts, including outputs of waiting
    /// transactions.
    pub fn coins(&self, chain: &ChainId, owner: AddressKey) -> Vec<(OutPoint, Amount)> {
        self.model(chain).ledger.coins_of(owner).collect()
    }

    /// Returns the ids of the waiting transactions, in the order in which blocks will contain them.
    pub fn mempool(&self, chain: &ChainId) -> Vec<TxId> {
        self.model(chain).pool.txids().collect()
    }

    /// Drops all transactions that wait for a block.
    pub fn drop_mempool(&self, chain: &ChainId) {
        self.model(chain).drop_pool();
    }

    /// With `hold`, blocks are empty and all transactions wait, until `hold` is switched off.
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
