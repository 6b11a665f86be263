//! Reads old blocks of one chain again, to book transfers of a token that was added to the configuration after these
//! blocks were read. An operator requests a rescan, which runs at the same time as the follower.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use chain::{Height, SourceError};
use serde::{Deserialize, Serialize};

use crate::workers::balance_check::BalanceReconciler;
use money::cursors::{self, Position};
use money::deposits::{self, DepositService, RescanError, Rescanned};
use records::audit_log::{self, Action, Actor};

/// The maximum number of blocks that one call of [`Rescanner::rescan_next_piece`] reads, so that the operator regularly
/// sees the progress.
const PIECE_BLOCKS_MAX: u64 = 1_000;

/// Maximum number of deposits about which a second source is asked at the end of one call of
/// [`Rescanner::rescan_next_piece`].
const CHECKED_MAX: i64 = 512;

/// Reads old blocks of one chain again and books missing transfers.
#[derive(Clone)]
pub struct Rescanner {
    reconciler: BalanceReconciler,
}

/// The result of one step of a rescan; each step covers a part of the requested blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescanPiece {
    /// The height of the last block that was read.
    pub to: Height,
    /// The number of missing transfers that were booked now.
    pub booked: u64,
    /// The number of transfers that were already booked before the rescan.
    pub known: u64,
    /// The number of transfers about which it is not certain if they are booked already. They were not booked; each
    /// opened a review.
    pub doubtful: u64,
}

impl Rescanner {
    /// Creates a rescanner for the chain of `reconciler`.
    pub fn new(reconciler: BalanceReconciler) -> Rescanner {
        Rescanner { reconciler }
    }

    /// Returns the service that changes the deposits of the chain.
    pub fn deposit_service(&self) -> &DepositService {
        &self.reconciler.deposits
    }

    /// Reads the first blocks, at most 1,000, of the range `from..=to` and books missing transfers. The caller
    /// continues after [`RescanPiece::to`]. The range must end at or below the cursor, because the follower reads all
    /// later blocks.
    ///
    /// # Errors
    /// [`RescanError`] when the chain is not followed yet, when `to` is above the cursor, or when the database fails;
    /// [`SourceError`] when the node does not return the blocks.
    pub async fn rescan_next_piece(&self, actor: &Actor, from: Height, to: Height) -> anyhow::Result<RescanPiece> {
        let chain = self.reconciler.deposits.chain().id.clone();
        let cursor = self
            .reconciler
            .db
            .read("find_cursor", move |tx| Box::pin(async move { cursors::find_cursor(tx, &chain).await }));
        let Some(at) = cursor.await?.and_then(|cursor| cursor.recent.last().copied()) else {
            return Err(RescanError::NotBegun.into());
        };
        if to > at.height {
            return Err(RescanError::Ahead(to, at.height).into());
        }
        let end = to.min(from.saturating_add(PIECE_BLOCKS_MAX - 1));
        let mut piece = RescanPiece { to: from, booked: 0, known: 0, doubtful: 0 };
        let mut next = from;
        while next <= end {
            let blocks = self.reconciler.source.blocks(next, end, &self.reconciler.deposits.chain().watched).await?;
            let Some(last) = blocks.last().map(|block| block.header.height) else {
                bail!(SourceError::BlockNotFound(next))
            };
            if blocks.first().map(|block| block.header.height) != Some(next) || last > end {
                bail!(
                    "{}: block {next} was requested and another one was returned",
                    self.reconciler.deposits.chain().id
                );
            }
            let rescanned = self.book_missing_transfers(actor, blocks).await?;
            piece.booked += rescanned.booked;
            piece.known += rescanned.known;
            piece.doubtful += rescanned.doubtful;
            piece.to = last;
            next = last + 1;
        }
        if piece.booked > 0 && self.reconciler.deposits.needs_second_source() {
            self.ask_second_source_and_advance().await?;
        }
        Ok(piece)
    }

    /// Asks an endpoint of another provider for the transfers of deposits that have enough confirmations, and advances
    /// those deposits that it shows. The follower asks again about deposits that it does not show, and about those
    /// beyond [`CHECKED_MAX`].
    async fn ask_second_source_and_advance(&self) -> anyhow::Result<()> {
        let BalanceReconciler { db, clock, deposits, source } = self.reconciler.clone();
        let (chain, now) = (deposits.chain().id.clone(), clock.now());
        let (position, blocks) = db
            .read("list_unchecked_blocks", move |tx| {
                Box::pin(async move {
                    let cursor = cursors::find_cursor(tx, &chain).await?;
                    let last = cursor.as_ref().map_or(0, |cursor| cursor.final_height);
                    let read = cursor.and_then(|cursor| cursor.recent.last().copied());
                    let position = Position { cursor: read.map_or(0, |block| block.height), last };
                    let blocks = deposits::list_blocks_to_corroborate(tx, now, &chain, position, CHECKED_MAX).await?;
                    Ok::<_, db::Error>((position, blocks))
                })
            })
            .await?;
        let mut answers = BTreeMap::new();
        for asked in blocks {
            let found = asked.match_answers(source.confirm(&asked.block, &asked.transfers).await);
            answers.extend(found.context("another number of answers than of transfers")?);
        }
        let now = clock.now();
        db.write("store_answers_and_advance_deposits", move |tx| {
            Box::pin(async move { deposits.store_answers_and_advance_deposits(tx, now, position, &answers).await })
        })
        .await?;
        Ok(())
    }

    /// Books the transfers in these blocks that are not booked yet. When some were booked, writes an entry to the audit
    /// log in the same database transaction.
    async fn book_missing_transfers(&self, actor: &Actor, blocks: Vec<chain::Block>) -> anyhow::Result<Rescanned> {
        let (now, deposits) = (self.reconciler.clock.now(), self.reconciler.deposits.clone());
        let actor = actor.clone();
        let written = self.reconciler.db.write("rescan_blocks", move |tx| {
            Box::pin(async move {
                let rescanned = deposits.rescan_blocks(tx, now, &blocks).await?;
                if let (true, Some(first), Some(last)) = (rescanned.booked > 0, blocks.first(), blocks.last()) {
                    let detail = format!(
                        "blocks {} to {}: {} transfers were booked",
                        first.header.height, last.header.height, rescanned.booked
                    );
                    audit_log::record_action(
                        tx,
                        now,
                        &actor,
                        Action::ChainRescan,
                        deposits.chain().id.as_str(),
                        &detail,
                    )
                    .await?;
                }
                Ok::<_, RescanError>(rescanned)
            })
        });
        Ok(written.await?)
    }
}
