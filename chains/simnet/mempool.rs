//! The mempool of a model chain. Its ready transactions are already applied to the state, in order, so mining only
//! moves them into a block.

use std::{collections::HashSet, sync::Arc};

use chain::{Amount, BroadcastOutcome, TxId};

use crate::{
    chain_state::{ChainState, TxRejection, Undo},
    transaction::{ReplayProtection, SignedTx},
};

/// Maximum number of ready transactions, which the next block includes.
const READY_MAX: usize = 100_000;

/// Maximum number of queued transactions, which wait for a lower nonce of their sender.
const QUEUED_MAX: usize = 1_000;

/// The transactions of a model chain that wait for a block.
#[derive(Debug, Default)]
pub struct Mempool {
    ready: Vec<(Arc<SignedTx>, Undo)>,
    /// Transactions whose nonce is too high. They become ready when the transactions with the missing nonces arrive.
    queued: Vec<Arc<SignedTx>>,
    known: HashSet<TxId>,
    /// While this is true, mined blocks include no transactions.
    pub held: bool,
}

impl Mempool {
    /// Returns true when the transaction is in the mempool, ready or queued.
    pub fn contains_transaction(&self, txid: &TxId) -> bool {
        self.known.contains(txid)
    }

    /// Returns the ready or queued transaction with this id; `None` when the mempool has none.
    pub fn find_transaction(&self, txid: &TxId) -> Option<&Arc<SignedTx>> {
        self.list_transactions().find(|tx| tx.txid == *txid)
    }

    /// Returns all waiting transactions: first the ready ones in order, then the queued ones.
    pub fn list_transactions(&self) -> impl Iterator<Item = &Arc<SignedTx>> {
        self.ready.iter().map(|(tx, _)| tx).chain(&self.queued)
    }

    /// Returns the ids of all waiting transactions: first the ready ones in order, then the queued ones.
    pub fn list_txids(&self) -> impl Iterator<Item = TxId> + '_ {
        self.list_transactions().map(|tx| tx.txid)
    }

    /// Returns the transactions that the next block would include, oldest first.
    pub fn list_ready_transactions(&self) -> impl Iterator<Item = &Arc<SignedTx>> {
        self.ready.iter().map(|(tx, _)| tx)
    }

    /// Returns the old values of everything in the state that the ready transactions changed, oldest first.
    pub fn list_undos(&self) -> impl Iterator<Item = &Undo> {
        self.ready.iter().map(|(_, undo)| undo)
    }

    /// Applies a transaction to the state and adds it to the ready ones. A transaction whose nonce is too high is
    /// queued. A transaction that conflicts with others replaces them if its fee is higher. All other transactions are
    /// rejected. `now` is the time of the newest block, in Unix seconds.
    pub fn apply_and_admit_transaction(&mut self, state: &mut ChainState, tx: SignedTx, now: i64) -> BroadcastOutcome {
        if self.contains_transaction(&tx.txid) {
            return BroadcastOutcome::AlreadyKnown;
        }
        if self.ready.len() >= READY_MAX {
            return BroadcastOutcome::Rejected("the mempool is full".into());
        }
        let tx = Arc::new(tx);
        match self.apply_and_add_then_retry_queued(state, tx.clone(), now) {
            Ok(()) => BroadcastOutcome::Accepted,
            Err(TxRejection::NonceGap { .. }) if self.queued.len() < QUEUED_MAX => {
                self.known.insert(tx.txid);
                self.queued.push(tx);
                BroadcastOutcome::Accepted
            }
            Err(rejection) => self.replace_conflicting_if_fee_is_higher(state, tx, now, &rejection),
        }
    }

    /// Removes all transactions from the mempool, undoes the ready ones in the state, and returns all of them.
    pub fn undo_and_drain_transactions(&mut self, state: &mut ChainState) -> Vec<Arc<SignedTx>> {
        for (_, undo) in self.ready.iter().rev() {
            state.undo_transaction(undo);
        }
        self.known.clear();
        self.ready.drain(..).map(|(tx, _)| tx).chain(self.queued.drain(..)).collect()
    }

    /// Adds, in order, the transactions that are still valid, as ready or queued, and drops the others.
    pub fn readd_valid_transactions(
        &mut self,
        state: &mut ChainState,
        txs: impl IntoIterator<Item = Arc<SignedTx>>,
        now: i64,
    ) {
        for tx in txs {
            if self.contains_transaction(&tx.txid) {
                continue;
            }
            if let Err(TxRejection::NonceGap { .. }) = self.apply_and_add_then_retry_queued(state, tx.clone(), now) {
                self.known.insert(tx.txid);
                self.queued.push(tx);
            }
        }
    }

    /// Removes and returns the transactions for the next block: all ready ones that have not expired at `block_time`.
    /// Expired ones are dropped. While the mempool is held, nothing is removed or returned.
    pub fn take_unexpired_unless_held(
        &mut self,
        state: &mut ChainState,
        now: i64,
        block_time: i64,
    ) -> (Vec<Arc<SignedTx>>, Vec<Undo>) {
        if self.held {
            return (Vec::new(), Vec::new());
        }
        let expired = |tx: &SignedTx| matches!(tx.draft.replay_protection, ReplayProtection::Expiry { time, .. } if time < block_time);
        if self.ready.iter().any(|(tx, _)| expired(tx)) {
            let all = self.undo_and_drain_transactions(state);
            self.readd_valid_transactions(state, all.into_iter().filter(|tx| !expired(tx)), now);
        }
        for (tx, _) in &self.ready {
            self.known.remove(&tx.txid);
        }
        self.ready.drain(..).unzip()
    }

    /// Applies a transaction to the state and adds it to the ready ones. Then does the same with queued transactions
    /// that can now follow.
    fn apply_and_add_then_retry_queued(
        &mut self,
        state: &mut ChainState,
        tx: Arc<SignedTx>,
        now: i64,
    ) -> Result<(), TxRejection> {
        let undo = state.apply_transaction_or_roll_back(&tx, now)?;
        self.known.insert(tx.txid);
        self.ready.push((tx, undo));
        self.apply_or_drop_queued_transactions(state, now);
        Ok(())
    }

    /// Applies queued transactions as long as one of them has the next nonce of its sender, and makes them ready. Drops
    /// those that became invalid.
    fn apply_or_drop_queued_transactions(&mut self, state: &mut ChainState, now: i64) {
        let mut index = 0;
        while let Some(tx) = self.queued.get(index) {
            match state.apply_transaction_or_roll_back(tx, now) {
                Ok(undo) => {
                    self.ready.push((self.queued.remove(index), undo));
                    index = 0;
                }
                Err(TxRejection::NonceGap { .. }) => index += 1,
                Err(_) => {
                    self.known.remove(&self.queued.remove(index).txid);
                }
            }
        }
    }

    /// Replaces the waiting transactions that conflict with `tx`, if its fee is higher than all their fees together.
    /// Otherwise rejects `tx`; if nothing conflicts with it, for the reason `rejection`.
    fn replace_conflicting_if_fee_is_higher(
        &mut self,
        state: &mut ChainState,
        tx: Arc<SignedTx>,
        now: i64,
        rejection: &TxRejection,
    ) -> BroadcastOutcome {
        let conflicting_fees: Vec<Amount> =
            self.ready.iter().filter(|(r, _)| r.conflicts_with(&tx)).map(|(r, _)| r.draft.fee).collect();
        if conflicting_fees.is_empty() {
            return BroadcastOutcome::Rejected(rejection.to_string());
        }
        if Amount::checked_sum(conflicting_fees).is_none_or(|conflicting_fees| tx.draft.fee <= conflicting_fees) {
            return BroadcastOutcome::Rejected("replacement transaction underpriced".into());
        }
        let before = self.undo_and_drain_transactions(state);
        let first_conflict = before.iter().position(|waiting| waiting.conflicts_with(&tx)).unwrap_or(before.len());
        let (head, tail) = before.split_at(first_conflict);
        let rest = tail.iter().filter(|waiting| !waiting.conflicts_with(&tx));
        self.readd_valid_transactions(state, head.iter().chain([&tx]).chain(rest).cloned(), now);
        if self.contains_transaction(&tx.txid) {
            return BroadcastOutcome::Accepted;
        }
        self.undo_and_drain_transactions(state);
        self.readd_valid_transactions(state, before, now);
        BroadcastOutcome::Rejected(rejection.to_string())
    }
}
