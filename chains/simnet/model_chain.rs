//! One model chain: its recent blocks, the state after them, and its mempool.
//!
//! The chain changes only when a method is called, and the same calls give the same hashes. The state includes the
//! transactions of the mempool. The old values that the mempool and recent blocks replaced are stored, so that the
//! balances after every recent block can be computed.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use chain::{
    AddressKey, Amount, AssetId, BlockHash, BlockRef, BroadcastOutcome, Family, Header, Height, InternalTransfers, Tip,
    TxId,
};
use sha2::{Digest, Sha256};

use crate::{
    block_file::BlockFile,
    buyers::{self, Buyers},
    chain_state::{ChainState, TxRejection, Undo},
    fault::ActiveFaults,
    invention::Invention,
    mempool::Mempool,
    spec::{ChainSpec, FinalityMark},
    transaction::SignedTx,
};

/// The number of blocks whose transactions are stored. Older blocks are dropped, but the state still contains their
/// effects.
pub const KEPT_BLOCKS: usize = 5_000;

/// The fate of the transactions in blocks that a reorganisation replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplacedTxs {
    /// The transactions return to the mempool, and the first new block includes them unless the mempool is held.
    Remine,
    /// The transactions are dropped.
    Drop,
    /// Buyers' transactions are replaced by conflicting ones that pay the money back to the buyers. Transactions of
    /// other senders return to the mempool.
    DoubleSpend,
}

/// A block of a model chain, with its transactions and the old values that they replaced in the state.
#[derive(Debug)]
pub struct ModelBlock {
    /// The header of the block: height, hash, parent and time.
    pub header: Header,
    /// The number of reorganisations before this block was mined. It is part of the block hash, so that blocks with
    /// equal content on two branches have different hashes.
    pub branch: u64,
    /// The transactions in block order.
    pub txs: Vec<Arc<SignedTx>>,
    /// The values that each transaction replaced in the state, in block order. They can be undone in a reorganisation.
    undos: Vec<Undo>,
}

/// The status of one transaction on a model chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxStatus {
    /// Id of the transaction.
    pub txid: TxId,
    /// The block that includes the transaction; `None` while it is in the mempool.
    pub block: Option<BlockRef>,
    /// The number of blocks from the transaction's block to the newest block: 1 in the newest block, 0 in the mempool.
    pub confirmations: u64,
    /// True when the transaction was mined and moved nothing.
    pub reverted: bool,
}

/// One model chain, with its blocks, its state and its mempool.
#[derive(Debug)]
pub struct ModelChain {
    /// The specification of the chain.
    pub spec: ChainSpec,
    /// Seed of the wallets' keys and of the genesis hash.
    pub seed: u64,
    /// Hash of the genesis block, which identifies the chain.
    pub genesis: BlockHash,
    /// The state after all transactions in the mempool.
    pub state: ChainState,
    /// The stored blocks, oldest first and never empty. Each is the parent of the next one.
    pub blocks: VecDeque<ModelBlock>,
    /// The number of reorganisations so far.
    pub branch: u64,
    /// Transactions that wait for a block.
    pub mempool: Mempool,
    /// The buyers' wallets, from which all payments come.
    pub buyers: Buyers,
    /// The way in which the node reports transfers by contracts.
    pub internal_transfers: InternalTransfers,
    /// The faults of the node that are switched on.
    pub faults: ActiveFaults,
    /// The money that the first endpoint invents; the chain and the second endpoint do not have it.
    pub inventions: Vec<Invention>,
    mined: HashMap<TxId, Height>,
    /// The file that stores the blocks; `None` for a chain in memory.
    pub file: Option<BlockFile>,
    /// The error that prevented a block from being stored; `None` while storing works. After an error the chain gets no
    /// further blocks.
    pub storage_error: Option<String>,
}

impl ModelChain {
    /// Returns a chain with a genesis block only. `genesis_time` is in unix seconds.
    pub fn with_genesis_block(spec: ChainSpec, seed: u64, genesis_time: i64) -> ModelChain {
        let hash = Sha256::new()
            .chain_update("simnet genesis")
            .chain_update(spec.chain.as_str())
            .chain_update(format!("{:?}", spec.family))
            .chain_update(seed.to_be_bytes())
            .chain_update(genesis_time.to_be_bytes());
        let hash = BlockHash(hash.finalize().into());
        let header = Header { height: 0, hash, parent: BlockHash([0; 32]), time: genesis_time };
        ModelChain::from_base_block(spec, seed, hash, header)
    }

    /// Returns a chain with the single block `base`. Its state is that of the genesis block; the caller replaces the
    /// state when `base` is a later block.
    pub fn from_base_block(spec: ChainSpec, seed: u64, genesis: BlockHash, base: Header) -> ModelChain {
        let buyers = Buyers::from_seed(&spec.chain, spec.family, seed);
        let rules =
            spec.build_chain_rules(buyers::derive_miner_account(&spec.chain, seed), buyers.list_wallet_accounts());
        let internal_transfers = match spec.family {
            Family::Bitcoin => InternalTransfers::None,
            Family::Evm | Family::Tron => InternalTransfers::Included,
        };
        ModelChain {
            state: ChainState::at_genesis(rules, TxId(genesis.0)),
            spec,
            seed,
            genesis,
            blocks: VecDeque::from([ModelBlock { header: base, branch: 0, txs: Vec::new(), undos: Vec::new() }]),
            branch: 0,
            mempool: Mempool::default(),
            buyers,
            internal_transfers,
            faults: ActiveFaults::default(),
            inventions: Vec::new(),
            mined: HashMap::new(),
            file: None,
            storage_error: None,
        }
    }

    /// Returns the header of the newest block.
    pub fn head(&self) -> Header {
        self.blocks.back().expect("a chain has at least one block").header
    }

    /// Returns the newest block and the finalized one.
    pub fn tip(&self) -> Tip {
        Tip { head: self.head(), finalized: self.find_finalized_block(self.head().height) }
    }

    /// Returns the block that is final when the newest block has the height `head`; `None` when the chain marks no block
    /// as final, or when the model no longer keeps that block.
    pub fn find_finalized_block(&self, head: Height) -> Option<BlockRef> {
        match self.spec.finality {
            FinalityMark::Depth(depth) => self.find_block_ref(head.saturating_sub(depth)),
            FinalityMark::None => None,
        }
    }

    /// Returns the block at a height; `None` when the height is above the newest block or below the oldest stored
    /// block.
    pub fn find_block_ref(&self, height: Height) -> Option<BlockRef> {
        self.find_block(height).map(|block| block.header.block_ref())
    }

    /// Returns the height of the oldest stored block.
    pub fn oldest_height(&self) -> Height {
        self.blocks.front().expect("a chain has at least one block").header.height
    }

    /// Returns the block at a height with its transactions; `None` when the height is above the newest block or below
    /// the oldest stored block.
    pub fn find_block(&self, height: Height) -> Option<&ModelBlock> {
        let index = usize::try_from(height.checked_sub(self.oldest_height())?).ok()?;
        self.blocks.get(index)
    }

    /// Decodes and verifies a transaction and adds it to the mempool and to the chain's file, or rejects it as a node
    /// does.
    pub fn verify_and_add_to_mempool(&mut self, raw: &[u8]) -> BroadcastOutcome {
        let tx = match SignedTx::decode_canonical_unverified(self.spec.family, &self.spec.chain, raw) {
            Ok(tx) => tx,
            Err(bad) => return BroadcastOutcome::Rejected(bad.to_string()),
        };
        if self.mined.contains_key(&tx.txid) {
            return BroadcastOutcome::AlreadyKnown;
        }
        if let Err(bad) = tx.verify_signatures() {
            return BroadcastOutcome::Rejected(bad.to_string());
        }
        let (now, encoded) = (self.head().time, tx.raw().to_owned());
        let outcome = self.mempool.apply_and_admit_transaction(&mut self.state, tx, now);
        if matches!(outcome, BroadcastOutcome::Accepted) {
            self.store_pending_transaction(&encoded);
        }
        outcome
    }

    /// Adds to the mempool the transactions in `pending` that no block includes and that are still valid.
    pub fn readd_unmined_to_mempool(&mut self, pending: Vec<SignedTx>) {
        let now = self.head().time;
        let unmined = pending.into_iter().filter(|tx| !self.mined.contains_key(&tx.txid)).map(Arc::new);
        self.mempool.readd_valid_transactions(&mut self.state, unmined, now);
    }

    /// Drops all transactions in the mempool.
    pub fn drop_mempool(&mut self) {
        self.mempool.undo_and_drain_transactions(&mut self.state);
        self.rewrite_chain_file();
    }

    /// Mines `count` blocks and stores them. The first one includes the mempool. `time` is the time of the last block,
    /// in Unix seconds; the blocks before it are one second apart, and no block is older than its parent. Does nothing
    /// if an earlier block could not be stored. Returns the newest block.
    pub fn mine_and_store_unless_storage_failed(&mut self, count: u64, time: i64) -> BlockRef {
        if self.storage_error.is_none() {
            let from = self.head().height;
            self.append_mined_blocks(count, time);
            self.store_new_and_drop_old_blocks(None, from);
        }
        self.head().block_ref()
    }

    /// Replaces the last `depth` blocks by `depth + 1` new ones and stores them. `time` is the time of the last new
    /// block, in Unix seconds. The oldest stored block is never replaced. Does nothing if an earlier block could not be
    /// stored. Returns the newest block.
    pub fn replace_last_blocks_by_longer_branch(&mut self, depth: u64, keep: ReplacedTxs, time: i64) -> BlockRef {
        if self.storage_error.is_some() {
            return self.head().block_ref();
        }
        let fork = self.head().height.saturating_sub(depth).max(self.oldest_height());
        let depth = self.head().height - fork;
        let waiting = self.mempool.undo_and_drain_transactions(&mut self.state);
        let removed = self.rewind_to(fork);
        self.branch += 1;
        let returning: Vec<Arc<SignedTx>> = match keep {
            ReplacedTxs::Remine => removed,
            ReplacedTxs::Drop => Vec::new(),
            ReplacedTxs::DoubleSpend => {
                removed.into_iter().map(|paid| self.replace_by_double_spend_if_by_buyer(paid)).collect()
            }
        };
        let now = self.head().time;
        self.mempool.readd_valid_transactions(&mut self.state, returning.into_iter().chain(waiting), now);
        self.append_mined_blocks(depth + 1, time);
        self.store_new_and_drop_old_blocks(Some(fork), fork);
        self.head().block_ref()
    }

    /// Removes all blocks above the height `to`, undoes their transactions in the state, and returns these transactions
    /// in the order of the chain. The mempool must be empty, because its transactions were applied later.
    pub fn rewind_to(&mut self, to: Height) -> Vec<Arc<SignedTx>> {
        let mut removed: Vec<ModelBlock> = Vec::new();
        while self.head().height > to && self.blocks.len() > 1 {
            let block = self.blocks.pop_back().expect("a chain has at least one block");
            block.undos.iter().rev().for_each(|undo| self.state.undo_transaction(undo));
            block.txs.iter().for_each(|tx| {
                self.mined.remove(&tx.txid);
            });
            removed.push(block);
        }
        removed.into_iter().rev().flat_map(|block| block.txs).collect()
    }

    /// Applies the transactions of a stored block and appends the block. Returns false when the hash of the appended
    /// block differs from the stored `hash`.
    pub fn replay_block_and_compare_hash(
        &mut self,
        hash: BlockHash,
        time: i64,
        branch: u64,
        txs: Vec<SignedTx>,
    ) -> Result<bool, TxRejection> {
        self.branch = branch;
        let txs: Vec<Arc<SignedTx>> = txs.into_iter().map(Arc::new).collect();
        let undos = txs
            .iter()
            .map(|tx| self.state.apply_transaction_or_roll_back(tx, time))
            .collect::<Result<Vec<Undo>, TxRejection>>()?;
        self.append_block(time, txs, undos);
        Ok(self.head().hash == hash)
    }

    /// Returns the status of a transaction; `None` when it is neither in the mempool nor in a stored block.
    pub fn find_transaction_status(&self, txid: TxId) -> Option<TxStatus> {
        if let Some(height) = self.mined.get(&txid) {
            let block = self.find_block(*height).expect("the index has kept blocks only");
            let tx = block.txs.iter().find(|tx| tx.txid == txid).expect("the index has the right block");
            let confirmations = self.head().height - height + 1;
            let block = Some(block.header.block_ref());
            return Some(TxStatus { txid, block, confirmations, reverted: tx.draft.reverts });
        }
        self.mempool.find_transaction(&txid).map(|_| TxStatus { txid, block: None, confirmations: 0, reverted: false })
    }

    /// Returns the balance after the block at `height`, which must be a stored block.
    pub fn balance_at(&self, height: Height, asset: &AssetId, account: AddressKey) -> Amount {
        let above = usize::try_from(height - self.oldest_height() + 1).unwrap_or(usize::MAX);
        let blocks = self.blocks.iter().skip(above).flat_map(|block| &block.undos);
        self.state.balance_before(asset, account, blocks.chain(self.mempool.list_undos()))
    }

    /// Returns the state after the oldest stored block.
    pub fn compute_state_at_oldest_block(&self) -> ChainState {
        let mut state = self.state.clone();
        let undos: Vec<&Undo> =
            self.blocks.iter().skip(1).flat_map(|block| &block.undos).chain(self.mempool.list_undos()).collect();
        undos.into_iter().rev().for_each(|undo| state.undo_transaction(undo));
        state
    }

    /// Returns a conflicting transaction that pays the money back to the buyer. When the sender is not a buyer, returns
    /// the same transaction.
    fn replace_by_double_spend_if_by_buyer(&self, paid: Arc<SignedTx>) -> Arc<SignedTx> {
        self.buyers.sign_double_spend_if_by_buyer(&self.state, &paid).map_or(paid, Arc::new)
    }

    /// Appends `count` new blocks, of which the first includes the mempool. `time` is the time of the last one, in Unix
    /// seconds. Does not write the blocks to the file.
    fn append_mined_blocks(&mut self, count: u64, time: i64) {
        for remaining in (0..count).rev() {
            let parent = self.head();
            let earlier = i64::try_from(remaining).unwrap_or(i64::MAX);
            let time = time.saturating_sub(earlier).max(parent.time);
            let first = remaining + 1 == count;
            let (txs, undos) = if first {
                self.mempool.take_unexpired_unless_held(&mut self.state, parent.time, time)
            } else {
                (Vec::new(), Vec::new())
            };
            self.append_block(time, txs, undos);
        }
    }

    /// Appends one block whose transactions are already applied to the state.
    fn append_block(&mut self, time: i64, txs: Vec<Arc<SignedTx>>, undos: Vec<Undo>) {
        let parent = self.head();
        let height = parent.height + 1;
        let hash = Sha256::new()
            .chain_update("simnet block")
            .chain_update(parent.hash.0)
            .chain_update(height.to_be_bytes())
            .chain_update(time.to_be_bytes())
            .chain_update(self.branch.to_be_bytes());
        let hash = txs.iter().fold(hash, |hash, tx| hash.chain_update(tx.txid.0));
        let header = Header { height, hash: BlockHash(hash.finalize().into()), parent: parent.hash, time };
        self.mined.extend(txs.iter().map(|tx| (tx.txid, height)));
        self.blocks.push_back(ModelBlock { header, branch: self.branch, txs, undos });
    }

    /// Drops all but the newest [`KEPT_BLOCKS`] blocks, and the ids of used transactions whose expiry is before the
    /// oldest kept block.
    pub fn drop_old_blocks_and_expired_txids(&mut self) {
        if self.blocks.len() <= KEPT_BLOCKS {
            return;
        }
        for old in self.blocks.drain(..self.blocks.len() - KEPT_BLOCKS) {
            old.txs.iter().for_each(|tx| {
                self.mined.remove(&tx.txid);
            });
        }
        let oldest = self.blocks.front().expect("a chain has at least one block").header.time;
        self.state.used.rows.retain(|_, until| *until >= oldest);
    }
}
