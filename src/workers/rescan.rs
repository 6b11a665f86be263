//! Reads blocks of one chain again, for a token that was added late. An operator requests it; the follower runs on
//! meanwhile.

use anyhow::bail;
use chain::{Height, SourceError};
use serde::{Deserialize, Serialize};

use crate::workers::balance_check::BalanceReconciler;
use money::deposits::{
    self,
    rescan::{RescanError, Rescanned},
};
use records::audit_log::{self, Action, Actor};

/// Maximum number of blocks in one piece. The command prints its progress after each piece.
const PIECE_BLOCKS: u64 = 1_000;

/// Reads blocks of one chain again.
#[derive(Clone)]
pub struct Rescan {
    reconciler: BalanceReconciler,
}

/// The result of one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The last block that was read.
    pub to: Height,
    /// Transfers that were booked now.
    pub booked: u64,
    /// Transfers that were booked before.
    pub known: u64,
    /// Transfers that a balance check may have booked before without their transaction; the operator compares them.
    pub doubtful: u64,
}

impl Rescan {
    /// Creates the rescan of the reconciler's chain, which runs beside the chain's follower.
    pub fn new(reconciler: BalanceReconciler) -> Rescan {
        Rescan { reconciler }
    }

    /// Reads the blocks from `from` to `to`, at most [`PIECE_BLOCKS`], and books missing transfers. Fails when `to` is
    /// above the follower's cursor, because the follower reads those blocks.
    pub async fn piece(&self, actor: &Actor, from: Height, to: Height) -> anyhow::Result<Piece> {
        let chain = self.reconciler.deposits.chain().id.clone();
        let cursor = self
            .reconciler
            .db
            .read("find_cursor", move |tx| Box::pin(async move { deposits::cursor(tx, &chain).await }));
        let Some(at) = cursor.await?.and_then(|cursor| cursor.recent.last().copied()) else {
            return Err(RescanError::NotBegun.into());
        };
        if to > at.height {
            return Err(RescanError::Ahead(to, at.height).into());
        }
        let end = to.min(from.saturating_add(PIECE_BLOCKS - 1));
        let mut piece = Piece { to: from, booked: 0, known: 0, doubtful: 0 };
        let mut next = from;
        while next <= end {
            let blocks = self.reconciler.source.blocks(next, end, &self.reconciler.deposits.chain().watched).await?;
            let Some(last) = blocks.last().map(|block| block.header.height) else {
                bail!(SourceError::BlockNotFound(next))
            };
            if blocks.first().map(|block| block.header.height) != Some(next) || last > end {
                bail!("{}: block {next} was asked for and another came", self.reconciler.deposits.chain().id);
            }
            let came = self.book(actor, blocks).await?;
            piece.booked += came.booked;
            piece.known += came.known;
            piece.doubtful += came.doubtful;
            piece.to = last;
            next = last + 1;
        }
        Ok(piece)
    }

    async fn book(&self, actor: &Actor, blocks: Vec<chain::Block>) -> anyhow::Result<Rescanned> {
        let (now, deposits) = (self.reconciler.clock.now(), self.reconciler.deposits.clone());
        let actor = actor.clone();
        let came = self.reconciler.db.write("rescan_blocks", move |tx| {
            Box::pin(async move {
                let came = deposits.rescan(tx, now, &blocks).await?;
                if let (true, Some(first), Some(last)) = (came.booked > 0, blocks.first(), blocks.last()) {
                    let detail = format!(
                        "blocks {} to {}: {} transfers were booked",
                        first.header.height, last.header.height, came.booked
                    );
                    audit_log::record(tx, now, &actor, Action::ChainRescan, deposits.chain().id.as_str(), &detail)
                        .await?;
                }
                Ok::<_, RescanError>(came)
            })
        });
        Ok(came.await?)
    }
}
