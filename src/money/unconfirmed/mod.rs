//! Unconfirmed transfers: transactions in a mempool, or in blocks that can still vanish. They are not booked. They are shown to
//! the buyer, and the time at which they were first seen is kept: a transfer first seen inside the window is in time whenever
//! it is mined. Dust is not kept.

#![deny(missing_docs)]

mod store;

use std::collections::HashSet;

use chain::{Amount, ChainId, Height, TxId, UnconfirmedTransfer};

use crate::assets::FollowedChain;
use clock::Instant;
use db::{self, Tx};
use ids::InvoiceId;

/// The time for which an unconfirmed transaction keeps its invoice open, in milliseconds: one day. Mempools keep transactions for
/// two weeks, but stock is reserved meanwhile.
pub const HOLD_MS: i64 = 24 * 3_600_000;

/// The state of an unconfirmed transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The node shows it.
    Seen,
    /// It is in a block that the follower has read.
    Mined,
    /// It was replaced, double-spent or dropped; it may come back.
    Orphaned,
}

db::text_enum!(State { Seen => "seen", Mined => "mined", Orphaned => "orphaned" });

/// The sum of the unconfirmed transfers to an invoice, in its own asset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingAmount {
    /// Base units.
    pub amount: Amount,
    /// The newest transaction; `None` when there is none.
    pub txid: Option<TxId>,
    /// At least one of the transactions signals that it may be replaced (BIP125).
    pub replaceable: bool,
}

/// The unconfirmed transfers that a node shows at one moment.
#[derive(Debug, Clone)]
pub struct MempoolSnapshot {
    /// The transfers to watched addresses.
    pub unconfirmed: Vec<UnconfirmedTransfer>,
    /// The height of the node's head, requested after the transfers. Once the follower has read it, a transfer that is neither
    /// in the snapshot nor booked is gone.
    pub head: Height,
}

/// The result of comparing a snapshot with the stored transfers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observed {
    /// The number of transfers that are new or changed.
    pub appeared: usize,
    /// The number of transfers that the node does not show any more.
    pub ended: usize,
    /// A missing transfer may be in a block that is not read yet: the caller has to compare again.
    pub open: bool,
}

/// Compares the snapshot of a node with the stored transfers, and stores the difference.
pub async fn observe(
    tx: &mut Tx,
    now: Instant,
    chain: &FollowedChain,
    snapshot: &MempoolSnapshot,
) -> Result<Observed, db::Error> {
    let known = store::list_seen(tx, &chain.id).await?;
    let mut observed = Observed::default();
    let unchanged: HashSet<_> = known.iter().map(|known| (known.txid, known.part, known.replaceable)).collect();
    for unconfirmed in &snapshot.unconfirmed {
        if !unchanged.contains(&(unconfirmed.txid, unconfirmed.part.code(), unconfirmed.replaceable)) {
            let bound = chain.dust.bound(now, &unconfirmed.asset);
            observed.appeared += store::upsert_seen(tx, now, &chain.id, unconfirmed, bound).await?;
        }
    }
    let shown: HashSet<_> =
        snapshot.unconfirmed.iter().map(|unconfirmed| (unconfirmed.txid, unconfirmed.part.code())).collect();
    let missing: Vec<_> = known.iter().filter(|known| !shown.contains(&(known.txid, known.part))).collect();
    if missing.is_empty() {
        return Ok(observed);
    }
    if store::find_cursor_height(tx, &chain.id).await?.is_none_or(|read| read < snapshot.head) {
        observed.open = true;
        return Ok(observed);
    }
    for known in missing {
        store::set_ended(tx, now, known.id).await?;
        observed.ended += 1;
    }
    Ok(observed)
}

/// Returns the sum of the unconfirmed transfers to an invoice that are not in a block that was read.
pub async fn find_pending(tx: &mut Tx, invoice: InvoiceId) -> Result<PendingAmount, db::Error> {
    store::find_pending(tx, invoice).await
}

/// Returns true when an invoice of the chain waits for money, or an unconfirmed transfer is stored.
pub async fn is_expected(tx: &mut Tx, chain: &ChainId) -> Result<bool, db::Error> {
    store::is_expected(tx, chain).await
}
