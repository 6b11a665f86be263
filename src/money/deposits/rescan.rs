//! Rescan: blocks at or below the cursor are read again, and transfers that are not booked yet are booked. The operator
//! starts a rescan after a token was added to the configuration. Deposits that are already booked stay unchanged.

use chain::{Block, Height};

use crate::cursors::{self, Position};
use crate::deposits::batch::DepositBatch;
use crate::deposits::block_sums::BlockSums;
use crate::deposits::{DepositService, outputs, store};
use crate::effects::{self, ReviewRequest};
use crate::ledger::PostError;
use crate::unclaimed;
use clock::Instant;
use db::{self, Tx};
use records::reviews;

/// The numbers of transfers that a rescan found: newly booked, already booked, and doubtful ones.
#[derive(Debug, Default)]
pub struct Rescanned {
    /// The number of transfers that this rescan booked: as deposits, or as unclaimed money of addresses without an invoice.
    pub booked: u64,
    /// The number of transfers that were already booked.
    pub known: u64,
    /// The number of transfers whose money may be booked already: a balance check has booked money of the same address
    /// without knowing the transaction. The review that is opened for the invoice asks the operator to decide.
    pub doubtful: u64,
}

/// The reason why blocks were not rescanned.
#[derive(Debug, thiserror::Error)]
pub enum RescanError {
    /// The follower has never stored a block of the chain.
    #[error("the chain has not been started yet")]
    NotBegun,
    /// A requested block is above the cursor, so it is not read yet. The fields are the heights of the block and of the
    /// cursor.
    #[error("block {0} has not been read yet: the cursor is at {1}")]
    Ahead(Height, Height),
    /// The block at this height is not on the branch that the follower has read.
    #[error("block {0} is not on the branch that is followed; try again")]
    Elsewhere(Height),
    /// The ledger refused an entry, or the database failed.
    #[error(transparent)]
    Post(#[from] PostError),
}

impl From<db::Error> for RescanError {
    fn from(error: db::Error) -> RescanError {
        RescanError::Post(error.into())
    }
}

impl DepositService {
    /// Books the transfers of blocks that the follower has already read, if they are not booked yet. Locks the cursor
    /// of the chain first, so that the follower cannot book at the same time. On a chain that needs a second source,
    /// new deposits stay seen, even in final blocks, until a second source shows them.
    ///
    /// Returns an error for blocks above the cursor, and for blocks that are not on the branch that the follower has
    /// read. Blocks that are no longer stored are final, so their branch is not checked.
    pub async fn rescan_blocks(&self, tx: &mut Tx, now: Instant, blocks: &[Block]) -> Result<Rescanned, RescanError> {
        let chain = &self.chain;
        let cursor = cursors::lock_cursor_and_check_deposits(tx, &chain.id, Position::NONE)
            .await?
            .ok_or(RescanError::NotBegun)?;
        let mut rescanned = Rescanned::default();
        let mut missing = Vec::new();
        let mut batch = DepositBatch::empty_for_service(now, self);
        for block in blocks.iter().filter(|block| block.has_watched_activity()) {
            let height = block.header.height;
            if height > cursor.height {
                return Err(RescanError::Ahead(height, cursor.height));
            }
            if cursors::find_block_hash(tx, &chain.id, height).await?.is_some_and(|ours| ours != block.header.hash) {
                return Err(RescanError::Elsewhere(height));
            }
            for transfer in &block.transfers {
                if store::is_transfer_booked(tx, &chain.id, height, transfer.index).await? {
                    rescanned.known += 1;
                    continue;
                }
                let probed = store::find_invoice_with_balance_increase_since(
                    tx,
                    &chain.id,
                    transfer.to,
                    &transfer.asset,
                    height,
                )
                .await?;
                let Some(invoice) = probed else {
                    missing.push((block.header, transfer));
                    continue;
                };
                rescanned.doubtful += 1;
                let detail = format!(
                    "{} base units of {} in block {height} (transaction {}) may be booked already, from the balance of its address",
                    transfer.amount, transfer.asset, transfer.txid
                );
                batch.add_review_request(ReviewRequest {
                    kind: reviews::Kind::RescanPossibleDuplicate,
                    subject: format!("invoice/{invoice}"),
                    detail,
                    amount: None,
                });
            }
        }
        let heights = missing.iter().map(|(header, _)| header.height);
        let sums = BlockSums::sum_stored_counted_deposits(tx, &chain.id, heights).await?;
        batch.add_received_transfers(tx, self.limits.grace, sums, &missing).await?;
        let position = Position { cursor: cursor.height, last: cursor.final_height };
        let mut stored = batch.store_deposits_and_settle_invoices(tx, Some(position)).await?;
        rescanned.booked = u64::try_from(stored.booked).unwrap_or(u64::MAX);
        outputs::mark_outputs_spent_and_open_reviews(tx, chain, blocks, &mut stored.effects).await?;
        if stored.unclaimed {
            stored.effects.entries.extend(unclaimed::finish_transfers_up_to(tx, chain, cursor.final_height).await?);
        }
        let changes = effects::apply_effects(tx, now, stored.effects).await?;
        changes.dispatch_to_listener(tx, now, &*self.listener).await?;
        Ok(rescanned)
    }
}
