//! Follows one chain: reads blocks, rewinds forks, advances deposits, ends windows. The cursor and what it saw move in one
//! transaction; a failed block is read again, never skipped.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use chain::follower::{Fit, Follower, Search, Step};
use chain::{Asset, AssetKind, Block, BlockRef, Family, Header, Source, Tip};
use tokio::sync::Mutex;
use tracing::{error, info, warn};

use crate::clock::{Clock, Instant};
use crate::db::Db;
use crate::money::addresses::Addresses;
use crate::money::coins::Chain;
use crate::money::deposits::{self, Grace};
use crate::money::ledger::PostError;
use crate::money::pinned::{self, Fact};
use crate::money::{invoices, payments};
use crate::reviews;
use crate::shop::orders;
use crate::workers::probe::Prober;
use crate::workers::{Ran, Worker};

/// Windows ended in one transaction.
const EXPIRE_MAX: i64 = 100;

/// Numbers of one follower.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Deepest reorganisation that can be followed, in blocks.
    pub keep: u64,
    /// Most blocks asked for at once.
    pub batch: u64,
    /// A tip older than this is no word for the present: the node may be cut off.
    pub tip_age_max_ms: i64,
    /// The first block to read, where one is configured; else one that cannot vanish any more.
    pub start_height: Option<u64>,
    /// Blocks without a transfer may wait this long before their cursor is stored; reading them again is harmless.
    pub lazy_ms: i64,
    pub grace: Grace,
    /// How long windows are held open because nobody tells balances.
    pub probe_patience_ms: i64,
}

pub struct Follow {
    db: Db,
    clock: Clock,
    chain: Chain,
    /// Told whether the chain is followed: nobody is given an address that nobody watches.
    addresses: Arc<Addresses>,
    /// What the chain is configured to pay with; tokens are compared with the chain before the first block is read.
    assets: Vec<Asset>,
    source: Arc<dyn Source>,
    prober: Prober,
    limits: Limits,
    pause: Duration,
    state: Mutex<Option<Following>>,
    /// Since when nobody tells balances.
    blind_since: Mutex<Option<Instant>>,
}

/// What is known in memory; dropped after any failure and read again from the database.
struct Following {
    follower: Follower,
    /// Where the stored cursor stands.
    stored: BlockRef,
    stored_at: Instant,
    /// Blocks without transfers, read after the stored cursor.
    pending: Vec<Block>,
    /// Block time of the follower's cursor, unix seconds.
    time: i64,
    /// When the node's tip was last seen to be our cursor.
    at_tip_at: Option<Instant>,
    /// Whether there are deposits that are not final.
    unfinished: bool,
    halted: bool,
}

impl Follow {
    /// Follows the prober's chain through the prober's source.
    pub fn new(
        prober: Prober,
        addresses: Arc<Addresses>,
        assets: Vec<Asset>,
        limits: Limits,
        pause: Duration,
    ) -> Follow {
        let Prober { db, clock, chain, source, .. } = prober.clone();
        addresses.set_followed(&chain.id, false);
        let (state, blind_since) = (Mutex::default(), Mutex::default());
        Follow { db, clock, chain, addresses, assets, source, prober, limits, pause, state, blind_since }
    }

    /// Refuses to follow another chain than last time, or a token whose decimals are not what is configured.
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
        Ok(self.db.write("pin_facts", move |tx| Box::pin(async move { pinned::agree(tx, now, &facts).await })).await?)
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
            let keep = usize::try_from(self.limits.keep)?;
            let Some(stored) = cursor.recent.last().copied() else { bail!("{}: no block is kept", self.chain.id) };
            if let Some(why) = &cursor.halted {
                warn!(chain = %self.chain.id, "{} stands still: {why}", self.chain.id);
            }
            return Ok(Following {
                follower: Follower::new(cursor.recent, cursor.final_height, keep, batch),
                stored,
                stored_at: self.clock.now(),
                pending: Vec::new(),
                time: cursor.time,
                at_tip_at: None,
                unfinished: true,
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

    /// A block that will not vanish: nothing below it was ever paid to us.
    async fn first_block(&self) -> anyhow::Result<Header> {
        let tip = self.source.tip().await?;
        if let Some(height) = self.limits.start_height {
            return self.source.header(height).await?.with_context(|| format!("the node has no block {height}"));
        }
        let depth = u64::from(self.chain.depths.last);
        let height = tip.finalized.unwrap_or(0).max(tip.head.height.saturating_sub(depth));
        self.source.header(height).await?.with_context(|| format!("the node has no block {height}"))
    }

    async fn step(&self, state: &mut Following) -> anyhow::Result<Ran> {
        let tip = self.source.tip().await?;
        match state.follower.next(&tip) {
            Step::Wait => {
                let now = self.clock.now();
                let age = now.since(Instant::from_unix_seconds(tip.head.time));
                if age <= self.limits.tip_age_max_ms {
                    state.at_tip_at = Some(now);
                } else {
                    // A node without peers stands still: no window may end on its word.
                    warn!(chain = %self.chain.id, "the tip of {} is {} s old", self.chain.id, age / 1_000);
                }
                self.settle_down(state, &tip).await
            }
            Step::Extend { from, to } => {
                let blocks = self.source.blocks(from, to, &self.chain.watched).await?;
                self.extend(state, &tip, blocks).await
            }
            Step::Compare { height } => {
                let Some(theirs) = self.source.header(height).await? else { return Ok(Ran::Idle) };
                match state.follower.compare(theirs.position()) {
                    Fit::Forks => self.rewind(state).await,
                    Fit::Extends | Fit::Misplaced => self.settle_down(state, &tip).await,
                }
            }
        }
    }

    async fn extend(&self, state: &mut Following, tip: &Tip, blocks: Vec<Block>) -> anyhow::Result<Ran> {
        let Some(first) = blocks.first() else { return Ok(Ran::Idle) };
        match state.follower.fits(&first.header) {
            Fit::Extends => {}
            Fit::Forks => return self.rewind(state).await,
            Fit::Misplaced => bail!(
                "{}: block {} was asked for and {} came",
                self.chain.id,
                state.follower.cursor().height + 1,
                first.header.height
            ),
        }
        for block in blocks {
            if state.follower.fits(&block.header) != Fit::Extends {
                bail!("{}: block {} does not follow its predecessor", self.chain.id, block.header.height);
            }
            state.follower.extended(block.header.position());
            state.time = block.header.time;
            state.pending.push(block);
        }
        let now = self.clock.now();
        let quiet = !state.unfinished && state.pending.iter().all(Block::is_quiet);
        let young = now.since(state.stored_at) < self.limits.lazy_ms;
        let few = u64::try_from(state.pending.len())? < self.limits.keep;
        if !(quiet && young && few) {
            self.store(state, tip).await?;
        }
        Ok(Ran::Worked)
    }

    /// Stores pending blocks and the cursor, advances deposits, and tells the shop, all in one transaction.
    async fn store(&self, state: &mut Following, tip: &Tip) -> anyhow::Result<()> {
        let (now, chain, tip, from) = (self.clock.now(), self.chain.clone(), *tip, state.stored);
        let limits = deposits::Limits { grace: self.limits.grace, keep: self.limits.keep };
        let blocks = std::mem::take(&mut state.pending);
        let stored = blocks.last().map_or(from, |block| block.header.position());
        let applied = self
            .db
            .write("apply_blocks", move |tx| {
                Box::pin(async move {
                    let applied = deposits::apply(tx, now, &chain, limits, from, &blocks, &tip).await?;
                    orders::follow(tx, now, &applied.changes).await?;
                    Ok::<_, PostError>(applied)
                })
            })
            .await?;
        state.stored = stored;
        state.stored_at = now;
        state.unfinished = applied.unfinished;
        state.follower.finalized(applied.position.last);
        Ok(())
    }

    /// At the tip: late confirmations by the final mark, and windows that ended.
    async fn settle_down(&self, state: &mut Following, tip: &Tip) -> anyhow::Result<Ran> {
        let cursor_moved = !state.pending.is_empty();
        let stale = self.clock.now().since(state.stored_at) >= self.limits.lazy_ms;
        let may_finish = state.unfinished && tip.finalized.is_some_and(|mark| mark > state.follower.final_height());
        if (cursor_moved && stale) || may_finish {
            let before = state.follower.final_height();
            self.store(state, tip).await?;
            if cursor_moved || state.follower.final_height() > before {
                return Ok(Ran::Worked);
            }
        }
        self.expire(state, tip).await
    }

    /// Ends windows that clock *and* chain have passed: no block that could still bring money in time is unread.
    async fn expire(&self, state: &mut Following, tip: &Tip) -> anyhow::Result<Ran> {
        let now = self.clock.now();
        let seen_until = Instant::from_unix_seconds(state.time).max(state.at_tip_at.unwrap_or(Instant(0))).min(now);
        let passed = seen_until.plus_ms(-self.limits.grace.ms);
        let (chain, grace) = (self.chain.id.clone(), self.limits.grace);
        let ended = self
            .db
            .read("list_expirable", move |tx| {
                Box::pin(async move { invoices::list_expirable(tx, &chain, now, passed, grace, EXPIRE_MAX).await })
            })
            .await?;
        if ended.is_empty() {
            return Ok(Ran::Idle);
        }
        if !state.pending.is_empty() {
            self.store(state, tip).await?;
        }
        // The safety net: before a window ends, the address itself is asked whether the scan missed anything.
        let mut blind = None;
        if self.chain.family != Family::Bitcoin {
            match self.prober.is_explained(state.follower.cursor(), ended.clone()).await {
                Ok(true) => *self.blind_since.lock().await = None,
                Ok(false) => {
                    *self.blind_since.lock().await = None;
                    self.store(state, tip).await?;
                    return Ok(Ran::Worked);
                }
                Err(error) => blind = Some(self.lose_patience(now, error).await?),
            }
        }
        self.db
            .write("expire_invoices", move |tx| {
                Box::pin(async move {
                    let mut changes = Vec::new();
                    for invoice in ended {
                        let Some(change) = invoices::expire(tx, now, invoice).await? else { continue };
                        changes.push(change);
                        if let Some(why) = &blind {
                            reviews::open(tx, now, "probe.blind", &format!("invoice/{invoice}"), why).await?;
                        }
                    }
                    orders::follow(tx, now, &changes).await?;
                    Ok::<_, PostError>(())
                })
            })
            .await?;
        Ok(Ran::Worked)
    }

    /// Blocks were read and verified without the balances, so a node that cannot tell them holds windows open for a while,
    /// not for ever. The words are for whoever compares the addresses by hand.
    async fn lose_patience(&self, now: Instant, error: anyhow::Error) -> anyhow::Result<String> {
        if error.downcast_ref::<chain::SourceError>().is_none() {
            return Err(error);
        }
        let blind_ms = now.since(*self.blind_since.lock().await.get_or_insert(now));
        if blind_ms < self.limits.probe_patience_ms {
            return Err(error.context("a window waits for the balance of its address"));
        }
        let minutes = blind_ms / 60_000;
        warn!(chain = %self.chain.id, "windows end although nobody has told balances for {minutes} minutes: {error:#}");
        Ok(format!("its window ended although nobody told the balance of its address for {minutes} minutes: {error:#}"))
    }

    /// Finds the last common block and takes back what lies above it.
    async fn rewind(&self, state: &mut Following) -> anyhow::Result<Ran> {
        let mut known = None;
        let to = loop {
            match state.follower.search(known) {
                Search::Ask(height) => match self.source.header(height).await? {
                    Some(header) => known = Some(header.position()),
                    None => bail!("{}: the node lost block {height} while the fork was searched", self.chain.id),
                },
                Search::RewindTo(to) => break to,
                Search::TooDeep => return self.halt(state).await,
            }
        };
        if to == state.follower.cursor() {
            bail!("{}: an endpoint's block does not follow block {}, which it has too", self.chain.id, to.height);
        }
        let depth = state.follower.cursor().height - to.height;
        warn!(chain = %self.chain.id, depth, "{} was reorganised: {depth} blocks are taken back to {}", self.chain.id, to.height);
        if to.height >= state.stored.height {
            state.pending.retain(|block| block.header.height <= to.height);
        } else {
            state.pending.clear();
            let (now, chain, from) = (self.clock.now(), self.chain.clone(), state.stored);
            self.db
                .write("rewind_chain", move |tx| {
                    Box::pin(async move {
                        let changes: Vec<payments::Change> = deposits::rewind(tx, now, &chain, from, to).await?;
                        orders::follow(tx, now, &changes).await?;
                        Ok::<_, PostError>(())
                    })
                })
                .await?;
            state.stored = to;
            state.unfinished = true;
        }
        state.follower.rewound(to);
        Ok(Ran::Worked)
    }

    /// A person may have looked at it meanwhile.
    async fn is_halted(&self) -> anyhow::Result<bool> {
        let chain = self.chain.id.clone();
        let halted = self.db.read("find_halted", move |tx| Box::pin(async move { deposits::halted(tx, &chain).await }));
        Ok(halted.await?.is_some())
    }

    async fn halt(&self, state: &mut Following) -> anyhow::Result<Ran> {
        let why = format!(
            "the node's chain left ours below block {} or deeper than {} blocks; compare the nodes before anything is paid out",
            state.follower.final_height(),
            self.limits.keep
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
impl Worker for Follow {
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
            // Whatever was read but not stored is read again.
            Err(error) if error.downcast_ref::<chain::SourceError>().is_some() && state.pending.is_empty() => {
                *guard = Some(state);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}
