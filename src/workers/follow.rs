//! Follows one chain: reads blocks, rewinds after reorgs, advances deposits, and expires invoices. Transfers and the
//! cursor are stored in one transaction. A block that failed is read again, never skipped.

mod cross_check;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use chain::follower::{Follower, ForkSearch, NextBlock, NextStep};
use chain::{Asset, AssetKind, Block, BlockRef, Family, Header, Source, SourceError, Tip};
use tokio::sync::Mutex;
use tracing::{debug, error, info, warn};

use crate::workers::balance_check::BalanceReconciler;
use crate::workers::follow::cross_check::CrossCheck;
use crate::workers::{Ran, Worker};
use clock::{Clock, Instant};
use db::Db;
use money::addresses::Addresses;
use money::assets::FollowedChain;
use money::deposits::{self, Position};
use money::immutable_facts::{self, Fact};
use money::invoices;

/// Maximum number of invoices that expire in one transaction.
const EXPIRE_MAX: i64 = 100;
/// Time between two searches for windows that have ended, while blocks are read without a break, in milliseconds.
const EXPIRE_PAUSE_MS: i64 = 5_000;
/// Time between two cross-checks while a second endpoint does not confirm a block, in milliseconds.
const HELD_PAUSE_MS: i64 = 1_000;
/// Depth from which on balances are requested at a newer block, because nodes prune old states.
const PROBE_DEPTH_MAX: u64 = 64;

/// The limits of one follower.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of blocks in one request.
    pub batch: u64,
    /// Age from which on a tip is reported as stale, in milliseconds: the node may be cut off from the network.
    pub tip_age_max_ms: i64,
    /// On a chain with slow blocks: the maximum age of a tip, in milliseconds, at which two polls in a row prove that
    /// no newer block exists. `None` on a chain with frequent blocks, where a window waits for a block that is younger
    /// than its end.
    pub quiet_tip_max_ms: Option<i64>,
    /// The first block to read; `None` for a final block at the time when the chain is followed for the first time.
    pub start_height: Option<u64>,
    /// Longest time for which the cursor is not stored after blocks without transfers, in milliseconds. After a crash
    /// those blocks are read again, which is harmless.
    pub cursor_flush_ms: i64,
    /// Time for which windows stay open because no node reports balances, in milliseconds.
    pub probe_patience_ms: i64,
}

/// Follows one chain.
pub struct FollowWorker {
    db: Db,
    clock: Clock,
    chain: FollowedChain,
    /// Addresses are issued only on chains that are followed, so the follower reports here when it follows the chain.
    addresses: Arc<Addresses>,
    /// The configured assets of the chain. The decimals of tokens are compared with the chain before the first block is
    /// read.
    assets: Vec<Asset>,
    source: Arc<dyn Source>,
    reconciler: BalanceReconciler,
    limits: Limits,
    pause: Duration,
    state: Mutex<Option<Following>>,
    /// The time since which no node reports balances; `None` while nodes report them.
    balances_unavailable_since: Mutex<Option<Instant>>,
    cross_check: Mutex<CrossCheck>,
}

/// The state in memory. After most failures it is dropped and loaded from the database again.
struct Following {
    follower: Follower,
    /// The block at which the stored cursor is.
    stored: BlockRef,
    stored_at: Instant,
    /// Blocks without transfers, read after the stored cursor.
    pending: Vec<Block>,
    /// The block time of the follower's cursor in unix seconds, at most the time at which the block was read. Miners
    /// may date a block in the future; such a time does not prove that all earlier payments have been read.
    time: i64,
    /// The time of the last poll at which the tip was the cursor and young enough; only on chains with slow blocks.
    looked_at: Option<Instant>,
    /// The time of the poll before `looked_at`. Every block that existed at this time has been read.
    quiet_until: Option<Instant>,
    /// The time of the last search for windows that have ended.
    expired_at: Instant,
    /// True when the chain may have deposits that are not final.
    unfinished: bool,
    /// The time of the last cross-check that did not confirm all blocks, so that deposits wait; `None` when none wait.
    cross_check_pending_at: Option<Instant>,
    /// The block at which balances are requested, kept until a request succeeds: an endpoint that lags a little would
    /// never have the newest block.
    probed_at: Option<BlockRef>,
    halted: bool,
}

impl FollowWorker {
    /// Follows the reconciler's chain through the reconciler's source.
    pub fn new(
        reconciler: BalanceReconciler,
        addresses: Arc<Addresses>,
        assets: Vec<Asset>,
        limits: Limits,
        pause: Duration,
    ) -> FollowWorker {
        let BalanceReconciler { db, clock, deposits, source } = reconciler.clone();
        let chain = deposits.chain().clone();
        addresses.set_followed(&chain.id, false);
        let (state, balances_unavailable_since, cross_check) = (Mutex::default(), Mutex::default(), Mutex::default());
        FollowWorker {
            db,
            clock,
            chain,
            addresses,
            assets,
            source,
            reconciler,
            limits,
            pause,
            state,
            balances_unavailable_since,
            cross_check,
        }
    }

    /// Fails when the node serves another chain than before, or when a token has other decimals than configured.
    async fn agree(&self) -> anyhow::Result<()> {
        let mut facts = vec![Fact::identity(&self.chain.id, self.source.identity().await?.id)];
        for asset in &self.assets {
            let AssetKind::Token { contract } = &asset.kind else { continue };
            let decimals = self.source.decimals(contract).await?;
            if decimals != asset.decimals {
                bail!("{} has {decimals} decimals on the chain and {} in the configuration", asset.id, asset.decimals);
            }
            facts.push(Fact::decimals(&asset.id, decimals));
        }
        let now = self.clock.now();
        Ok(self
            .db
            .write("pin_facts", move |tx| {
                Box::pin(async move { immutable_facts::record_or_compare(tx, now, &facts).await })
            })
            .await?)
    }

    async fn load(&self) -> anyhow::Result<Following> {
        self.agree().await?;
        self.open().await
    }

    async fn open(&self) -> anyhow::Result<Following> {
        let id = self.chain.id.clone();
        if let Some(cursor) =
            self.db.read("load_cursor", move |tx| Box::pin(async move { deposits::cursor(tx, &id).await })).await?
        {
            let batch = self.limits.batch;
            let keep = usize::try_from(self.reconciler.deposits.limits().keep)?;
            let Some(stored) = cursor.recent.last().copied() else { bail!("{}: no block is kept", self.chain.id) };
            if let Some(why) = &cursor.halted {
                warn!(chain = %self.chain.id, "{} stands still: {why}", self.chain.id);
            }
            return Ok(Following {
                follower: Follower::new(cursor.recent, cursor.final_height, keep, batch),
                stored,
                stored_at: self.clock.now(),
                pending: Vec::new(),
                time: cursor.time.min(self.clock.now().unix_seconds()),
                looked_at: None,
                quiet_until: None,
                expired_at: Instant(0),
                unfinished: true,
                cross_check_pending_at: None,
                probed_at: None,
                halted: cursor.halted.is_some(),
            });
        }
        let header = self.first_block().await?;
        let id = self.chain.id.clone();
        self.db
            .write("start_chain", move |tx| Box::pin(async move { deposits::start(tx, &id, &header).await }))
            .await?;
        info!(chain = %self.chain.id, height = header.height, "{} is followed from block {}", self.chain.id, header.height);
        Box::pin(self.open()).await
    }

    /// Returns the block at which a chain's first cursor is set: the configured one, or one that cannot be reorganised
    /// any more. No address was issued on the chain before, so no deposit can be below it.
    async fn first_block(&self) -> anyhow::Result<Header> {
        let tip = self.source.tip().await?;
        if let Some(height) = self.limits.start_height {
            return self.source.header(height).await?.with_context(|| format!("the node has no block {height}"));
        }
        let depth = u64::from(self.chain.depths.last);
        let mark = tip.finalized.map_or(0, |mark| mark.height);
        let height = mark.max(tip.head.height.saturating_sub(depth));
        self.source.header(height).await?.with_context(|| format!("the node has no block {height}"))
    }

    async fn step(&self, state: &mut Following) -> anyhow::Result<Ran> {
        let tip = self.source.tip().await?;
        match state.follower.next_step(&tip) {
            NextStep::Wait => {
                self.track_quiet_tip(state, &tip);
                self.at_tip(state, &tip).await
            }
            NextStep::ReadBlocks { from, to } => {
                (state.looked_at, state.quiet_until) = (None, None);
                let blocks = self.source.blocks(from, to, &self.chain.watched).await?;
                self.extend(state, &tip, blocks).await
            }
            NextStep::CompareHead if state.follower.contains(tip.head.block_ref()) == Some(false) => {
                self.handle_conflicting_head(state, &tip).await
            }
            NextStep::CompareHead => self.at_tip(state, &tip).await,
        }
    }

    /// Handles a head that is not above the cursor and not on the followed branch. The header of this height is
    /// requested again, and the branch is left only if the first endpoint returns a block of another branch too.
    /// Otherwise the conflict is logged: the heads of honest endpoints differ for a moment, but that of an invented
    /// branch differs permanently.
    async fn handle_conflicting_head(&self, state: &mut Following, tip: &Tip) -> anyhow::Result<Ran> {
        (state.looked_at, state.quiet_until) = (None, None);
        let Some(theirs) = self.source.header(tip.head.height).await? else { return Ok(Ran::Idle) };
        if state.follower.contains(theirs.block_ref()) == Some(false) {
            return self.rewind(state, theirs).await;
        }
        let (height, hash) = (tip.head.height, tip.head.hash);
        if self.cross_check.lock().await.objection.replace(tip.head.block_ref()) != Some(tip.head.block_ref()) {
            warn!(
                chain = %self.chain.id, height, %hash,
                "an endpoint of {} has block {hash} at height {height}, and not the one that is followed", self.chain.id
            );
        }
        self.at_tip(state, tip).await
    }

    /// Records a poll at which the tip was the cursor. With frequent blocks this proves nothing: the tip may be a
    /// minute old, as TRON's solidified block is, and the next block may hold a payment. With slow blocks a window does
    /// not wait for the next block, but for a second poll, which another endpoint answers if there is one. A stale tip
    /// does not count, because its node may be cut off from the network.
    fn track_quiet_tip(&self, state: &mut Following, tip: &Tip) {
        let now = self.clock.now();
        let age_ms = now.since(Instant::from_unix_seconds(tip.head.time));
        if age_ms > self.limits.tip_age_max_ms {
            warn!(chain = %self.chain.id, "the tip of {} is {} s old", self.chain.id, age_ms / 1_000);
        }
        if self
            .limits
            .quiet_tip_max_ms
            .is_some_and(|quiet_tip_max_ms| (-quiet_tip_max_ms..=quiet_tip_max_ms).contains(&age_ms))
        {
            state.quiet_until = state.looked_at.or(state.quiet_until);
            state.looked_at = Some(now);
        } else {
            (state.looked_at, state.quiet_until) = (None, None);
        }
    }

    async fn extend(&self, state: &mut Following, tip: &Tip, blocks: Vec<Block>) -> anyhow::Result<Ran> {
        let Some(first) = blocks.first() else { return Ok(Ran::Idle) };
        let now = self.clock.now();
        match state.follower.check_next(&first.header) {
            NextBlock::Extends => {}
            NextBlock::Forks => return self.rewind(state, first.header).await,
            NextBlock::WrongHeight => bail!(
                "{}: block {} was asked for and {} came",
                self.chain.id,
                state.follower.cursor().height + 1,
                first.header.height
            ),
        }
        for block in blocks {
            if state.follower.check_next(&block.header) != NextBlock::Extends {
                bail!("{}: block {} does not follow its predecessor", self.chain.id, block.header.height);
            }
            state.follower.push(block.header.block_ref());
            state.time = block.header.time.min(now.unix_seconds());
            state.pending.push(block);
        }
        let quiet = !state.unfinished && !state.pending.iter().any(Block::has_watched_activity);
        let young = now.since(state.stored_at) < self.limits.cursor_flush_ms;
        let few = u64::try_from(state.pending.len())? < self.reconciler.deposits.limits().keep;
        if !(quiet && young && few) {
            self.store(state, tip).await?;
        }
        // Blocks may come as fast as they are read, so that the cursor never reaches the tip. So windows are ended here
        // too, but not far below the tip, where nodes may have pruned the balances.
        let near = tip.head.height.saturating_sub(state.follower.cursor().height) < self.limits.batch;
        if near && now.since(state.expired_at) >= EXPIRE_PAUSE_MS {
            match self.expire(state, tip).await {
                // The windows stay open until the next search. The chain is followed nevertheless.
                Err(error) if error.downcast_ref::<SourceError>().is_some() => {
                    debug!(chain = %self.chain.id, "windows of {} wait: {error:#}", self.chain.id);
                }
                ended => drop(ended?),
            }
        }
        Ok(Ran::Worked)
    }

    /// Stores the pending blocks and the cursor, advances deposits and informs the shop, all in one transaction.
    async fn store(&self, state: &mut Following, tip: &Tip) -> anyhow::Result<()> {
        let (now, deposits, from) = (self.clock.now(), self.reconciler.deposits.clone(), state.stored);
        let whole = self.reached(state, tip);
        let reached = match whole {
            Ok(whole) => self.shown_of(state, whole).await?,
            Err(mark) => {
                let (height, hash) = (mark.height, mark.hash);
                self.dispute(format!(
                    "block {hash} at height {height} is called final, and another one is followed: nothing is confirmed until \
                     that ends; compare the nodes with others"
                ))
                .await?;
                None
            }
        };
        let blocks = std::mem::take(&mut state.pending);
        let stored = blocks.last().map_or(from, |block| block.header.block_ref());
        let applied = self
            .db
            .write("apply_blocks", move |tx| {
                Box::pin(async move { deposits.apply_blocks(tx, now, from, &blocks, reached).await })
            })
            .await?;
        state.stored = stored;
        state.stored_at = now;
        state.cross_check_pending_at = (whole.ok() != reached || reached.is_none()).then_some(now);
        state.unfinished = applied.unfinished;
        state.follower.raise_final_height(applied.final_height);
        Ok(())
    }

    /// Returns the position up to which deposits may advance. If the node's final block is above the cursor or older
    /// than the blocks in memory, it cannot be compared with the followed branch, and depth decides. The error is the
    /// node's final block when it is on another branch.
    fn reached(&self, state: &Following, tip: &Tip) -> Result<Position, BlockRef> {
        let ours = tip.finalized.and_then(|mark| state.follower.contains(mark).map(|ours| (mark, ours)));
        match ours {
            Some((mark, false)) => Err(mark),
            Some((_, true)) | None => {
                let mark = ours.map(|(mark, _)| mark.height);
                Ok(deposits::position(&self.chain, state.follower.cursor().height, mark))
            }
        }
    }

    /// Handles a tip at the cursor: finishes deposits that the node's final block has reached, and ends windows.
    async fn at_tip(&self, state: &mut Following, tip: &Tip) -> anyhow::Result<Ran> {
        let cursor_moved = !state.pending.is_empty();
        let stale = self.clock.now().since(state.stored_at) >= self.limits.cursor_flush_ms;
        let finishes = |reached: Position| reached.last > state.follower.final_height();
        let may_finish = match state.cross_check_pending_at {
            // A cross-check is repeated after a pause and not at each poll, which may come several times a second.
            Some(asked_at) => self.clock.now().since(asked_at) >= HELD_PAUSE_MS,
            None => self.reached(state, tip).is_ok_and(finishes),
        };
        let may_finish = state.unfinished && may_finish;
        if (cursor_moved && stale) || may_finish {
            let before = state.follower.final_height();
            self.store(state, tip).await?;
            if cursor_moved || state.follower.final_height() > before {
                return Ok(Ran::Worked);
            }
        }
        self.expire(state, tip).await
    }

    /// Ends windows that are over by the clock *and* by the chain: every block that could hold a payment in time has
    /// been read.
    async fn expire(&self, state: &mut Following, tip: &Tip) -> anyhow::Result<Ran> {
        let now = self.clock.now();
        state.expired_at = now;
        let read_until = Instant::from_unix_seconds(state.time);
        let seen_until = state.quiet_until.map_or(read_until, |quiet| quiet.max(read_until)).min(now);
        let passed = seen_until.plus_ms(-self.reconciler.deposits.limits().grace.ms);
        let (chain, grace) = (self.chain.id.clone(), self.reconciler.deposits.limits().grace);
        let ended = self
            .db
            .read("list_expirable", move |tx| {
                Box::pin(async move { invoices::list_expirable(tx, &chain, now, passed, grace, EXPIRE_MAX).await })
            })
            .await?;
        if ended.is_empty() {
            // No balance is needed now, so the time of an earlier failure does not count for the next window.
            *self.balances_unavailable_since.lock().await = None;
            return Ok(Ran::Idle);
        }
        if !state.pending.is_empty() {
            self.store(state, tip).await?;
        }
        // Before a window ends, the balance of its address is read, in case the scan missed a transfer.
        let mut blind = None;
        if self.chain.family != Family::Bitcoin {
            let cursor = state.follower.cursor();
            let near = |at: &BlockRef| cursor.height.saturating_sub(at.height) < PROBE_DEPTH_MAX;
            let known = state.probed_at.filter(|at| near(at) && state.follower.contains(*at) == Some(true));
            let at = *state.probed_at.insert(known.unwrap_or(cursor));
            let explained = self.reconciler.is_explained(at, ended.clone()).await;
            if explained.is_ok() {
                (state.probed_at, *self.balances_unavailable_since.lock().await) = (None, None);
            }
            match explained {
                Ok(true) => {}
                Ok(false) => {
                    self.store(state, tip).await?;
                    return Ok(Ran::Worked);
                }
                Err(error) => blind = Some(self.balance_timeout(now, error).await?),
            }
        }
        let (deposits, ended) = (self.reconciler.deposits.clone(), ended.into_iter().collect());
        self.db
            .write("expire_invoices", move |tx| {
                Box::pin(async move { deposits.expire_invoices(tx, now, &ended, blind.as_deref()).await })
            })
            .await?;
        Ok(Ran::Worked)
    }

    /// Returns the reason for ending windows without balances, for the operator who compares the addresses by hand.
    /// Returns `error` until `probe_patience_ms` has passed. Windows need not wait forever, because the blocks were
    /// read and verified without the balances.
    async fn balance_timeout(&self, now: Instant, error: anyhow::Error) -> anyhow::Result<String> {
        if error.downcast_ref::<SourceError>().is_none() {
            return Err(error);
        }
        let blind_ms = now.since(*self.balances_unavailable_since.lock().await.get_or_insert(now));
        if blind_ms < self.limits.probe_patience_ms {
            return Err(error.context("a window waits for the balance of its address"));
        }
        let minutes = blind_ms / 60_000;
        warn!(chain = %self.chain.id, "windows end although nobody has told balances for {minutes} minutes: {error:#}");
        Ok(format!("its window ended although nobody told the balance of its address for {minutes} minutes: {error:#}"))
    }

    /// Finds the last common block of the followed branch and the branch of `forking`, and reverses everything above
    /// it.
    async fn rewind(&self, state: &mut Following, forking: Header) -> anyhow::Result<Ran> {
        let mut lowest = forking;
        let to = loop {
            match state.follower.search_fork(&lowest) {
                ForkSearch::RequestHeader(height) => match self.source.header(height).await? {
                    Some(header) if header.hash == lowest.parent => lowest = header,
                    Some(_) => {
                        let why = format!(
                            "block {} was shown, and a block {height} that is not its parent: a branch that changes or is made up",
                            lowest.height
                        );
                        return Err(SourceError::InvalidResponse(why).into());
                    }
                    None => return Err(SourceError::BlockNotFound(height).into()),
                },
                ForkSearch::RewindTo(to) => break Some(to),
                ForkSearch::TooDeep => break None,
            }
        };
        if !self.may_rewind(to, lowest.block_ref()).await? {
            return Ok(Ran::Idle);
        }
        let Some(to) = to else { return self.halt(state).await };
        let depth = state.follower.cursor().height - to.height;
        warn!(chain = %self.chain.id, depth, "{} was reorganised: {depth} blocks are taken back to {}", self.chain.id, to.height);
        if to.height >= state.stored.height {
            state.pending.retain(|block| block.header.height <= to.height);
        } else {
            state.pending.clear();
            let (now, deposits, from) = (self.clock.now(), self.reconciler.deposits.clone(), state.stored);
            self.db
                .write("rewind_chain", move |tx| Box::pin(async move { deposits.rewind(tx, now, from, to).await }))
                .await?;
            state.stored = to;
            state.unfinished = true;
        }
        state.follower.rewind(to);
        Ok(Ran::Worked)
    }

    /// Returns true while the stored chain is halted. An operator may have resumed it since the state was loaded.
    async fn is_halted(&self) -> anyhow::Result<bool> {
        let chain = self.chain.id.clone();
        let halted = self.db.read("find_halted", move |tx| Box::pin(async move { deposits::halted(tx, &chain).await }));
        Ok(halted.await?.is_some())
    }

    async fn halt(&self, state: &mut Following) -> anyhow::Result<Ran> {
        let why = format!(
            "the node's chain left ours below block {} or deeper than {} blocks; compare the nodes before anything is paid out",
            state.follower.final_height(),
            self.reconciler.deposits.limits().keep
        );
        error!(chain = %self.chain.id, "{} is halted: {why}", self.chain.id);
        let (now, chain) = (self.clock.now(), self.chain.id.clone());
        self.db
            .write("halt_chain", move |tx| Box::pin(async move { deposits::halt(tx, now, &chain, &why).await }))
            .await?;
        state.halted = true;
        Ok(Ran::Worked)
    }
}

#[async_trait]
impl Worker for FollowWorker {
    fn name(&self) -> String {
        format!("follow {}", self.chain.id)
    }

    fn pause(&self) -> Duration {
        self.pause
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        let mut guard = self.state.lock().await;
        let mut state = match guard.take() {
            Some(state) => state,
            None => self.load().await?,
        };
        if state.halted && !self.is_halted().await? {
            info!(chain = %self.chain.id, "{} is followed again", self.chain.id);
            state = self.load().await?;
        }
        self.addresses.set_followed(&self.chain.id, !state.halted);
        if state.halted {
            *guard = Some(state);
            bail!("{} is halted until a person has looked at it: see the review `chain.halted`", self.chain.id);
        }
        match self.step(&mut state).await {
            Ok(ran) => {
                *guard = Some(state);
                Ok(ran)
            }
            // Without pending blocks the state in memory equals the stored one and is kept. Otherwise it is loaded
            // again, and the pending blocks are read again.
            Err(error) if error.downcast_ref::<SourceError>().is_some() && state.pending.is_empty() => {
                *guard = Some(state);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}
