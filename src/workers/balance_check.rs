//! Finds money that was not seen in blocks: native coins that a contract sent on a chain without traces, and transfers
//! that an endpoint left out. The balance of each address is compared with the sum of its deposits, and the block in
//! which the balance rose is found by bisection.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use chain::{Address, Amount, AssetKind, BlockRef, InternalTransfers, Source, SourceError};
use tracing::{info, warn};

use crate::workers::{Ran, Worker};
use clock::Clock;
use db::Db;
use ids::InvoiceId;
use money::deposits::{self, BalanceCheck, DepositService, UnexplainedCredit};

/// Maximum number of invoices whose addresses are compared in one run.
const COMPARE_MAX: i64 = 500;

/// Compares balances with deposits and books money that no deposit explains.
#[derive(Clone)]
pub struct BalanceReconciler {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) deposits: DepositService,
    pub(super) source: Arc<dyn Source>,
}

impl BalanceReconciler {
    /// Creates a reconciler of the chain whose deposits `deposits` books.
    pub fn new(db: Db, clock: Clock, deposits: DepositService, source: Arc<dyn Source>) -> BalanceReconciler {
        BalanceReconciler { db, clock, deposits, source }
    }

    /// Returns true when no address of these invoices has more money at `cursor` than its deposits explain. Otherwise
    /// the missing deposits are booked.
    pub async fn is_explained(&self, cursor: BlockRef, invoices: Vec<InvoiceId>) -> anyhow::Result<bool> {
        let checks = self
            .db
            .read("list_balance_checks", move |tx| {
                Box::pin(async move { deposits::list_balance_checks(tx, &invoices).await })
            })
            .await?;
        let mut explained = true;
        for (asset, checks) in by_asset(checks) {
            let addresses: Vec<Address> = checks.iter().map(|check| check.address.clone()).collect();
            let balances = match self.source.balances(&cursor, &asset, &addresses).await {
                // The node does not have the state of this block, so the blocks remain the only evidence.
                Err(SourceError::Unsupported(_)) => continue,
                answer => answer?,
            };
            if balances.len() != checks.len() {
                return Err(SourceError::InvalidResponse("other balances came than were asked for".into()).into());
            }
            for (check, balance) in checks.iter().zip(balances).filter(|(check, has)| *has > check.explained) {
                let (block, rise) = self.locate_unexplained_credit(check, cursor, balance).await?;
                self.book(check, block, rise).await?;
                explained = false;
            }
        }
        Ok(explained)
    }

    /// Returns the first block at which the address had more than its deposits explain, and the excess at that block.
    /// An increase in a later block is left to the next run, because a reorg may remove that block alone.
    async fn locate_unexplained_credit(
        &self,
        check: &BalanceCheck,
        cursor: BlockRef,
        mut balance: Amount,
    ) -> anyhow::Result<(BlockRef, Amount)> {
        let (mut low, mut high) = (check.since.min(cursor.height.saturating_sub(1)), cursor);
        while high.height - low > 1 {
            let middle = low + (high.height - low) / 2;
            let header = self.source.header(middle).await?.with_context(|| format!("block {middle} vanished"))?;
            match self.balance_at(check, header.block_ref()).await {
                Ok(more) if more > check.explained => (high, balance) = (header.block_ref(), more),
                // If the node has pruned the older states, the increase is booked at the oldest block whose balance is
                // known.
                Ok(_) | Err(SourceError::Unsupported(_)) => low = middle,
                Err(error) => return Err(error.into()),
            }
        }
        Ok((high, balance.saturating_sub(check.explained)))
    }

    async fn balance_at(&self, check: &BalanceCheck, at: BlockRef) -> Result<Amount, SourceError> {
        let balances = self.source.balances(&at, &check.asset, std::slice::from_ref(&check.address)).await?;
        balances.first().copied().ok_or_else(|| SourceError::InvalidResponse("no balance came".into()))
    }

    /// Books the increase as a deposit in a block of the followed branch, so that a reorg of that block reverses it. An
    /// increase in any other block is an error, and the next run compares again.
    async fn book(&self, check: &BalanceCheck, at: BlockRef, rise: Amount) -> anyhow::Result<()> {
        let (now, deposits, check) = (self.clock.now(), self.deposits.clone(), check.clone());
        let chain = &self.deposits.chain().id;
        let outcome = self
            .db
            .write("book_unexplained_credit", move |tx| {
                Box::pin(async move { deposits.book_unexplained_credit(tx, now, at, &check, rise).await })
            })
            .await?;
        match outcome {
            UnexplainedCredit::Booked => {
                info!(%chain, height = at.height, "a balance rose without a visible transfer and was booked");
                Ok(())
            }
            // Another transaction has booked a deposit meanwhile; the next run compares with it.
            UnexplainedCredit::Outdated => Ok(()),
            UnexplainedCredit::OffBranch => {
                bail!("{chain}: a balance rose in block {}, which is not on the branch that is followed", at.height)
            }
        }
    }
}

/// Groups the checks by asset, because one request returns balances of one asset.
fn by_asset(checks: Vec<BalanceCheck>) -> Vec<(AssetKind, Vec<BalanceCheck>)> {
    let mut groups: Vec<(AssetKind, Vec<BalanceCheck>)> = Vec::new();
    for check in checks {
        match groups.iter_mut().find(|(asset, _)| *asset == check.asset) {
            Some((_, group)) => group.push(check),
            None => groups.push((check.asset.clone(), vec![check])),
        }
    }
    groups
}

/// Checks the balances of open native invoices, on chains where transfers by contracts cannot be traced.
pub struct BalanceCheckWorker {
    reconciler: BalanceReconciler,
}

impl BalanceCheckWorker {
    /// Creates the worker for the reconciler's chain.
    pub fn new(reconciler: BalanceReconciler) -> BalanceCheckWorker {
        BalanceCheckWorker { reconciler }
    }
}

#[async_trait]
impl Worker for BalanceCheckWorker {
    fn name(&self) -> String {
        format!("probe {}", self.reconciler.deposits.chain().id)
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn wakeable(&self) -> bool {
        false
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        if self.reconciler.source.internal_transfers() != InternalTransfers::ByBalance {
            return Ok(Ran::Idle);
        }
        let chain = self.reconciler.deposits.chain().id.clone();
        let (cursor, invoices) = self
            .reconciler
            .db
            .read("list_native_open", move |tx| {
                Box::pin(async move { deposits::list_native_open(tx, &chain, COMPARE_MAX).await })
            })
            .await?;
        let Some(cursor) = cursor else { return Ok(Ran::Idle) };
        if i64::try_from(invoices.len())? == COMPARE_MAX {
            warn!(chain = %self.reconciler.deposits.chain().id, "more native invoices are open than are compared at once; tracing scales better");
        }
        let explained = self.reconciler.is_explained(cursor, invoices).await?;
        Ok(if explained { Ran::Idle } else { Ran::Worked })
    }
}
