//! Initial balances: the money that leased addresses had before they were issued. A worker reads them soon after the
//! lease. Comparisons of balances with deposits leave this money out, so that it pays no new order.

use std::collections::BTreeSet;
use std::ops::Range;

use chain::{Amount, AssetId, ChainId, Height};

use crate::addresses::store;
use clock::Instant;
use db::{self, Tx};
use records::reviews;

/// The indices of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedIndices {
    /// The id of the account in the database.
    pub account: i64,
    /// The leased indices.
    pub indices: Range<u32>,
    /// The height of the highest block of the chain that was known when the indices were leased. The initial balances are
    /// those after this block.
    pub height: Height,
}

/// The balance of one asset that a leased address had before it was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialBalance {
    /// The derivation index of the address.
    pub index: u32,
    /// The asset.
    pub asset: AssetId,
    /// The balance in base units; `None` when no node can return balances of the asset.
    pub amount: Option<Amount>,
}

/// Stores the initial balances of a lease; balances of zero are left out of `balances`. Opens a review when an address
/// already had money, because then the addresses were issued before.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn store_initial_balances_and_review_old_money(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    lease: &LeasedIndices,
    balances: &[InitialBalance],
) -> Result<(), db::Error> {
    store::insert_initial_balances(tx, lease, balances).await?;
    let used = balances.iter().filter(|balance| balance.amount.is_some_and(|amount| !amount.is_zero()));
    let used: BTreeSet<u32> = used.map(|balance| balance.index).collect();
    let (Some(first), Some(last)) = (used.first(), used.last()) else { return Ok(()) };
    let detail = format!(
        "{} addresses with indices from {first} to {last} had money on {chain} before this database issued them, at block \
         {height}: a lost or older database, or another installation, has issued them before; this money pays no order; \
         stop the daemon and skip the used indices with `settled restore`, or use a new account key",
        used.len(),
        height = lease.height
    );
    let subject = format!("address_lease/{}/{}", lease.account, lease.indices.start);
    reviews::open_or_reopen_review(tx, now, reviews::Kind::AddressUsedBefore, &subject, &detail).await
}
