//! Books what a scan did not see: blocks at or below the cursor are read again, for a token that was added late. What is
//! booked already stays as it is.

use chain::{Block, Height};

use crate::deposits::batch::DepositBatch;
use crate::deposits::{self, DepositService, Position, store};
use crate::effects::{self, ReviewRequest};
use crate::ledger::PostError;
use clock::Instant;
use db::{self, Tx};

/// What came of some blocks.
#[derive(Debug, Default)]
pub struct Rescanned {
    pub booked: u64,
    /// Transfers that were booked before.
    pub known: u64,
    /// Transfers to addresses whose balance was booked before without a transaction: a person compares them.
    pub doubtful: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum RescanError {
    #[error("the chain was not begun yet")]
    NotBegun,
    #[error("block {0} was not read yet: the cursor stands at {1}")]
    Ahead(Height, Height),
    #[error("block {0} is not on the branch that is followed; try again")]
    Elsewhere(Height),
    #[error(transparent)]
    Post(#[from] PostError),
}

impl From<db::Error> for RescanError {
    fn from(error: db::Error) -> RescanError {
        RescanError::Post(error.into())
    }
}

impl DepositService {
    /// Under the cursor's lock, as everything that books. Blocks that are too old to be kept cannot vanish any more.
    pub async fn rescan(&self, tx: &mut Tx, now: Instant, blocks: &[Block]) -> Result<Rescanned, RescanError> {
        let chain = &self.chain;
        let cursor = store::lock_cursor(tx, &chain.id, Position::NONE).await?.ok_or(RescanError::NotBegun)?;
        let mut rescanned = Rescanned::default();
        let mut missing = Vec::new();
        let mut batch = DepositBatch::new(now, chain);
        for block in blocks.iter().filter(|block| block.has_watched_activity()) {
            let height = block.header.height;
            if height > cursor.height {
                return Err(RescanError::Ahead(height, cursor.height));
            }
            if store::find_hash(tx, &chain.id, height).await?.is_some_and(|ours| ours != block.header.hash) {
                return Err(RescanError::Elsewhere(height));
            }
            for transfer in &block.transfers {
                if store::is_booked(tx, &chain.id, height, transfer.index).await? {
                    rescanned.known += 1;
                    continue;
                }
                let probed = store::find_probed(tx, &chain.id, transfer.to, &transfer.asset, height).await?;
                let Some(invoice) = probed else {
                    missing.push((block.header, transfer));
                    continue;
                };
                rescanned.doubtful += 1;
                let detail = format!(
                    "{} base units of {} in block {height} (transaction {}) may be what was booked by the balance",
                    transfer.amount, transfer.asset, transfer.txid
                );
                batch.request_review(ReviewRequest {
                    kind: "rescan.doubtful",
                    subject: format!("invoice/{invoice}"),
                    detail,
                    amount: None,
                });
            }
        }
        rescanned.booked = u64::try_from(missing.len()).unwrap_or(u64::MAX);
        batch.classify(tx, self.limits.grace, &missing).await?;
        let position = Position { cursor: cursor.height, last: cursor.final_height };
        let mut stored = batch.store(tx, Some(position)).await?;
        deposits::spend(tx, chain, blocks, &mut stored.effects).await?;
        let changes = effects::apply(tx, now, stored.effects).await?;
        changes.dispatch(tx, now, &*self.listener).await?;
        Ok(rescanned)
    }
}
