//! Executes the actions of the machine: reads the node, and calls the functions of `money` in database transactions.

use std::collections::BTreeMap;

use chain::source::Corroboration;
use chain::{Block, BlockRef, Height, SourceError};
use tracing::error;

use crate::workers::follow::FollowWorker;
use crate::workers::follow::machine::actions::{Action, Observation};
use crate::workers::follow::missing_blocks::describe_missing_blocks;
use clock::Instant;
use ids::{DepositId, InvoiceId};
use money::cursors::{self, Position};
use money::deposits::{self, BlockToCorroborate};
use money::invoices;

/// Maximum number of invoices that expire in one transaction.
const EXPIRE_MAX: i64 = 100;

impl FollowWorker {
    /// Executes one action and returns its result.
    pub(super) async fn execute_action(&self, action: Action) -> anyhow::Result<Observation> {
        Ok(match action {
            Action::ReadTip => {
                let tip = self.readiness.wait_and_withdraw_coins_when_slow(self.source.tip()).await?;
                self.readiness.raise_known_tip(tip.head.height);
                Observation::Tip(tip)
            }
            Action::ReadBlocks { from, to } => {
                let blocks = self.source.blocks(from, to, &self.chain.watched).await;
                Observation::Blocks(blocks.map_err(|error| self.add_advice_about_missing_block(from, error))?)
            }
            Action::ReadHeader(height) => Observation::Header(self.source.header(height).await?),
            Action::FindConfirmedAbove(height) => {
                Observation::ConfirmedAbove(self.has_confirmed_deposit_above(height).await?)
            }
            Action::CrossCheck(block) => Observation::CrossChecked(self.source.cross_check(&block).await),
            Action::OpenDispute(reason) => self.open_dispute_review(reason).await?,
            Action::CloseDispute => self.close_dispute_review().await?,
            Action::StoreBlocks { from, blocks, advance_to } => {
                self.store_blocks_and_advance_deposits(from, blocks, advance_to).await?
            }
            Action::ListUnchecked(position, limit) => {
                Observation::Unchecked(self.list_blocks_to_corroborate(position, limit).await?)
            }
            Action::ConfirmTransfers { block, transfers } => {
                Observation::Answers(self.source.confirm(&block, &transfers).await)
            }
            Action::StoreAnswers { answers, advance_to } => {
                self.store_answers_and_advance_deposits(answers, advance_to).await?
            }
            Action::ListExpirable { passed } => Observation::Expirable(self.list_expirable_invoices(passed).await?),
            Action::CheckBalances { at, invoices } => {
                match self
                    .reconciler
                    .compare_balances_and_book_credits(at, invoices)
                    .await
                    .map_err(anyhow::Error::downcast::<SourceError>)
                {
                    Ok(explained) => Observation::Balances(Ok(explained)),
                    Err(Ok(unavailable)) => Observation::Balances(Err(unavailable)),
                    Err(Err(error)) => return Err(error),
                }
            }
            Action::ExpireInvoices { invoices, unchecked } => self.expire_ended_invoices(invoices, unchecked).await?,
            Action::Rewind { from, to } => self.rewind_chain(from, to).await?,
            Action::Halt(reason) => self.halt_chain_and_open_review(reason).await?,
            Action::Finish(_) => Observation::Done,
        })
    }

    /// Adds an advice for the operator to the error when no node has this block any more. Returns other errors
    /// unchanged.
    fn add_advice_about_missing_block(&self, height: Height, error: SourceError) -> anyhow::Error {
        match &error {
            SourceError::Unsupported(_) => {
                let advice = describe_missing_blocks(self.chain.family, &self.chain.id, height);
                anyhow::Error::from(error).context(advice)
            }
            SourceError::Unavailable(_) | SourceError::BlockNotFound(_) | SourceError::InvalidResponse(_) => {
                error.into()
            }
        }
    }

    /// Lists, by block, the stored deposits that would become confirmed or final at this position and that no second
    /// source has shown yet. `limit` is the maximum number of deposits.
    async fn list_blocks_to_corroborate(
        &self,
        position: Position,
        limit: i64,
    ) -> Result<Vec<BlockToCorroborate>, db::Error> {
        let (now, chain) = (self.clock.now(), self.chain.id.clone());
        self.db
            .read("list_unchecked_blocks", move |tx| {
                Box::pin(async move { deposits::list_blocks_to_corroborate(tx, now, &chain, position, limit).await })
            })
            .await
    }

    /// Stores the answers of second sources about deposits, advances deposits up to `advance_to` and updates their
    /// orders, all in one database transaction. Contradictions are logged.
    async fn store_answers_and_advance_deposits(
        &self,
        answers: BTreeMap<DepositId, Corroboration>,
        advance_to: Position,
    ) -> anyhow::Result<Observation> {
        let contradictions: Vec<&String> = answers
            .values()
            .filter_map(|answer| match answer {
                Corroboration::Contradicted { detail, .. } => Some(detail),
                Corroboration::Shown { .. } | Corroboration::CannotSay { .. } => None,
            })
            .collect();
        if let Some(first) = contradictions.first() {
            let (chain, count) = (&self.chain.id, contradictions.len());
            error!(%chain, count, "endpoints of {chain} contradict each other about {count} deposits: {first}");
        }
        let (now, deposits) = (self.clock.now(), self.reconciler.deposits.clone());
        let applied = self
            .db
            .write("store_answers_and_advance_deposits", move |tx| {
                Box::pin(
                    async move { deposits.store_answers_and_advance_deposits(tx, now, advance_to, &answers).await },
                )
            })
            .await?;
        Ok(Observation::Stored { final_height: applied.final_height, unfinished: applied.unfinished })
    }

    async fn has_confirmed_deposit_above(&self, height: u64) -> Result<bool, db::Error> {
        let chain = self.chain.id.clone();
        let confirmed = self.db.run_body_as_select_with_fallback("has_confirmed_deposit_above", move |tx| {
            Box::pin(async move { deposits::has_confirmed_deposit_above(tx, &chain, height).await })
        });
        confirmed.await
    }

    async fn open_dispute_review(&self, reason: String) -> anyhow::Result<Observation> {
        let (now, chain) = (self.clock.now(), self.chain.id.clone());
        error!(chain = %chain, "endpoints of {chain} contradict each other: {reason}");
        self.db
            .write("open_chain_disputed_review", move |tx| {
                Box::pin(async move { cursors::halt::open_chain_disputed_review(tx, now, &chain, &reason).await })
            })
            .await?;
        Ok(Observation::Done)
    }

    async fn close_dispute_review(&self) -> anyhow::Result<Observation> {
        let (now, chain) = (self.clock.now(), self.chain.id.clone());
        self.db
            .write("resolve_chain_disputed_review", move |tx| {
                Box::pin(async move { cursors::halt::resolve_chain_disputed_review(tx, now, &chain).await })
            })
            .await?;
        Ok(Observation::Done)
    }

    /// Stores blocks and the cursor, advances deposits up to `advance_to` (`None`: not at all) and updates their
    /// orders, all in one database transaction.
    async fn store_blocks_and_advance_deposits(
        &self,
        from: BlockRef,
        blocks: Vec<Block>,
        advance_to: Option<Position>,
    ) -> anyhow::Result<Observation> {
        let (now, deposits) = (self.clock.now(), self.reconciler.deposits.clone());
        let applied = self
            .db
            .write("apply_blocks", move |tx| {
                Box::pin(async move { deposits.apply_blocks(tx, now, from, &blocks, advance_to).await })
            })
            .await?;
        Ok(Observation::Stored { final_height: applied.final_height, unfinished: applied.unfinished })
    }

    async fn list_expirable_invoices(&self, passed: Instant) -> Result<Vec<InvoiceId>, db::Error> {
        let (now, chain, grace) = (self.clock.now(), self.chain.id.clone(), self.reconciler.deposits.limits().grace);
        self.db
            .read("list_expirable_invoices", move |tx| {
                Box::pin(
                    async move { invoices::list_expirable_invoices(tx, &chain, now, passed, grace, EXPIRE_MAX).await },
                )
            })
            .await
    }

    async fn expire_ended_invoices(
        &self,
        expired: Vec<InvoiceId>,
        unchecked: Option<String>,
    ) -> anyhow::Result<Observation> {
        let (now, deposits) = (self.clock.now(), self.reconciler.deposits.clone());
        let expired = expired.into_iter().collect();
        self.db
            .write("expire_ended_invoices", move |tx| {
                Box::pin(async move { deposits.expire_ended_invoices(tx, now, &expired, unchecked.as_deref()).await })
            })
            .await?;
        Ok(Observation::Done)
    }

    async fn rewind_chain(&self, from: BlockRef, to: BlockRef) -> anyhow::Result<Observation> {
        let (now, deposits) = (self.clock.now(), self.reconciler.deposits.clone());
        self.db
            .write("rewind_cursor_and_deposits", move |tx| {
                Box::pin(async move { deposits.rewind_cursor_and_deposits(tx, now, from, to).await })
            })
            .await?;
        Ok(Observation::Done)
    }

    async fn halt_chain_and_open_review(&self, reason: String) -> anyhow::Result<Observation> {
        error!(chain = %self.chain.id, "{} is halted: {reason}", self.chain.id);
        let (now, chain) = (self.clock.now(), self.chain.id.clone());
        self.db
            .write("halt_chain_and_open_review", move |tx| {
                Box::pin(async move { cursors::halt::halt_chain_and_open_review(tx, now, &chain, &reason).await })
            })
            .await?;
        Ok(Observation::Done)
    }

    /// Returns true when the chain is halted in the database. An operator may have resumed it since the follower halted
    /// it.
    pub(super) async fn is_chain_halted(&self) -> anyhow::Result<bool> {
        let chain = self.chain.id.clone();
        let halted = self.db.read("find_halt_reason", move |tx| {
            Box::pin(async move { cursors::halt::find_halt_reason(tx, &chain).await })
        });
        Ok(halted.await?.is_some())
    }
}
