//! What is on its way: transactions in a mempool, or in blocks that can still vanish. They are no money and touch no ledger.
//! They are shown, and remembered: what was first seen inside the window is in time, whenever it is mined. Dust is neither.

mod store;

use std::collections::HashSet;

use chain::{Amount, ChainId, Height, TxId, UnconfirmedTransfer};

use crate::assets::FollowedChain;
use clock::Instant;
use db::{self, Tx};
use ids::InvoiceId;

/// How long a transaction that nobody mines keeps its invoice open. Mempools forget after two weeks; stock is reserved
/// meanwhile.
pub const HOLD_MS: i64 = 24 * 3_600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// On its way.
    Seen,
    /// It is in a block that was read.
    Mined,
    /// Replaced, double-spent or dropped. It may come back.
    Orphaned,
}

db::text_enum!(State { Seen => "seen", Mined => "mined", Orphaned => "orphaned" });

/// What is on its way to an invoice in its own asset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingAmount {
    pub amount: Amount,
    /// The newest transaction.
    pub txid: Option<TxId>,
    /// Whether the sender of one of them announced that it may be replaced (BIP125).
    pub replaceable: bool,
}

/// What a node showed at one moment.
#[derive(Debug, Clone)]
pub struct Look {
    pub unconfirmed: Vec<UnconfirmedTransfer>,
    /// The node's head after they were asked for: once it is read, what is neither there nor booked is gone.
    pub head: Height,
}

/// What changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observed {
    pub appeared: usize,
    pub ended: usize,
    /// Something may be in a block that is not read yet: look again.
    pub open: bool,
}

/// Compares what a node shows with what is remembered.
pub async fn observe(tx: &mut Tx, now: Instant, chain: &FollowedChain, look: &Look) -> Result<Observed, db::Error> {
    let known = store::list_seen(tx, &chain.id).await?;
    let mut observed = Observed::default();
    let unchanged: HashSet<_> = known.iter().map(|known| (known.txid, known.part, known.replaceable)).collect();
    for unconfirmed in &look.unconfirmed {
        if !unchanged.contains(&(unconfirmed.txid, unconfirmed.part.code(), unconfirmed.replaceable)) {
            let bound = chain.dust.bound(now, &unconfirmed.asset);
            observed.appeared += store::upsert_seen(tx, now, &chain.id, unconfirmed, bound).await?;
        }
    }
    let there: HashSet<_> =
        look.unconfirmed.iter().map(|unconfirmed| (unconfirmed.txid, unconfirmed.part.code())).collect();
    let missing: Vec<_> = known.iter().filter(|known| !there.contains(&(known.txid, known.part))).collect();
    if missing.is_empty() {
        return Ok(observed);
    }
    if store::find_cursor_height(tx, &chain.id).await?.is_none_or(|read| read < look.head) {
        observed.open = true;
        return Ok(observed);
    }
    for known in missing {
        store::set_ended(tx, now, known.id).await?;
        observed.ended += 1;
    }
    Ok(observed)
}

/// What is on its way to an invoice and not in a block that was read.
pub async fn expected(tx: &mut Tx, invoice: InvoiceId) -> Result<PendingAmount, db::Error> {
    store::find_expected(tx, invoice).await
}

/// Whether an invoice of the chain waits for money, or something is on its way as far as is remembered.
pub async fn is_awaited(tx: &mut Tx, chain: &ChainId) -> Result<bool, db::Error> {
    store::is_awaited(tx, chain).await
}
