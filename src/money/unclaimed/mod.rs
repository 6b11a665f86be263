//! Unclaimed transfers: money at addresses of our account keys that belong to no invoice of the database, such as late
//! payments to addresses that were issued after the backup from which the database was restored. Such a transfer opens a
//! review at once, and is booked in the ledger when it is final.

mod store;

use chain::{Amount, AssetId, Header, Height, Transfer};

use crate::assets::FollowedChain;
use crate::ledger::{Account, EntryLine, JournalEntry};
use clock::Instant;
use db::{self, Tx};
use records::reviews;

/// An unclaimed transfer that became final.
struct FinalTransfer {
    id: i64,
    asset: AssetId,
    amount: Amount,
}

/// Stores transfers that are not stored yet, and opens a review for each.
pub(crate) async fn insert_transfers_and_open_reviews(
    tx: &mut Tx,
    now: Instant,
    chain: &FollowedChain,
    transfers: &[(Header, Transfer)],
) -> Result<(), db::Error> {
    for (header, transfer) in transfers {
        let Some(id) = store::insert_unknown_transfer(tx, now, &chain.id, header.height, transfer).await? else {
            continue;
        };
        let detail = format!(
            "{} base units of {} in block {} (transaction {}) arrived at an address of the account key that belongs to no \
             invoice of this database: it was issued by a database that was lost, or by another installation",
            transfer.amount, transfer.asset, header.height, transfer.txid
        );
        let subject = format!("unclaimed/{id}");
        reviews::open_or_reopen_review(tx, now, reviews::Kind::DepositUnclaimed, &subject, &detail).await?;
    }
    Ok(())
}

/// Marks the transfers up to `height` as final and returns the journal entries that book them.
pub(crate) async fn finish_transfers_up_to(
    tx: &mut Tx,
    chain: &FollowedChain,
    height: Height,
) -> Result<Vec<JournalEntry>, db::Error> {
    let entry = |FinalTransfer { id, asset, amount }| {
        let (debit, credit) = (Account::OnChain(chain.id.clone()), Account::OperatorUnclaimed);
        let line = EntryLine { debit, credit, asset, amount };
        JournalEntry::new_post_entry(chain.mode, format!("unclaimed/{id}/final"), "unclaimed transfer", vec![line])
    };
    Ok(store::set_seen_transfers_final(tx, &chain.id, height).await?.into_iter().map(entry).collect())
}

/// Marks the transfers above `height` as orphaned and closes their reviews, because a reorg removed their blocks.
pub(crate) async fn orphan_transfers_above(
    tx: &mut Tx,
    now: Instant,
    chain: &FollowedChain,
    height: Height,
) -> Result<(), db::Error> {
    for id in store::set_seen_transfers_orphaned(tx, &chain.id, height).await? {
        let (subject, note) = (format!("unclaimed/{id}"), "a reorg removed the block of the transfer");
        reviews::retract_review_if_open(tx, now, reviews::Kind::DepositUnclaimed, &subject, note).await?;
    }
    Ok(())
}
