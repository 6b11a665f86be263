//! Transactions that wait for a block. The ready ones are applied to the ledger already, in order; mining them is
//! moving them into a block.

use std::{collections::HashSet, sync::Arc};

use chain::{Amount, BroadcastOutcome, TxId};

use crate::{
    ledger::{Ledger, Refusal, Undo},
    tx::{Order, Tx},
};

/// Transactions that wait at most.
const READY_LIMIT: usize = 100_000;

/// Transactions that wait for the ones before them at most.
const PARKED_LIMIT: usize = 1_000;

#[derive(Debug, Default)]
pub struct Pool {
    ready: Vec<(Arc<Tx>, Undo)>,
    /// Their nonce is not next yet.
    parked: Vec<Arc<Tx>>,
    known: HashSet<TxId>,
    /// Blocks stay empty.
    pub held: bool,
}

impl Pool {
    pub fn contains(&self, txid: &TxId) -> bool {
        self.known.contains(txid)
    }

    pub fn find(&self, txid: &TxId) -> Option<&Arc<Tx>> {
        self.ready.iter().map(|(tx, _)| tx).chain(&self.parked).find(|tx| tx.txid == *txid)
    }

    pub fn txids(&self) -> impl Iterator<Item = TxId> + '_ {
        self.ready.iter().map(|(tx, _)| tx.txid).chain(self.parked.iter().map(|tx| tx.txid))
    }

    /// What the next block would take, oldest first.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<Tx>> {
        self.ready.iter().map(|(tx, _)| tx)
    }

    /// What the pool has done to the ledger, oldest first.
    pub fn undos(&self) -> impl Iterator<Item = &Undo> {
        self.ready.iter().map(|(_, undo)| undo)
    }

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

    /// Takes everything back from the ledger and forgets it.
    pub fn drain(&mut self, ledger: &mut Ledger) -> Vec<Arc<Tx>> {
        for (_, undo) in self.ready.iter().rev() {
            ledger.undo(undo);
        }
        self.known.clear();
        self.ready.drain(..).map(|(tx, _)| tx).chain(self.parked.drain(..)).collect()
    }

    /// Adds those that are still possible, in order, and forgets the others.
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

    /// What the next block takes: nothing while held, otherwise everything that has not expired by its time.
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

    /// Each parked transaction whose turn has come makes way for the next one.
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

    /// A transaction replaces the waiting ones that it excludes if it pays more than all of them.
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
