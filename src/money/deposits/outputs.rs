//! Transaction outputs that are deposits, on chains with outputs such as Bitcoin: the list of unspent outputs, and the
//! marking of outputs that a block spends.

use chain::{Block, ChainId, Height, OutPoint, WatchSet};

use crate::assets::FollowedChain;
use crate::deposits::{State, store};
use crate::effects::{Effects, ReviewChange, ReviewRequest};
use db::{self, Db, Tx};
use records::reviews;

/// The number of outputs that one query reads while the daemon starts.
const PAGE: i64 = 10_000;

/// A transaction output that is a deposit and is not spent yet, on chains with outputs such as Bitcoin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnspentOutput {
    /// The transaction and the index of the output.
    pub output: OutPoint,
    /// The amount of the output, in base units of the native coin.
    pub amount: chain::Amount,
    /// The height of the block with the deposit.
    pub height: Height,
    /// The state of the deposit.
    pub state: State,
    /// The receiving address, in the canonical form of its chain.
    pub address: String,
    /// The BIP 32 child index from which the address was derived, below its account key.
    pub index: u32,
}

/// Returns at most `limit` outputs of deposits that are unspent in all blocks that the follower has read, oldest first.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_unspent_outputs(tx: &mut Tx, chain: &ChainId, limit: i64) -> Result<Vec<UnspentOutput>, db::Error> {
    store::list_unspent_outputs(tx, chain, limit).await
}

/// Adds all unspent outputs of the deposits of a chain to its watch set. The outputs are read in pages, each in a
/// transaction of its own.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn watch_unspent_outputs(db: &Db, chain: &ChainId, watched: &WatchSet) -> Result<(), db::Error> {
    let mut after = 0;
    loop {
        let chain = chain.clone();
        let page: Result<_, db::Error> = db
            .read("list_unspent_outpoints_after", move |tx| {
                Box::pin(async move { store::list_unspent_outpoints_after(tx, &chain, after, PAGE).await })
            })
            .await;
        let page = page?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = *last;
        watched.insert_outputs(page.into_iter().map(|(_, output)| output));
    }
}

/// Marks the outputs of deposits that the blocks spend as spent, and adds a review to `effects` for each of them. The
/// daemon never spends outputs, so another program with access to the keys made the transaction.
pub(super) async fn mark_outputs_spent_and_open_reviews(
    tx: &mut Tx,
    chain: &FollowedChain,
    blocks: &[Block],
    effects: &mut Effects,
) -> Result<(), db::Error> {
    let spends_of =
        |block: &'_ Block| block.spends.iter().map(|spend| (block.header.height, *spend)).collect::<Vec<_>>();
    let spends: Vec<_> = blocks.iter().flat_map(spends_of).collect();
    for (deposit, by) in store::set_outputs_spent(tx, &chain.id, &spends).await? {
        effects.reviews.push(ReviewChange::Open(ReviewRequest {
            kind: reviews::Kind::DepositSpent,
            subject: format!("deposit/{deposit}"),
            detail: format!("transaction {by} on {} spends it, but the daemon never spends outputs", chain.id),
            amount: None,
        }));
    }
    Ok(())
}
