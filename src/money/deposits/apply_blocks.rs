//! Stores new blocks: books their deposits, advances older deposits, and moves the cursor, all in one database
//! transaction.

use chain::{Block, BlockRef, Header, Height};

use crate::cursors::{self, Position};
use crate::deposits::batch::DepositBatch;
use crate::deposits::block_sums::BlockSums;
use crate::deposits::{DepositService, outputs};
use crate::effects;
use crate::ledger::PostError;
use crate::unclaimed;
use clock::Instant;
use db::{self, Tx};

/// The maximum number of stored deposits that one database transaction confirms, and the maximum number that it makes
/// final. The transaction for the next blocks handles further deposits.
pub(super) const ADVANCE_MAX: i64 = 2_000;

/// The result of storing blocks.
#[derive(Debug)]
pub struct AppliedBlocks {
    /// The height of the highest final block. A reorg cannot remove this block.
    pub final_height: Height,
    /// True when the chain has deposits that are not final yet.
    pub unfinished: bool,
}

impl DepositService {
    /// Stores the blocks after the cursor, which must be at `from`, with their deposits, and moves the cursor to the
    /// last block. Confirms or finalizes the deposits that have enough confirmations at the position `reached`, and
    /// settles the invoices that these deposits pay. When `reached` is `None`, new deposits are stored as seen and no
    /// deposit is confirmed.
    ///
    /// # Errors
    /// Returns an error when the cursor is not at `from`, when the chain was never started, and when the ledger
    /// refuses an entry.
    pub async fn apply_blocks(
        &self,
        tx: &mut Tx,
        now: Instant,
        from: BlockRef,
        blocks: &[Block],
        reached: Option<Position>,
    ) -> Result<AppliedBlocks, PostError> {
        let chain = &self.chain;
        let before =
            cursors::lock_cursor_and_check_deposits_or_fail(tx, &chain.id, reached.unwrap_or(Position::NONE)).await?;
        if before.height != from.height {
            let moved = format!("the cursor of {} is at {}, not at {}", chain.id, before.height, from.height);
            return Err(db::Error::Statement(moved).into());
        }
        // A final block stays final, even when the node later reports a lower final height.
        let reached = reached.map(|reached| Position { last: reached.last.max(before.final_height), ..reached });
        let final_height = reached.map_or(before.final_height, |reached| reached.last);

        let mut batch = DepositBatch::empty_for_service(now, self);
        let mut transfers = Vec::new();
        for block in blocks {
            transfers.extend(block.transfers.iter().map(|transfer| (block.header, transfer)));
        }
        batch.add_received_transfers(tx, self.limits.grace, BlockSums::default(), &transfers).await?;
        if let (true, Some(reached)) = (before.due, reached) {
            batch.lock_advancing_deposits_with_invoices(tx, reached, ADVANCE_MAX).await?;
        }
        let mut stored = batch.store_deposits_and_settle_invoices(tx, reached).await?;
        outputs::mark_outputs_spent_and_open_reviews(tx, chain, blocks, &mut stored.effects).await?;
        if before.unclaimed_due || stored.unclaimed {
            stored.effects.entries.extend(unclaimed::finish_transfers_up_to(tx, chain, final_height).await?);
        }
        let changes = effects::apply_effects(tx, now, stored.effects).await?;

        if let Some(last) = blocks.last() {
            let kept = usize::try_from(self.limits.keep).unwrap_or(usize::MAX);
            let headers: Vec<Header> = blocks.iter().rev().take(kept).map(|block| block.header).collect();
            cursors::insert_blocks(tx, &chain.id, &headers).await?;
            cursors::delete_blocks_below(tx, &chain.id, last.header.height.saturating_sub(self.limits.keep)).await?;
            cursors::move_cursor_and_final_height(tx, &chain.id, from, &last.header, final_height).await?;
        } else if final_height > before.final_height {
            cursors::set_final_height(tx, &chain.id, final_height).await?;
        }
        let unfinished = match (before.unfinished, stored.unfinished, stored.finished) {
            (true, false, true) => {
                cursors::lock_cursor_and_check_deposits_or_fail(tx, &chain.id, Position::NONE).await?.unfinished
            }
            (before, added, _) => before || added,
        };
        changes.dispatch_to_listener(tx, now, &*self.listener).await?;
        Ok(AppliedBlocks { final_height, unfinished })
    }
}
