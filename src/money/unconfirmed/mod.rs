//! Unconfirmed transfers: transfers in a mempool, or in a block that a reorg can still remove.
//!
//! The ledger does not book unconfirmed transfers, but the checkout shows them to the buyer. The time when a transfer
//! was first seen is stored: a transfer that was first seen inside the payment window counts as in time, even when it
//! is mined after the end of the window. Dust is not stored.

mod store;

use std::collections::HashSet;

use chain::{Amount, ChainId, Height, TxId, UnconfirmedTransfer};

use crate::assets::FollowedChain;
use crate::cursors;
use clock::Instant;
use db::{self, Tx};
use ids::InvoiceId;

/// The maximum time, in milliseconds, for which an unconfirmed transfer keeps its invoice open: one day. A mempool may
/// keep a transaction for two weeks, but an open invoice reserves stock, so it does not wait that long.
pub const HOLD_MS: i64 = 24 * 3_600_000;

/// The state of an unconfirmed transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The node's last mempool response contains the transfer.
    Seen,
    /// The transaction is in a block that the follower has read.
    Mined,
    /// The node does not report the transfer any more: it was replaced, double-spent or dropped. The node may report it
    /// again later.
    Orphaned,
}

db::text_enum!(State { Seen => "seen", Mined => "mined", Orphaned => "orphaned" });

/// The sum of the unconfirmed transfers to an invoice, in the asset of the invoice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnconfirmedSum {
    /// The sum, in base units of the asset.
    pub amount: Amount,
    /// The newest transaction; `None` when there are no transfers.
    pub txid: Option<TxId>,
    /// True when at least one of the transactions signals that it may be replaced (BIP 125).
    pub replaceable: bool,
}

/// The unconfirmed transfers that a node reports at one time.
#[derive(Debug, Clone)]
pub struct MempoolSnapshot {
    /// The unconfirmed transfers to watched addresses.
    pub unconfirmed: Vec<UnconfirmedTransfer>,
    /// The height of the last block of the node, requested after the transfers. When the follower has read this block,
    /// a stored transfer that is missing in the snapshot is either booked, or was dropped from the mempool.
    pub head: Height,
}

/// The result of comparing a mempool snapshot with the stored transfers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MempoolDifferences {
    /// The number of transfers that were inserted or changed.
    pub appeared: usize,
    /// The number of stored transfers that were ended, because the node does not report them any more.
    pub ended: usize,
    /// True when a missing transfer may be in a block that the follower has not read yet. The caller has to compare
    /// again later.
    pub open: bool,
}

/// Makes the stored unconfirmed transfers equal to a snapshot of the mempool. Adds new transfers, except for dust. Ends
/// transfers that are missing in the snapshot, but only when the follower has read the block at the height `head` of
/// the snapshot; until then, a missing transfer may be in a block that is not read yet.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn store_mempool_differences(
    tx: &mut Tx,
    now: Instant,
    chain: &FollowedChain,
    snapshot: &MempoolSnapshot,
) -> Result<MempoolDifferences, db::Error> {
    let known = store::list_seen_transfers(tx, &chain.id).await?;
    let mut observed = MempoolDifferences::default();
    let unchanged: HashSet<_> = known.iter().map(|known| (known.txid, known.part, known.replaceable)).collect();
    for unconfirmed in &snapshot.unconfirmed {
        if !unchanged.contains(&(unconfirmed.txid, unconfirmed.part.code(), unconfirmed.replaceable)) {
            let bound = chain.dust.compute_dust_limit_or_zero(now, &unconfirmed.asset);
            observed.appeared +=
                store::upsert_seen_transfer_unless_dust(tx, now, &chain.id, unconfirmed, bound).await?;
        }
    }
    let shown: HashSet<_> =
        snapshot.unconfirmed.iter().map(|unconfirmed| (unconfirmed.txid, unconfirmed.part.code())).collect();
    let missing: Vec<_> = known.iter().filter(|known| !shown.contains(&(known.txid, known.part))).collect();
    if missing.is_empty() {
        return Ok(observed);
    }
    if cursors::find_cursor_height(tx, &chain.id).await?.is_none_or(|read| read < snapshot.head) {
        observed.open = true;
        return Ok(observed);
    }
    for known in missing {
        store::end_transfer_as_mined_or_orphaned(tx, now, known.id).await?;
        observed.ended += 1;
    }
    Ok(observed)
}

/// Returns the sum of the unconfirmed transfers to an invoice in the requested asset. Transfers that are booked as
/// deposits are left out.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn sum_unbooked_unconfirmed_transfers(tx: &mut Tx, invoice: InvoiceId) -> Result<UnconfirmedSum, db::Error> {
    store::sum_unbooked_unconfirmed_transfers(tx, invoice).await
}

/// Returns true when an invoice of the chain waits for money, or when an unconfirmed transfer is stored. When it
/// returns false, the mempool worker does not need to request the mempool.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn is_invoice_or_transfer_waiting(tx: &mut Tx, chain: &ChainId) -> Result<bool, db::Error> {
    store::is_invoice_or_transfer_waiting(tx, chain).await
}
