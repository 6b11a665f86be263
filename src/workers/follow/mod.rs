//! Follows one chain: reads blocks, reverses orphaned blocks, advances deposits, expires invoices. The state machine in
//! [`machine`] decides, and the worker executes its actions. The cursor and the deposits change in one database
//! transaction, so a block that fails is read again and never skipped.

pub mod machine;
pub mod readiness;
pub mod missing_blocks;
mod execution;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use chain::{Asset, AssetKind, BlockRef, Header, Source, SourceError};
use tokio::sync::Mutex;
use tracing::{debug, info, warn};

use crate::workers::balance_check::BalanceReconciler;
use crate::workers::follow::machine::actions::Action;
use crate::workers::follow::machine::notices::Notice;
use crate::workers::follow::machine::{FollowLimits, Machine, StepError};
use crate::workers::follow::readiness::ChainReadiness;
use crate::workers::{Ran, Worker};
use clock::{Clock, Instant};
use db::Db;
use money::assets::FollowedChain;
use money::cursors::{self, Cursor};
use money::immutable_facts::{self, Fact};

/// Minimum time between two comparisons of withheld tokens with their contracts, in milliseconds. A token is withheld
/// while its contract cannot be used.
const WITHHELD_TOKEN_PAUSE_MS: i64 = 60_000;

/// The worker that follows one chain.
pub struct FollowWorker {
    db: Db,
    clock: Clock,
    chain: FollowedChain,
    /// Offers and withdraws the coins of the chain.
    readiness: ChainReadiness,
    /// The chain's configured assets. The decimals of each token are compared with its contract before blocks are read.
    /// Buyers cannot pay with a token that fails the comparison.
    assets: Vec<Asset>,
    source: Arc<dyn Source>,
    reconciler: BalanceReconciler,
    limits: FollowLimits,
    pause: Duration,
    state: Mutex<FollowState>,
}

#[derive(Default)]
struct FollowState {
    /// The state machine; `None` before the first run.
    machine: Option<Machine>,
    /// True when the state machine continues from the cursor that the database has. False after a failed or cancelled
    /// run, so that the next run loads the stored cursor first.
    loaded: bool,
    /// The time at which the contracts of the tokens were compared last.
    facts_verified_at: Option<Instant>,
}

impl FollowWorker {
    /// Creates a worker that follows the chain of `reconciler` and reads the same source.
    pub fn new(
        reconciler: BalanceReconciler,
        readiness: ChainReadiness,
        assets: Vec<Asset>,
        limits: FollowLimits,
        pause: Duration,
    ) -> FollowWorker {
        let BalanceReconciler { db, clock, deposits, source } = reconciler.clone();
        let chain = deposits.chain().clone();
        let state = Mutex::default();
        FollowWorker { db, clock, chain, readiness, assets, source, reconciler, limits, pause, state }
    }

    /// Stores the identity of the chain and the decimals of its tokens at the first start. At a later start, fails when
    /// the node reports another identity, or when the decimals of a token differ from the stored ones. A token whose
    /// contract is missing, or has other decimals than the configuration, is withheld; the other coins stay on offer.
    async fn record_or_verify_facts_and_tokens(&self) -> anyhow::Result<()> {
        let identity = self.readiness.wait_and_withdraw_coins_when_slow(self.source.identity()).await?;
        let mut facts = vec![Fact::new_chain_identity(&self.chain.id, identity.id)];
        for asset in &self.assets {
            let AssetKind::Token { contract } = &asset.kind else { continue };
            match self.source.decimals(contract).await {
                Ok(decimals) if decimals == asset.decimals => {
                    facts.push(Fact::new_asset_decimals(&asset.id, decimals));
                    self.readiness.offer_verified_token(asset);
                }
                Ok(decimals) => self.readiness.withhold_token_and_report(
                    asset,
                    &format!(
                        "{} has {decimals} decimals on the chain and {} in the configuration; correct the configuration",
                        asset.id, asset.decimals
                    ),
                ),
                Err(error @ SourceError::Unavailable(_)) => return Err(error.into()),
                Err(error) => self.readiness.withhold_token_and_report(
                    asset,
                    &format!("the contract of {} cannot be read: {error}; check its address in [chains.{}]", asset.id, self.chain.id),
                ),
            }
        }
        let now = self.clock.now();
        Ok(self
            .db
            .write("record_or_compare_facts", move |tx| {
                Box::pin(async move { immutable_facts::record_facts_refusing_changed(tx, now, &facts).await })
            })
            .await?)
    }

    /// Compares all tokens with their contracts again when a token is withheld and the last comparison was at least a
    /// minute ago. `verified_at` is the time of the last comparison; `None` when there was none.
    async fn verify_withheld_tokens_when_due(&self, verified_at: &mut Option<Instant>) -> anyhow::Result<()> {
        let now = self.clock.now();
        let is_due = verified_at.is_none_or(|at| now.since(at) >= WITHHELD_TOKEN_PAUSE_MS);
        if !is_due || !self.readiness.has_withheld_tokens() {
            return Ok(());
        }
        *verified_at = Some(now);
        self.record_or_verify_facts_and_tokens().await
    }

    /// Verifies the identity of the chain and the decimals of its tokens, and returns the stored cursor. When the chain
    /// has no cursor yet, stores one at the first block to read.
    async fn verify_facts_and_load_or_create_cursor(&self) -> anyhow::Result<Cursor> {
        self.record_or_verify_facts_and_tokens().await?;
        if let Some(cursor) = self.find_stored_cursor().await? {
            if let Some(reason) = &cursor.halted {
                warn!(chain = %self.chain.id, "{} is halted: {reason}", self.chain.id);
            }
            return Ok(cursor);
        }
        let header = self.read_first_header().await?;
        let id = self.chain.id.clone();
        self.db
            .write("start_following_chain", move |tx| {
                Box::pin(async move { cursors::start_following_chain(tx, &id, &header).await })
            })
            .await?;
        info!(chain = %self.chain.id, height = header.height, "{} is followed from block {}", self.chain.id, header.height);
        self.find_stored_cursor().await?.with_context(|| format!("{}: the stored cursor is missing", self.chain.id))
    }

    /// Returns the stored cursor; `None` when the chain has never been followed.
    async fn find_stored_cursor(&self) -> Result<Option<Cursor>, db::Error> {
        let id = self.chain.id.clone();
        self.db.read("find_cursor", move |tx| Box::pin(async move { cursors::find_cursor(tx, &id).await })).await
    }

    /// Reads the header of the first block to follow: the configured one, otherwise the newest block that cannot be
    /// reorganised. No payment can be below it, because no address has been issued on the chain yet.
    async fn read_first_header(&self) -> anyhow::Result<Header> {
        let height = match self.limits.start_height {
            Some(height) => height,
            None => {
                let tip = self.source.tip().await?;
                let depth = u64::from(self.chain.depths.last);
                let mark = tip.finalized.map_or(0, |mark| mark.height);
                mark.max(tip.head.height.saturating_sub(depth))
            }
        };
        self.source.header(height).await?.with_context(|| format!("the node has no block {height}"))
    }

    /// Executes the actions of the machine until the machine finishes the run.
    async fn run_machine_until_finished(&self, machine: &mut Machine) -> anyhow::Result<Ran> {
        let cross_checkable = self.source.independent_provider_count() > 1;
        let mut action = machine.start_run(cross_checkable, self.reconciler.deposits.needs_second_source());
        loop {
            if let Action::Finish(ran) = action {
                return Ok(ran);
            }
            let observation = self.execute_action(action).await?;
            let next = machine.decide_next_action(self.clock.now(), observation);
            machine.take_notices().into_iter().for_each(|notice| self.log_notice(notice));
            action = next.map_err(|error| self.add_context_to_step_error(error))?;
        }
    }

    /// Converts an error of the state machine to an `anyhow` error. Keeps a [`SourceError`] as its cause, and adds the
    /// name of the chain where the text of the error lacks it.
    fn add_context_to_step_error(&self, error: StepError) -> anyhow::Error {
        match error {
            StepError::Source(error) => error.into(),
            StepError::BalancesUnavailable(source) => {
                anyhow::Error::from(source.clone()).context(StepError::BalancesUnavailable(source))
            }
            StepError::WrongHeight { .. }
            | StepError::BrokenSequence(_)
            | StepError::WrongNumberOfAnswers { .. }
            | StepError::UnexpectedObservation(_) => anyhow::Error::from(error).context(self.chain.id.to_string()),
        }
    }

    /// Writes a notice of the state machine to the log.
    fn log_notice(&self, notice: Notice) {
        let chain = &self.chain.id;
        match notice {
            Notice::OldTip { age_ms } => warn!(%chain, "the tip of {chain} is {} s old", age_ms / 1_000),
            Notice::ConflictingHead(BlockRef { height, hash }) => warn!(
                %chain, height, %hash,
                "an endpoint of {chain} has block {hash} at height {height}, which is not on the branch that is followed"
            ),
            Notice::EndpointBehind { endpoint, head, height, stalled: false } => warn!(
                %chain,
                "{endpoint} is at block {head} and has no block {height} yet: the branch is kept until it has"
            ),
            Notice::EndpointBehind { endpoint, head, height, stalled: true } => warn!(
                %chain,
                "{endpoint} is at block {head}, does not move and has no block {height}: it is not waited for"
            ),
            Notice::NotCrossChecked { height, reason } => {
                warn!(%chain, "block {height} of {chain} was accepted from a single endpoint: {reason}");
            }
            Notice::NotCorroborated { height, reason } => warn!(
                %chain,
                "no second source can confirm deposits in block {height} of {chain}, so they wait: {reason}"
            ),
            Notice::Reorganised { depth, to } => {
                warn!(%chain, depth, "{chain} was reorganised: {depth} blocks are reversed, back to block {to}");
            }
            Notice::ExpiryDelayed(reason) => {
                debug!(%chain, "invoices of {chain} stay open until balances are known: {reason}");
            }
            Notice::ExpiredUnchecked { minutes, reason } => warn!(
                %chain,
                "invoices of {chain} expire although no endpoint has returned balances for {minutes} minutes: {reason}"
            ),
        }
    }
}

#[async_trait]
impl Worker for FollowWorker {
    fn name(&self) -> String {
        self.readiness.part()
    }

    fn idle_pause(&self) -> Duration {
        self.pause
    }

    fn is_wakeable(&self) -> bool {
        false
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        let mut state = self.state.lock().await;
        let outcome = self.load_and_run_machine_unless_halted(&mut state).await;
        let is_halted = state.machine.as_ref().is_some_and(Machine::is_halted);
        match (is_halted, &outcome) {
            (true, _) => self.readiness.withdraw_coins_and_report(&self.describe_halt()),
            (false, Ok(_)) => self.readiness.offer_coins_and_clear_problem(),
            (false, Err(error)) => self.readiness.decide_offer_after_failed_run(error),
        }
        outcome
    }
}

impl FollowWorker {
    /// Returns the text that tells the operator that the chain is halted, and how to resume it.
    fn describe_halt(&self) -> String {
        let chain = &self.chain.id;
        format!(
            "{chain} is halted until an operator decides: read the review `chain.halted` in `settled admin review list`, \
             then run `settled admin chain resume {chain}`"
        )
    }

    /// Runs the machine once. Loads the stored cursor first in the first run, when a failed run has left an invalid
    /// state in memory, and after an operator has resumed the chain. Fails while the chain is halted.
    async fn load_and_run_machine_unless_halted(&self, state: &mut FollowState) -> anyhow::Result<Ran> {
        let FollowState { machine, loaded, facts_verified_at } = state;
        // While the run is in progress, `loaded` is false, and it stays false when the run is cancelled.
        let was_loaded = std::mem::replace(loaded, false);
        let is_current = match machine {
            Some(machine) if was_loaded => !machine.is_halted() || self.is_chain_halted().await?,
            Some(_) | None => false,
        };
        let machine = if is_current {
            self.verify_withheld_tokens_when_due(facts_verified_at).await?;
            machine.as_mut()
        } else {
            if was_loaded {
                info!(chain = %self.chain.id, "{} is followed again", self.chain.id);
            }
            let cursor = self.verify_facts_and_load_or_create_cursor().await?;
            *facts_verified_at = Some(self.clock.now());
            self.restart_or_create_machine_at_cursor(machine, cursor)
        };
        let machine = machine.with_context(|| format!("{}: no block is stored", self.chain.id))?;
        if machine.is_halted() {
            *loaded = true;
            bail!("{}", self.describe_halt());
        }
        let outcome = self.run_machine_until_finished(machine).await;
        *loaded = match &outcome {
            Ok(_) => true,
            // When every block that was read is stored, the state in memory is still valid after a failure of the
            // source. Otherwise the next run loads the cursor and reads the blocks again.
            Err(error) => error.downcast_ref::<SourceError>().is_some() && !machine.has_unstored_blocks(),
        };
        outcome
    }

    /// Lets the machine continue at the cursor; creates the machine in the first run. Returns `None` when the cursor
    /// has no block.
    fn restart_or_create_machine_at_cursor<'a>(
        &self,
        machine: &'a mut Option<Machine>,
        cursor: Cursor,
    ) -> Option<&'a mut Machine> {
        let (now, deposit_limits) = (self.clock.now(), self.reconciler.deposits.limits());
        match machine {
            Some(machine) => machine.restart_from_cursor(cursor, now).then_some(machine),
            None => Some(machine.insert(Machine::new(self.chain.clone(), self.limits, deposit_limits, cursor, now)?)),
        }
    }
}
