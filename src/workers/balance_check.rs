//! Finds credits that are missing in the blocks of the source: internal transfers that the source cannot trace, and
//! transfers that an endpoint left out. Compares balances with deposits, finds the block of an unexplained increase by
//! binary search, and books the increase.

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

/// Maximum number of invoices whose balances are compared in one run.
const COMPARE_MAX: i64 = 500;

/// Compares the balances of addresses on one chain with their deposits, and books credits that no deposit explains.
#[derive(Clone)]
pub struct BalanceReconciler {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) deposits: DepositService,
    pub(super) source: Arc<dyn Source>,
}

impl BalanceReconciler {
    /// Creates a reconciler that reads balances from `source`.
    pub fn new(db: Db, clock: Clock, deposits: DepositService, source: Arc<dyn Source>) -> BalanceReconciler {
        BalanceReconciler { db, clock, deposits, source }
    }

    /// Compares the balances of the invoices' addresses after the block `cursor` with their deposits, and books each
    /// unexplained credit. Returns false when it found an unexplained credit, otherwise true. An asset whose balances
    /// the source cannot read at this block is skipped.
    ///
    /// # Errors
    /// [`SourceError`] when balances are not available.
    pub async fn compare_balances_and_book_credits(
        &self,
        cursor: BlockRef,
        invoices: Vec<InvoiceId>,
    ) -> anyhow::Result<bool> {
        let checks = self
            .db
            .read("list_balance_checks", move |tx| {
                Box::pin(async move { deposits::list_balance_checks_in_range(tx, &invoices).await })
            })
            .await?;
        let (checks, waiting): (Vec<_>, Vec<_>) = checks.into_iter().partition(|check| check.initial.is_some());
        let mut explained = true;
        for (asset, checks) in group_checks_by_asset(checks) {
            let addresses: Vec<Address> = checks.iter().map(|check| check.address.clone()).collect();
            let balances = match self.source.balances(&cursor, &asset, &addresses).await {
                // The node no longer stores the balances at this block, so this asset cannot be checked.
                Err(SourceError::Unsupported(_)) => continue,
                answer => answer?,
            };
            if balances.len() != checks.len() {
                return Err(SourceError::InvalidResponse(
                    "the number of balances differs from the number of addresses".into(),
                )
                .into());
            }
            let unexplained =
                |(check, balance): &(&BalanceCheck, Amount)| *balance > check.explained_amount_at(cursor.height);
            for (check, balance) in checks.iter().zip(balances).filter(unexplained) {
                let (block, credit) = self.find_block_of_unexplained_credit(check, cursor, balance).await?;
                self.book_credit_if_still_unexplained(check, block, credit).await?;
                explained = false;
            }
        }
        if !waiting.is_empty() {
            let reason = "the balances of newly leased addresses have not been read yet";
            return Err(SourceError::Unavailable(reason.to_owned()).into());
        }
        Ok(explained)
    }

    /// Returns the first block after which the balance exceeds the deposits up to this block, and the difference. The
    /// difference has no credits of later blocks, because these blocks may be reorganised separately; the next check
    /// finds them.
    async fn find_block_of_unexplained_credit(
        &self,
        check: &BalanceCheck,
        cursor: BlockRef,
        mut balance: Amount,
    ) -> anyhow::Result<(BlockRef, Amount)> {
        let (mut low, mut high) = (check.oldest.min(cursor.height.saturating_sub(1)), cursor);
        while high.height - low > 1 {
            let middle = low + (high.height - low) / 2;
            let header = self
                .source
                .header(middle)
                .await?
                .with_context(|| format!("block {middle} is not on the node's chain any more"))?;
            match self.read_balance_at(check, header.block_ref()).await {
                Ok(more) if more > check.explained_amount_at(middle) => (high, balance) = (header.block_ref(), more),
                // If the node no longer stores older balances, the credit is booked in the oldest block for which the
                // node returned a balance.
                Ok(_) | Err(SourceError::Unsupported(_)) => low = middle,
                Err(error) => return Err(error.into()),
            }
        }
        Ok((high, balance.saturating_sub(check.explained_amount_at(high.height))))
    }

    /// Returns the balance of the address in the asset after the block `at`.
    async fn read_balance_at(&self, check: &BalanceCheck, at: BlockRef) -> Result<Amount, SourceError> {
        let balances = self.source.balances(&at, &check.asset, std::slice::from_ref(&check.address)).await?;
        balances.first().copied().ok_or_else(|| SourceError::InvalidResponse("the response has no balance".into()))
    }

    /// Books the credit as a deposit of the block `at`, so that a reorganisation of this block reverses it. Books
    /// nothing when another deposit was booked in the meantime. Fails when the block is not on the followed branch; the
    /// next check then searches for the block again.
    async fn book_credit_if_still_unexplained(
        &self,
        check: &BalanceCheck,
        at: BlockRef,
        credit: Amount,
    ) -> anyhow::Result<()> {
        let (now, deposits, check) = (self.clock.now(), self.deposits.clone(), check.clone());
        let chain = &self.deposits.chain().id;
        let outcome = self
            .db
            .write("book_unexplained_credit", move |tx| {
                Box::pin(async move { deposits.book_credit_if_still_unexplained(tx, now, at, &check, credit).await })
            })
            .await?;
        match outcome {
            UnexplainedCredit::Booked => {
                info!(%chain, height = at.height, "a balance increased without a visible transfer; the credit was booked");
                Ok(())
            }
            // Another deposit was booked in the meantime. The next check takes it into account.
            UnexplainedCredit::Outdated => Ok(()),
            UnexplainedCredit::OffBranch => {
                bail!(
                    "{chain}: a balance increased in block {}, which is not on the branch that is followed",
                    at.height
                )
            }
        }
    }
}

/// Groups the checks by asset, because one request reads the balances of a single asset.
fn group_checks_by_asset(checks: Vec<BalanceCheck>) -> Vec<(AssetKind, Vec<BalanceCheck>)> {
    let mut groups: Vec<(AssetKind, Vec<BalanceCheck>)> = Vec::new();
    for check in checks {
        match groups.iter_mut().find(|(asset, _)| *asset == check.asset) {
            Some((_, group)) => group.push(check),
            None => groups.push((check.asset.clone(), vec![check])),
        }
    }
    groups
}

/// The worker that compares, every 15 seconds, the balances of the addresses of open invoices in native coins. It works
/// only on chains whose source cannot trace internal transfers, which are native coins that a contract sends.
pub struct BalanceCheckWorker {
    reconciler: BalanceReconciler,
}

impl BalanceCheckWorker {
    /// Creates the worker for the chain of `reconciler`.
    pub fn new(reconciler: BalanceReconciler) -> BalanceCheckWorker {
        BalanceCheckWorker { reconciler }
    }
}

#[async_trait]
impl Worker for BalanceCheckWorker {
    fn name(&self) -> String {
        format!("balance check {}", self.reconciler.deposits.chain().id)
    }

    fn idle_pause(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn is_wakeable(&self) -> bool {
        false
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        if self.reconciler.source.internal_transfers() != InternalTransfers::ByBalance {
            return Ok(Ran::Idle);
        }
        let chain = self.reconciler.deposits.chain().id.clone();
        let (cursor, invoices) = self
            .reconciler
            .db
            .read("list_open_native_invoices", move |tx| {
                Box::pin(async move { deposits::list_open_native_invoices_and_cursor(tx, &chain, COMPARE_MAX).await })
            })
            .await?;
        let Some(cursor) = cursor else { return Ok(Ran::Idle) };
        if i64::try_from(invoices.len())? == COMPARE_MAX {
            warn!(chain = %self.reconciler.deposits.chain().id, "more native invoices are open than are compared at once ({COMPARE_MAX}); configure an endpoint that can trace");
        }
        let explained = self.reconciler.compare_balances_and_book_credits(cursor, invoices).await?;
        Ok(if explained { Ran::Idle } else { Ran::Worked })
    }
}
