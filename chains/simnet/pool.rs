//! Transactions that wait for a block. The ready ones are already applied to the ledger, in order; mining only moves
//! them into a block.

use std::{collections::HashSet, sync::Arc};

use chain::{Amount, BroadcastOutcome, TxId};

use crate::{
    ledger::{Ledger, Refusal, Undo},
    tx::{Order, Tx},
};

/// Maximum number of ready transactions.
const READY_LIMIT: usize = 100_000;

/// Maximum number of parked transactions.
const PARKED_LIMIT: usize = 1_000;

/// The mempool of one chain.
#[derive(Debug, Default)]
pub struct Pool {
    ready: Vec<(Arc<Tx>, Undo)>,
    /// Transactions whose nonce is above the next one. They become ready when the missing ones arrive.
    parked: Vec<Arc<Tx>>,
    known: HashSet<TxId>,
    /// While true, blocks are empty and all transactions wait.
    pub held: bool,
}

impl Pool {
    /// Returns true if the transaction waits, ready or parked.
    pub fn contains(&self, txid: &TxId) -> bool {
        self.known.contains(txid)
    }

    /// Returns the waiting transaction with this id.
    pub fn find(&self, txid: &TxId) -> Option<&Arc<Tx>> {
        self.ready.iter().map(|(tx, _)| tx).chain(&self.parked).find(|tx| tx.txid == *txid)
    }

    /// Returns the ids of all waiting transactions: the ready ones in order, then the parked ones.
    pub fn txids(&self) -> impl Iterator<Item = TxId> + '_ {
        self.ready.iter().map(|(tx, _)| tx.txid).chain(self.parked.iter().map(|tx| tx.txid))
    }

    /// Returns the transactions for the next block, oldest first.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<Tx>> {
        self.ready.iter().map(|(tx, _)| tx)
    }

    /// Returns the ledger values that the ready transactions replaced, oldest first.
    pub fn undos(&self) -> impl Iterator<Item = &Undo> {
        self.ready.iter().map(|(_, undo)| undo)
    }

    /// Adds a transaction and applies it to the ledger, or parks it. `now` is the time of the head, in unix seconds.
    pub fn add(&mut self, ledger: &mut Ledger, tx: Tx, now: i64) -> BroadcastOutcome {
        if self.contains(&tx.txid) {
            return BroadcastOutcome::AlreadyKnown;
        }
        if self.ready.len() >= READY_LIMIT {
            return BroadcastOutcome::Refused("the pool is full".into());
        }
        let tx = Arc::new(tx);
        match self.try_add(ledger, tx.clone(), now) {
            Ok(()) => BroadcastOutcome::Accepted,
            Err(Refusal::NonceGap { .. }) if self.parked.len() < PARKED_LIMIT => {
                self.known.insert(tx.txid);
                self.parked.push(tx);
                BroadcastOutcome::Accepted
            }
            Err(refusal) => self.replace(ledger, tx, now, &refusal),
        }
    }

    /// Undoes all ready transactions in the ledger, empties the mempool, and returns all its transactions.
    pub fn drain(&mut self, ledger: &mut Ledger) -> Vec<Arc<Tx>> {
        for (_, undo) in self.ready.iter().rev() {
            ledger.undo(undo);
        }
        self.known.clear();
        self.ready.drain(..).map(|(tx, _)| tx).chain(self.parked.drain(..)).collect()
    }

    /// Adds the transactions that can still be applied, in order, and drops the others.
    pub fn refill(&mut self, ledger: &mut Ledger, txs: impl IntoIterator<Item = Arc<Tx>>, now: i64) {
        for tx in txs {
            if self.contains(&tx.txid) {
                continue;
            }
            if let Err(Refusal::NonceGap { .. }) = self.try_add(ledger, tx.clone(), now) {
                self.known.insert(tx.txid);
                self.parked.push(tx);
            }
        }
    }

    /// Removes and returns the transactions of the next block: none while held, otherwise all ready ones that have not
    /// expired at `block_time`. `now` is the time of the head. Both are in unix seconds.
    pub fn take(&mut self, ledger: &mut Ledger, now: i64, block_time: i64) -> (Vec<Arc<Tx>>, Vec<Undo>) {
        if self.held {
            return (Vec::new(), Vec::new());
        }
        let expired = |tx: &Tx| matches!(tx.draft.order, Order::Until { time, .. } if time < block_time);
        if self.ready.iter().any(|(tx, _)| expired(tx)) {
            let all = self.drain(ledger);
            self.refill(ledger, all.into_iter().filter(|tx| !expired(tx)), now);
        }
        for (tx, _) in &self.ready {
            self.known.remove(&tx.txid);
        }
        self.ready.drain(..).unzip()
    }

    fn try_add(&mut self, ledger: &mut Ledger, tx: Arc<Tx>, now: i64) -> Result<(), Refusal> {
        let undo = ledger.apply(&tx, now)?;
        self.known.insert(tx.txid);
        self.ready.push((tx, undo));
        self.unpark(ledger, now);
        Ok(())
    }

    /// Moves parked transactions to the ready ones as long as one of them has the next nonce.
    fn unpark(&mut self, ledger: &mut Ledger, now: i64) {
        let mut index = 0;
        while let Some(tx) = self.parked.get(index) {
            match ledger.apply(tx, now) {
                Ok(undo) => {
                    self.ready.push((self.parked.remove(index), undo));
                    index = 0;
                }
                Err(Refusal::NonceGap { .. }) => index += 1,
                Err(_) => {
                    self.known.remove(&self.parked.remove(index).txid);
                }
            }
        }
    }

    /// Replaces the waiting transactions that conflict with `tx`, if `tx` pays a higher fee than all of them together.
    /// Returns `refusal` when no transaction conflicts.
    fn replace(&mut self, ledger: &mut Ledger, tx: Arc<Tx>, now: i64, refusal: &Refusal) -> BroadcastOutcome {
        let rivals: Vec<Amount> =
            self.ready.iter().filter(|(r, _)| r.excludes(&tx)).map(|(r, _)| r.draft.fee).collect();
        if rivals.is_empty() {
            return BroadcastOutcome::Refused(refusal.to_string());
        }
        if Amount::checked_sum(rivals).is_none_or(|rivals| tx.draft.fee <= rivals) {
            return BroadcastOutcome::Refused("replacement transaction underpriced".into());
        }
        let before = self.drain(ledger);
        let place = before.iter().position(|rival| rival.excludes(&tx)).unwrap_or(before.len());
        let (head, tail) = before.split_at(place);
        let rest = tail.iter().filter(|rival| !rival.excludes(&tx));
        self.refill(ledger, head.iter().chain([&tx]).chain(rest).cloned(), now);
        if self.contains(&tx.txid) {
            return BroadcastOutcome::Accepted;
        }
        self.drain(ledger);
        self.refill(ledger, before, now);
        BroadcastOutcome::Refused(refusal.to_string())
    }
}
