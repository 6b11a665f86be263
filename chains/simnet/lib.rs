//! Model chains that implement the chain contract, for the demo, test mode and the simulator.
//!
//! Addresses and keys have the real formats; everything else is a model. A block is mined only when the caller requests
//! it, with the time that the caller gives. This crate reads no clock, and the same seed with the same calls gives the
//! same hashes. Operators and buyers use [`Simnet`]; settled reads and broadcasts through [`Source`] and [`Sender`].

mod model_chain;
mod chain_state;
mod mempool;
pub mod transaction;
mod transfers;
mod buyers;
pub mod address;
pub mod spec;
mod block_file;
mod model_node;
pub mod fault;
mod invention;
mod second_endpoint;
pub mod conformance;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use chain::{
    AddressKey, Amount, AssetId, BlockRef, ChainId, Family, InternalTransfers, OutPoint, Sender, Source, Tip, TxId,
};
use model_chain::ModelChain;
use model_node::ModelNode;
use rand::Rng as _;

pub use block_file::OpenError;
pub use buyers::PayError;
pub use fault::NodeFault;
pub use model_chain::{KEPT_BLOCKS, ReplacedTxs, TxStatus};
pub use spec::{ChainSpec, FinalityMark};

/// A set of model chains. Clones share the chains.
///
/// # Panics
/// All methods with a parameter `chain` panic when the set has no such chain. The exceptions are the payments, which
/// return [`PayError::UnknownChain`], and [`Simnet::source`] and [`Simnet::sender`], which return `None`.
#[derive(Clone, Debug)]
pub struct Simnet {
    nodes: Arc<BTreeMap<ChainId, Arc<ModelNode>>>,
}

impl Simnet {
    /// Returns chains in memory only, which are lost with the last clone of the set. `genesis_time` is in Unix seconds.
    pub fn create_in_memory(specs: Vec<ChainSpec>, seed: u64, genesis_time: i64) -> Simnet {
        let node = |spec: ChainSpec| {
            (spec.chain.clone(), ModelNode::new(ModelChain::with_genesis_block(spec, seed, genesis_time)))
        };
        Simnet { nodes: Arc::new(specs.into_iter().map(node).collect()) }
    }

    /// Opens chains that are stored in a folder, one file each, with their mempools. A chain without a file is created
    /// with the genesis time `genesis_time`, in Unix seconds. Only one process at a time may use the folder.
    ///
    /// # Errors
    /// Fails when a file cannot be read or written, is damaged, or contains another chain.
    pub fn open_or_create(folder: &Path, specs: Vec<ChainSpec>, genesis_time: i64) -> Result<Simnet, OpenError> {
        let mut nodes = BTreeMap::new();
        for spec in specs {
            let seed = rand::rng().next_u64();
            nodes.insert(
                spec.chain.clone(),
                ModelNode::new(block_file::open_or_create_chain(folder, spec, seed, genesis_time)?),
            );
        }
        Ok(Simnet { nodes: Arc::new(nodes) })
    }

    /// Returns the source with which settled reads the chain; `None` when the set has no such chain.
    pub fn source(&self, chain: &ChainId) -> Option<Arc<dyn Source>> {
        Some(self.nodes.get(chain)?.clone())
    }

    /// Returns the sender with which settled broadcasts to the chain; `None` when the set has no such chain.
    pub fn sender(&self, chain: &ChainId) -> Option<Arc<dyn Sender>> {
        Some(self.nodes.get(chain)?.clone())
    }

    /// Returns the names of all chains, in alphabetical order.
    pub fn list_chains(&self) -> Vec<ChainId> {
        self.nodes.keys().cloned().collect()
    }

    /// Mines `blocks` blocks. The first one includes the mempool. `time` is the time of the last block, in unix
    /// seconds; the blocks before it are one second apart, and no block is older than its parent. Returns the newest
    /// block.
    pub fn mine(&self, chain: &ChainId, blocks: u64, time: i64) -> BlockRef {
        self.lock_model(chain).mine_and_store_unless_storage_failed(blocks, time)
    }

    /// Replaces the last `depth` blocks by `depth + 1` new ones, of which the first includes the mempool. `replaced`
    /// decides about the transactions of the replaced blocks. The oldest kept block is never replaced. `time` has the
    /// same meaning as in [`Simnet::mine`]. Returns the newest block.
    pub fn reorg(&self, chain: &ChainId, depth: u64, replaced: ReplacedTxs, time: i64) -> BlockRef {
        self.lock_model(chain).replace_last_blocks_by_longer_branch(depth, replaced, time)
    }

    /// Switches a fault of the chain's node on or off. A fault replaces another one of its kind.
    pub fn set_fault(&self, chain: &ChainId, fault: NodeFault, on: bool) {
        self.lock_model(chain).faults.switch_fault(fault, on);
    }

    /// Makes the next `calls` requests of the source and the sender fail as if the node were unavailable.
    pub fn fail_next_requests(&self, chain: &ChainId, calls: u64) {
        self.lock_model(chain).faults.fail_next = calls;
    }

    /// Hides or shows the transfers by contracts. While they are hidden, blocks do not contain them, and only the
    /// balances show them. Has no effect on Bitcoin.
    pub fn set_internal_transfers_hidden(&self, chain: &ChainId, on: bool) {
        let mut model = self.lock_model(chain);
        model.internal_transfers = match (model.spec.family, on) {
            (Family::Bitcoin, _) => InternalTransfers::None,
            (Family::Evm | Family::Tron, true) => InternalTransfers::ByBalance,
            (Family::Evm | Family::Tron, false) => InternalTransfers::Included,
        };
    }

    /// Returns the real tip of the chain. Faults do not change it.
    pub fn tip(&self, chain: &ChainId) -> Tip {
        self.lock_model(chain).tip()
    }

    /// Returns the balance of an address after the newest block; zero for an invalid address.
    pub fn balance(&self, chain: &ChainId, asset: &AssetId, address: &str) -> Amount {
        let model = self.lock_model(chain);
        let account = address::parse_address(model.spec.family, address);
        account.map_or(Amount::ZERO, |account| model.balance_at(model.head().height, asset, account.key))
    }

    /// Returns the sum of all balances of an asset, which is the same after every block.
    pub fn sum_balances(&self, chain: &ChainId, asset: &AssetId) -> Amount {
        self.lock_model(chain).state.sum_balances(asset)
    }

    /// Finds a transaction in the mempool or in a kept block. Returns `None` for one that was never broadcast, was
    /// dropped, or is in an older block.
    pub fn find_transaction_status(&self, chain: &ChainId, txid: TxId) -> Option<TxStatus> {
        self.lock_model(chain).find_transaction_status(txid)
    }

    /// Returns the next nonce of an account, after the transactions in the mempool.
    pub fn next_nonce(&self, chain: &ChainId, account: AddressKey) -> u64 {
        self.lock_model(chain).state.next_nonce(account)
    }

    /// Returns the coins that an account can spend with their amounts, including outputs of transactions in the
    /// mempool.
    pub fn list_coins(&self, chain: &ChainId, owner: AddressKey) -> Vec<(OutPoint, Amount)> {
        self.lock_model(chain).state.list_coins(owner).collect()
    }

    /// Returns the ids of the transactions in the mempool, in the order in which blocks will include them.
    pub fn list_mempool(&self, chain: &ChainId) -> Vec<TxId> {
        self.lock_model(chain).mempool.list_txids().collect()
    }

    /// Drops all transactions in the mempool.
    pub fn drop_mempool(&self, chain: &ChainId) {
        self.lock_model(chain).drop_mempool();
    }

    /// Holds or releases the mempool. While it is held, mined blocks are empty and all transactions stay in the
    /// mempool.
    pub fn set_mempool_held(&self, chain: &ChainId, held: bool) {
        self.lock_model(chain).mempool.held = held;
    }

    fn lock_model(&self, chain: &ChainId) -> std::sync::MutexGuard<'_, ModelChain> {
        self.nodes.get(chain).expect("the set has this chain").lock_model()
    }
}
