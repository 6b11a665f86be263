//! One model chain: its recent blocks, its ledger and its mempool.
//!
//! The chain changes only when a method is called, and the same calls give the same hashes. The ledger is the one after
//! the mempool, not after the head. The values that the mempool and recent blocks replaced are kept, so the balances
//! after every recent block can be computed.

use std::{
    collections::{HashMap, VecDeque},
    iter,
    sync::Arc,
};

use chain::{
    AddressKey, Amount, AssetId, BlockHash, BlockRef, BroadcastOutcome, Family, Header, Height, InternalTransfers, Tip,
    Transfer, TransferIndex, TxId, TxPart, UnconfirmedTransfer, derive, watch::WatchedAddresses,
};
use sha2::{Digest, Sha256};

use crate::{
    buyers::{self, Buyers},
    fault::Faults,
    journal::{Journal, Line},
    ledger::{Ledger, Refusal, Undo},
    pool::Pool,
    spec::{ChainSpec, Finality},
    tx::Tx,
};

/// Number of blocks that are kept with their transactions. Older ones are dropped; their effects stay in the ledger.
pub const KEPT_BLOCKS: usize = 5_000;

/// The treatment of the transactions of replaced blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The transactions wait again, and the first new block contains them, unless the mempool is held.
    Remine,
    /// The transactions are dropped.
    Drop,
    /// Buyers replace their payments by transactions to themselves. Transactions of other senders wait again.
    DoubleSpend,
}

/// A mined block.
#[derive(Debug)]
pub struct Sealed {
    /// Position, hash, parent and time.
    pub header: Header,
    /// Number of reorganisations before this block. It is hashed, so that blocks with equal content on two branches
    /// differ.
    pub branch: u64,
    /// The transactions in block order.
    pub txs: Vec<Arc<Tx>>,
    undos: Vec<Undo>,
}

/// The status of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxStatus {
    /// Id of the transaction.
    pub txid: TxId,
    /// The block that contains the transaction; `None` while it waits.
    pub block: Option<BlockRef>,
    /// Number of blocks from this one to the head: 1 in the head, 0 while the transaction waits.
    pub confirmations: u64,
    /// True if the transaction was mined and reverted, so it moved nothing.
    pub reverted: bool,
}

/// The state of one model chain.
#[derive(Debug)]
pub struct Model {
    /// The description of the chain.
    pub spec: ChainSpec,
    /// Seed of the wallets' keys and of the genesis hash.
    pub seed: u64,
    /// Hash of the genesis block, which identifies the chain.
    pub genesis: BlockHash,
    /// The ledger after all transactions in the mempool.
    pub ledger: Ledger,
    /// The kept blocks, oldest first and never empty; each is the parent of the next.
    pub blocks: VecDeque<Sealed>,
    /// Number of reorganisations so far.
    pub branch: u64,
    /// The mempool.
    pub pool: Pool,
    /// The wallets of the buyers.
    pub buyers: Buyers,
    /// The way in which the node reports transfers by contracts.
    pub internal_transfers: InternalTransfers,
    /// The active faults of the node.
    pub faults: Faults,
    mined: HashMap<TxId, Height>,
    journal: Option<Journal>,
    /// The reason for which the chain has stopped for good, because a block could not be stored; `None` while it works.
    pub broken: Option<String>,
}

/// The selection of transfers that a reader gets.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Only transfers to these addresses are returned.
    pub watched: &'a WatchedAddresses<'a>,
    /// Transfers by contracts are returned only with `Included`.
    pub internal_transfers: InternalTransfers,
}

impl Model {
    /// Returns a chain with a genesis block only. `genesis_time` is in unix seconds.
    pub fn new(spec: ChainSpec, seed: u64, genesis_time: i64) -> Model {
        let hash = Sha256::new()
            .chain_update("simnet genesis")
            .chain_update(spec.chain.as_str())
            .chain_update(format!("{:?}", spec.family))
            .chain_update(seed.to_be_bytes())
            .chain_update(genesis_time.to_be_bytes());
        let hash = BlockHash(hash.finalize().into());
        let header = Header { height: 0, hash, parent: BlockHash([0; 32]), time: genesis_time };
        Model::at(spec, seed, hash, header)
    }

    /// Returns a chain whose oldest kept block is `base`, with the ledger at genesis.
    pub fn at(spec: ChainSpec, seed: u64, genesis: BlockHash, base: Header) -> Model {
        let buyers = Buyers::new(&spec.chain, spec.family, seed);
        let rules = spec.rules(buyers::miner(&spec.chain, seed), buyers.accounts());
        let internal_transfers = match spec.family {
            Family::Bitcoin => InternalTransfers::None,
            Family::Evm | Family::Tron => InternalTransfers::Included,
        };
        Model {
            ledger: Ledger::new(rules, TxId(genesis.0)),
            spec,
            seed,
            genesis,
            blocks: VecDeque::from([Sealed { header: base, branch: 0, txs: Vec::new(), undos: Vec::new() }]),
            branch: 0,
            pool: Pool::default(),
            buyers,
            internal_transfers,
            faults: Faults::default(),
            mined: HashMap::new(),
            journal: None,
            broken: None,
        }
    }

    /// Stores all future blocks in the journal.
    pub fn store_in(&mut self, journal: Journal) {
        self.journal = Some(journal);
    }

    /// Returns the newest block.
    pub fn head(&self) -> Header {
        self.blocks.back().expect("never empty").header
    }

    /// Returns the newest block and the finalized one.
    pub fn tip(&self) -> Tip {
        Tip { head: self.head(), finalized: self.finalized(self.head().height) }
    }

    /// Returns the finalized block of a chain with the head at this height, or `None` when the chain has none or it is
    /// no longer kept.
    pub fn finalized(&self, head: Height) -> Option<BlockRef> {
        match self.spec.finality {
            Finality::Depth(depth) => self.position(head.saturating_sub(depth)),
            Finality::None => None,
        }
    }

    /// Returns the block at a height, or `None` above the head and below the oldest kept block.
    pub fn position(&self, height: Height) -> Option<BlockRef> {
        self.block(height).map(|block| block.header.block_ref())
    }

    /// Returns the height of the oldest kept block.
    pub fn base(&self) -> Height {
        self.blocks.front().expect("never empty").header.height
    }

    /// Returns the block at a height with its transactions, or `None` above the head and below the oldest kept block.
    pub fn block(&self, height: Height) -> Option<&Sealed> {
        let index = usize::try_from(height.checked_sub(self.base())?).ok()?;
        self.blocks.get(index)
    }

    /// Adds a signed transaction to the mempool, as a node does.
    pub fn broadcast(&mut self, raw: &[u8]) -> BroadcastOutcome {
        let tx = match Tx::decode(self.spec.family, &self.spec.chain, raw) {
            Ok(tx) => tx,
            Err(bad) => return BroadcastOutcome::Refused(bad.to_string()),
        };
        if self.mined.contains_key(&tx.txid) {
            return BroadcastOutcome::AlreadyKnown;
        }
        if let Err(bad) = tx.verify() {
            return BroadcastOutcome::Refused(bad.to_string());
        }
        let now = self.head().time;
        self.pool.add(&mut self.ledger, tx, now)
    }

    /// Drops all waiting transactions.
    pub fn drop_pool(&mut self) {
        self.pool.drain(&mut self.ledger);
    }

    /// Mines `count` blocks, of which the first contains the waiting transactions. The last block gets the time `time`,
    /// in unix seconds; the blocks before it are one second apart, and no block is older than its parent.
    pub fn mine(&mut self, count: u64, time: i64) -> BlockRef {
        if self.broken.is_none() {
            let from = self.head().height;
            self.seal(count, time);
            self.store(None, from);
        }
        self.head().block_ref()
    }

    /// Replaces the last `depth` blocks by `depth + 1` new ones. The oldest kept block is never replaced.
    pub fn reorg(&mut self, depth: u64, keep: Keep, time: i64) -> BlockRef {
        if self.broken.is_some() {
            return self.head().block_ref();
        }
        let fork = self.head().height.saturating_sub(depth).max(self.base());
        let depth = self.head().height - fork;
        let waiting = self.pool.drain(&mut self.ledger);
        let removed = self.rewind(fork);
        self.branch += 1;
        let again: Vec<Arc<Tx>> = match keep {
            Keep::Remine => removed,
            Keep::Drop => Vec::new(),
            Keep::DoubleSpend => removed.into_iter().map(|paid| self.double_spend(paid)).collect(),
        };
        let now = self.head().time;
        self.pool.refill(&mut self.ledger, again.into_iter().chain(waiting), now);
        self.seal(depth + 1, time);
        self.store(Some(fork), fork);
        self.head().block_ref()
    }

    /// Removes every block above `to`. Returns their transactions in the order of the chain.
    pub fn rewind(&mut self, to: Height) -> Vec<Arc<Tx>> {
        let mut removed: Vec<Sealed> = Vec::new();
        while self.head().height > to && self.blocks.len() > 1 {
            let block = self.blocks.pop_back().expect("never empty");
            block.undos.iter().rev().for_each(|undo| self.ledger.undo(undo));
            block.txs.iter().for_each(|tx| {
                self.mined.remove(&tx.txid);
            });
            removed.push(block);
        }
        removed.into_iter().rev().flat_map(|block| block.txs).collect()
    }

    /// Appends a stored block. Returns false when the hash of the appended block differs from `hash`.
    pub fn replay(&mut self, hash: BlockHash, time: i64, branch: u64, txs: Vec<Tx>) -> Result<bool, Refusal> {
        self.branch = branch;
        let txs: Vec<Arc<Tx>> = txs.into_iter().map(Arc::new).collect();
        let undos = txs.iter().map(|tx| self.ledger.apply(tx, time)).collect::<Result<Vec<Undo>, Refusal>>()?;
        self.append(time, txs, undos);
        Ok(self.head().hash == hash)
    }

    /// Returns the status of a transaction, or `None` when it is neither waiting nor in a kept block.
    pub fn status(&self, txid: TxId) -> Option<TxStatus> {
        if let Some(height) = self.mined.get(&txid) {
            let block = self.block(*height).expect("mined transactions stand in kept blocks");
            let tx = block.txs.iter().find(|tx| tx.txid == txid).expect("the index names its block");
            let confirmations = self.head().height - height + 1;
            let block = Some(block.header.block_ref());
            return Some(TxStatus { txid, block, confirmations, reverted: tx.draft.reverts });
        }
        self.pool.find(&txid).map(|_| TxStatus { txid, block: None, confirmations: 0, reverted: false })
    }

    /// Returns the balance after the block at `height`, which must be a kept block.
    pub fn balance_at(&self, height: Height, asset: &AssetId, account: AddressKey) -> Amount {
        let above = usize::try_from(height - self.base() + 1).unwrap_or(usize::MAX);
        let blocks = self.blocks.iter().skip(above).flat_map(|block| &block.undos);
        self.ledger.balance_before(asset, account, blocks.chain(self.pool.undos()))
    }

    /// Returns the ledger after the oldest kept block.
    pub fn ledger_at_base(&self) -> Ledger {
        let mut ledger = self.ledger.clone();
        let undos: Vec<&Undo> =
            self.blocks.iter().skip(1).flat_map(|block| &block.undos).chain(self.pool.undos()).collect();
        undos.into_iter().rev().for_each(|undo| ledger.undo(undo));
        ledger
    }

    /// Returns the transfers of waiting transactions to watched addresses. Senders of this model never signal a
    /// replacement.
    pub fn unconfirmed(&self, view: View<'_>) -> Vec<UnconfirmedTransfer> {
        let unconfirmed = |transfer: Transfer| UnconfirmedTransfer {
            txid: transfer.txid,
            part: transfer.index.part,
            asset: transfer.asset,
            to: transfer.to,
            amount: transfer.amount,
            replaceable: false,
        };
        self.transfers(self.pool.ready(), view).into_iter().map(unconfirmed).collect()
    }

    /// Returns the transfers of a block's transactions to watched addresses, in block order.
    pub fn transfers<'t>(&self, txs: impl IntoIterator<Item = &'t Arc<Tx>>, view: View<'_>) -> Vec<Transfer> {
        let mut logs = 0u32..;
        let mut found = Vec::new();
        for (tx_index, tx) in (0u32..).zip(txs).filter(|(_, tx)| !tx.draft.reverts) {
            let (mut internal_transfers, mut value_free) = (0u32.., true);
            for (index, moved) in (0u32..).zip(&tx.draft.moves) {
                let next = |counter: &mut dyn Iterator<Item = u32>| counter.next().expect("fewer than 2^32");
                let part = match self.spec.family {
                    Family::Bitcoin => TxPart::Output(index),
                    Family::Evm | Family::Tron if moved.asset != self.ledger.rules.native => {
                        TxPart::Log(next(&mut logs))
                    }
                    Family::Evm | Family::Tron if !moved.internal && value_free => {
                        value_free = false;
                        TxPart::Value
                    }
                    Family::Evm | Family::Tron => TxPart::Internal(next(&mut internal_transfers)),
                };
                let hidden =
                    matches!(part, TxPart::Internal(_)) && view.internal_transfers != InternalTransfers::Included;
                let listed = self.spec.assets.iter().any(|asset| asset.id == moved.asset);
                if hidden || !listed || moved.amount.is_zero() || !view.watched.contains(&moved.to.key) {
                    continue;
                }
                found.push(Transfer {
                    txid: tx.txid,
                    index: TransferIndex { tx_index, part },
                    asset: moved.asset.clone(),
                    to: moved.to.key,
                    from: self.account_text(tx.sender()),
                    amount: moved.amount,
                });
            }
        }
        found.sort_by_key(|transfer| transfer.index);
        found
    }

    fn account_text(&self, account: AddressKey) -> Option<String> {
        match self.spec.family {
            Family::Bitcoin => None,
            Family::Evm => Some(derive::evm_address(account).text),
            Family::Tron => Some(derive::tron_address(account).text),
        }
    }

    fn double_spend(&self, paid: Arc<Tx>) -> Arc<Tx> {
        self.buyers.take_back(&self.ledger, &paid).map_or(paid, Arc::new)
    }

    fn seal(&mut self, count: u64, time: i64) {
        for remaining in (0..count).rev() {
            let parent = self.head();
            let earlier = i64::try_from(remaining).unwrap_or(i64::MAX);
            let time = time.saturating_sub(earlier).max(parent.time);
            let first = remaining + 1 == count;
            let (txs, undos) =
                if first { self.pool.take(&mut self.ledger, parent.time, time) } else { (Vec::new(), Vec::new()) };
            self.append(time, txs, undos);
        }
    }

    fn append(&mut self, time: i64, txs: Vec<Arc<Tx>>, undos: Vec<Undo>) {
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
        self.blocks.push_back(Sealed { header, branch: self.branch, txs, undos });
    }

    /// Writes the blocks above `from` to the journal, after a rewind to `rewound` when blocks were replaced. Drops
    /// blocks that are too old.
    fn store(&mut self, rewound: Option<Height>, from: Height) {
        if let Some(mut journal) = self.journal.take() {
            let known = usize::try_from(from - self.base() + 1).unwrap_or(usize::MAX);
            let above = self.blocks.iter().skip(known);
            let lines = rewound.map(Line::rewind).into_iter().chain(above.map(Line::block));
            let stored = journal.append(lines);
            self.forget();
            let stored = stored.and_then(|()| if journal.is_long() { journal.rewrite(self) } else { Ok(()) });
            self.broken = stored.err().map(|e| format!("the chain's journal cannot be written: {e}"));
            self.journal = Some(journal);
        } else {
            self.forget();
        }
    }

    /// Drops the blocks that are older than the newest [`KEPT_BLOCKS`] and the expired transaction ids.
    pub fn forget(&mut self) {
        if self.blocks.len() <= KEPT_BLOCKS {
            return;
        }
        for old in self.blocks.drain(..self.blocks.len() - KEPT_BLOCKS) {
            old.txs.iter().for_each(|tx| {
                self.mined.remove(&tx.txid);
            });
        }
        let oldest = self.blocks.front().expect("never empty").header.time;
        self.ledger.used.rows.retain(|_, until| *until >= oldest);
    }

    /// Returns the journal lines from which this chain can be restored.
    pub fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        iter::once(Line::snapshot(self)).chain(self.blocks.iter().skip(1).map(Line::block))
    }
}
