<<<<<<< HEAD
//! Cross-checks: deposits are confirmed, and confirmed deposits are reversed, only when a second, independent endpoint
//! has the same block.
=======
//! What second endpoints showed of the blocks that money rests on. Deposits are confirmed and reversed only where a second
//! endpoint has the same blocks.
>>>>>>> main

use chain::BlockRef;

use clock::Instant;

<<<<<<< HEAD
/// The results of earlier cross-checks, by which repeated log lines and reviews are avoided.
#[derive(Default)]
pub struct CrossCheck {
    /// True while a review reports that endpoints differ; `None` before the first cross-check after a start.
    pub disputed: Option<bool>,
    /// The head of a lagging endpoint, and the time at which the endpoint first reported this head.
    pub behind: Option<(BlockRef, Instant)>,
    /// True when the log has a warning about the lagging endpoint.
    pub told_behind: bool,
    /// The last head on another branch that was logged.
    pub objection: Option<BlockRef>,
}

/// The part of the followed branch that a second endpoint confirms.
enum Corroboration {
    /// All blocks up to the requested one.
    Whole,
    /// The blocks up to this head of the second endpoint, which is below the requested block.
    UpTo(BlockRef),
    /// None: the second endpoint has another block at this height.
    Not,
}

impl FollowWorker {
    /// Returns the part of `reached` that a second endpoint confirms; `None` when it confirms nothing. Only the newest
    /// block whose deposits would advance is checked, because the older ones are its ancestors. So a cross-check costs
    /// one request, and none when no deposit would advance. An endpoint that lags confirms the blocks up to its head.
    pub(super) async fn shown_of(&self, state: &Following, reached: Position) -> anyhow::Result<Option<Position>> {
        if self.source.independent_endpoints() < 2 {
            self.settle_dispute().await?;
            return Ok(Some(reached));
        }
        let paid = |block: &&Block| !block.transfers.is_empty();
        if !(state.unfinished || state.pending.iter().any(|block| paid(&block))) {
            return Ok(Some(reached));
        }
        let least = u64::from(self.chain.depths.confirmations(Some(0)));
        let deep = |height: Height| height <= reached.last || height + least - 1 <= reached.cursor;
        let fresh =
            state.pending.iter().filter(paid).map(|block| block.header.height).filter(|height| deep(*height)).max();
        let chain = self.chain.id.clone();
        let stored = self.db.select_one("newest_due", move |tx| {
            Box::pin(async move { deposits::newest_due(tx, &chain, reached).await })
        });
        let stored: Result<_, db::Error> = stored.await;
        let Some(height) = stored?.max(fresh) else { return Ok(Some(reached)) };
        Ok(match self.shown(state.follower.nearest_block(height)).await? {
            Corroboration::Whole => Some(reached),
            Corroboration::UpTo(head) if state.follower.contains(head) == Some(true) => {
                Some(Position { cursor: reached.cursor.min(head.height), last: reached.last.min(head.height) })
            }
            Corroboration::UpTo(_) | Corroboration::Not => None,
        })
    }

    /// Checks whether a second endpoint has the block. An endpoint that does not answer, or whose head does not move,
    /// counts as confirming, so that it cannot stop the shop. An endpoint that lags is waited for, because an invented
    /// block is ahead of the heads of honest endpoints.
    async fn shown(&self, block: BlockRef) -> anyhow::Result<Corroboration> {
        let (now, chain) = (self.clock.now(), &self.chain.id);
        match self.source.cross_check(&block).await {
            CrossCheckResult::Confirmed => {
                self.settle_dispute().await?;
                self.cross_check.lock().await.told_behind = false;
                Ok(Corroboration::Whole)
            }
            CrossCheckResult::Conflicting { endpoint, hash } => {
                self.dispute(format!(
                    "{endpoint} has block {hash} at height {}, another endpoint has {}: nothing is confirmed or taken back \
                     until they agree; compare them with others, and take out the one that is wrong",
                    block.height, block.hash
                ))
                .await?;
                Ok(Corroboration::Not)
            }
            CrossCheckResult::Behind { endpoint, head } => {
                let mut cross_check = self.cross_check.lock().await;
                let since =
                    cross_check.behind.filter(|(at, _)| *at == head.block_ref()).map_or(now, |(_, since)| since);
                cross_check.behind = Some((head.block_ref(), since));
                let stands = now.since(since) >= self.limits.tip_age_max_ms;
                if stands || !std::mem::replace(&mut cross_check.told_behind, true) {
                    let so = if stands { "it stands still and is not waited for" } else { "it is waited for" };
                    let height = block.height;
                    warn!(chain = %chain, "{endpoint} is at block {} and has no block {height} yet: {so}", head.height);
                }
                Ok(if stands { Corroboration::Whole } else { Corroboration::UpTo(head.block_ref()) })
            }
            CrossCheckResult::NoAnswer(why) => {
                warn!(chain = %chain, "block {} is believed on the word of one endpoint: {why}", block.height);
                Ok(Corroboration::Whole)
            }
        }
    }

    /// Opens the review that reports differing endpoints, unless it is open.
    pub(super) async fn dispute(&self, why: String) -> anyhow::Result<()> {
        let (now, chain) = (self.clock.now(), self.chain.id.clone());
        let mut cross_check = self.cross_check.lock().await;
        if cross_check.disputed != Some(true) {
            error!(chain = %chain, "endpoints of {chain} differ: {why}");
            let opened = self
                .db
                .write("dispute", move |tx| Box::pin(async move { deposits::dispute(tx, now, &chain, &why).await }));
            opened.await?;
            cross_check.disputed = Some(true);
        }
        Ok(())
    }

    /// Closes the review that reports differing endpoints, unless it is closed.
    async fn settle_dispute(&self) -> anyhow::Result<()> {
        let (now, chain) = (self.clock.now(), self.chain.id.clone());
        let mut cross_check = self.cross_check.lock().await;
        if cross_check.disputed != Some(false) {
            self.db.write("agree", move |tx| Box::pin(async move { deposits::agree(tx, now, &chain).await })).await?;
            cross_check.disputed = Some(false);
        }
        Ok(())
    }

    /// Returns true when the followed branch may be left for the branch of the block `theirs`. A second endpoint must
    /// confirm that block if the rewind would reverse confirmed deposits or halt the chain. `to` is the last common
    /// block; `None` when it is too deep for a rewind.
    pub(super) async fn may_rewind(&self, to: Option<BlockRef>, theirs: BlockRef) -> anyhow::Result<bool> {
        if self.source.independent_endpoints() < 2 {
            return Ok(true);
        }
        if let Some(to) = to {
            let chain = self.chain.id.clone();
            let counts = self.db.select_one("confirmed_above", move |tx| {
                Box::pin(async move { deposits::has_confirmed_above(tx, &chain, to.height).await })
            });
            let counts: Result<_, db::Error> = counts.await;
            if !counts? {
                return Ok(true);
            }
        }
        Ok(matches!(self.shown(theirs).await?, Corroboration::Whole))
=======
/// The part of our branch that a second endpoint has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corroboration {
    /// All of it.
    Full,
    /// The part up to its head, which is this block.
    UpTo(BlockRef),
    /// Nothing, or another branch.
    None,
}

/// The dispute between endpoints of one chain, and what was logged about endpoints that are behind.
#[derive(Debug, Default)]
pub struct EndpointDispute {
    /// Whether the review of contradicting endpoints is open; `None` when that is not known, as after a start.
    pub is_open: Option<bool>,
    /// Whether it was logged that an endpoint is behind.
    pub behind_logged: bool,
    /// The head of an endpoint that is behind, and when that head was first seen.
    behind: Option<(BlockRef, Instant)>,
}

impl EndpointDispute {
    /// Records the head of an endpoint that is behind. Returns true when that head has not moved for `stall_ms` milliseconds.
    pub fn is_stalled(&mut self, now: Instant, head: BlockRef, stall_ms: i64) -> bool {
        let since = self.behind.filter(|(seen, _)| *seen == head).map_or(now, |(_, since)| since);
        self.behind = Some((head, since));
        now.since(since) >= stall_ms
>>>>>>> main
    }
}
