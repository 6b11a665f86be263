//! Follows one chain: reads blocks, reverses orphaned blocks, advances deposits, expires invoices. The state machine in
//! [`machine`] decides, and the worker executes its actions. The cursor and the deposits change in one database
//! transaction, so a block that fails is read again and never skipped.

pub mod machine;
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
use crate::workers::{Ran, Worker};
use clock::Clock;
use db::Db;
use money::addresses::Addresses;
use money::assets::FollowedChain;
use money::cursors::{self, Cursor};
use money::immutable_facts::{self, Fact};

/// The worker that follows one chain.
pub struct FollowWorker {
    db: Db,
    clock: Clock,
    chain: FollowedChain,
    /// The addresses of all chains. The follower sets there whether its chain is followed, because addresses are issued
    /// only on followed chains.
    addresses: Arc<Addresses>,
    /// The chain's configured assets. Before the first block is read, the decimals of each token are compared with the
    /// contract.
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
    /// False after a failed or cancelled run, so that the next run loads the stored cursor first.
    loaded: bool,
}

impl FollowWorker {
    /// Creates a worker that follows the reconciler's chain through the reconciler's source.
    pub fn new(
        reconciler: BalanceReconciler,
        addresses: Arc<Addresses>,
        assets: Vec<Asset>,
        limits: FollowLimits,
        pause: Duration,
    ) -> FollowWorker {
        let BalanceReconciler { db, clock, deposits, source } = reconciler.clone();
        let chain = deposits.chain().clone();
        addresses.set_chain_followed(&chain.id, false);
        let state = Mutex::default();
        FollowWorker { db, clock, chain, addresses, assets, source, reconciler, limits, pause, state }
    }

    /// Stores the identity of the chain and the decimals of its tokens at the first start. Later fails when the node
    /// reports another identity, or when the decimals of a token differ from the configuration or the stored value.
    async fn record_or_verify_facts(&self) -> anyhow::Result<()> {
        let mut facts = vec![Fact::new_chain_identity(&self.chain.id, self.source.identity().await?.id)];
        for asset in &self.assets {
            let AssetKind::Token { contract } = &asset.kind else { continue };
            let decimals = self.source.decimals(contract).await?;
            if decimals != asset.decimals {
                bail!("{} has {decimals} decimals on the chain and {} in the configuration", asset.id, asset.decimals);
            }
            facts.push(Fact::new_asset_decimals(&asset.id, decimals));
        }
        let now = self.clock.now();
        Ok(self
            .db
            .write("record_or_compare_facts", move |tx| {
                Box::pin(async move { immutable_facts::record_or_compare_facts(tx, now, &facts).await })
            })
            .await?)
    }

    /// Verifies the chain's facts and returns the stored cursor. For a chain without a cursor, stores one at the first
    /// block to read.
    async fn load_or_create_cursor(&self) -> anyhow::Result<Cursor> {
        self.record_or_verify_facts().await?;
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

    /// Reads the header of the configured first block or, without one, of the newest block that cannot be reorganised.
    /// No deposit can be below this block, because no address was issued on the chain before.
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
        let cross_checkable = self.source.independent_endpoints() > 1;
        let mut action = machine.start_run(cross_checkable, self.reconciler.deposits.needs_second_source());
        loop {
            if let Action::Finish(ran) = action {
                return Ok(ran);
            }
            let observation = self.execute_action(action).await?;
            let next = machine.decide_next_action(self.clock.now(), observation);
            machine.take_notices().into_iter().for_each(|notice| self.log_notice(notice));
            action = next.map_err(|error| self.to_anyhow_error(error))?;
        }
    }

    /// Converts an error of the machine, with its cause and the name of the chain.
    fn to_anyhow_error(&self, error: StepError) -> anyhow::Error {
        match error {
            StepError::Source(error) => error.into(),
            StepError::BalancesUnavailable(source) => {
                let context = StepError::BalancesUnavailable(source.clone()).to_string();
                anyhow::Error::from(source).context(context)
            }
            StepError::WrongHeight { .. }
            | StepError::BrokenSequence(_)
            | StepError::WrongNumberOfAnswers { .. }
            | StepError::UnexpectedObservation(_) => {
                anyhow::Error::from(error).context(self.chain.id.to_string())
            }
        }
    }

    /// Writes a notice of the machine to the log.
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
        format!("follow {}", self.chain.id)
    }

    fn idle_pause(&self) -> Duration {
        self.pause
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        let mut state = self.state.lock().await;
        let FollowState { machine, loaded } = &mut *state;
        // `loaded` stays false when the run fails or is cancelled.
        let was_loaded = std::mem::replace(loaded, false);
        let machine = match machine {
            Some(machine) if was_loaded && !machine.is_halted() => machine,
            Some(machine) if was_loaded && self.is_chain_halted().await? => machine,
            Some(machine) => {
                if was_loaded {
                    info!(chain = %self.chain.id, "{} is followed again", self.chain.id);
                }
                let cursor = self.load_or_create_cursor().await?;
                if !machine.restart_from_cursor(cursor, self.clock.now()) {
                    bail!("{}: no block is stored", self.chain.id);
                }
                machine
            }
            None => {
                let cursor = self.load_or_create_cursor().await?;
                let created = Machine::new(
                    self.chain.clone(),
                    self.limits,
                    self.reconciler.deposits.limits(),
                    cursor,
                    self.clock.now(),
                );
                machine.insert(created.with_context(|| format!("{}: no block is stored", self.chain.id))?)
            }
        };
        self.addresses.set_chain_followed(&self.chain.id, !machine.is_halted());
        if machine.is_halted() {
            *loaded = true;
            bail!("{} is halted until an operator decides: see the review `chain.halted`", self.chain.id);
        }
        let outcome = self.run_machine_until_finished(machine).await;
        *loaded = match &outcome {
            Ok(_) => true,
            // The state in memory is still valid when no block was read without being stored. Otherwise the blocks are
            // read again.
            Err(error) => error.downcast_ref::<SourceError>().is_some() && !machine.has_unstored_blocks(),
        };
        outcome
    }
}
