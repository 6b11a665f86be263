//! Deposit addresses. Each invoice has its own address, which is derived from a watch-only account key.
//!
//! The daemon leases ranges of address indices, and derives an address before the database transaction that stores it.
//! Therefore orders wait neither for the row of the account nor for the derivation. An index is never used twice. When
//! the daemon stops, the remaining indices of its lease stay unused for ever.

mod index_lease;
mod reserved_address;
mod store;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chain::derive::DeriveError;
use chain::{ChainId, Deriver, Family, WatchSet};

use db::{self, Db, Tx};

pub use reserved_address::ReservedAddress;

use index_lease::IndexLease;

/// The number of addresses that one query reads at start.
const PAGE: i64 = 10_000;

/// The data from which addresses of one chain are issued. Chains of one family share the account key and its index
/// counter.
#[derive(Debug, Clone)]
struct Issuer {
    account: i64,
    deriver: Deriver,
    watched: Arc<WatchSet>,
    /// True while the follower reads the chain. While it is false, no address of the chain is issued, because the
    /// daemon would not see payments to the address.
    followed: Arc<AtomicBool>,
    lease: Arc<IndexLease>,
}

/// Issues addresses for every chain that has an account key.
#[derive(Debug, Clone, Default)]
pub struct Addresses(HashMap<ChainId, Issuer>);

/// The account key of a chain and the objects that use it.
pub struct ChainAccount {
    /// The chain on which addresses are issued.
    pub chain: ChainId,
    /// The family of the chain, which determines the form of addresses.
    pub family: Family,
    /// The extended public key of the account, as [`Deriver::to_canonical_xpub`] writes it, so that an account that is
    /// written as `zpub` and later as `xpub` is the same account.
    pub xpub: String,
    /// Derives addresses from `xpub`.
    pub deriver: Deriver,
    /// The watch set of the chain. It contains every issued address, so that the follower finds deposits.
    pub watched: Arc<WatchSet>,
}

/// The reason why no address was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The chain has no account key.
    #[error("no account key is configured for {0}")]
    NoAccount(ChainId),
    /// The address could not be derived.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Adds every address that was issued on a chain to a watch set. The addresses are read in pages, each in a transaction
/// of its own, so that millions of addresses neither stand in memory twice nor keep a transaction open. Other chains
/// that share the account key may share the watch set, because the buyer may send to the address on any of them.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn watch_issued_addresses(db: &Db, chain: &ChainId, watched: &WatchSet) -> Result<(), db::Error> {
    let mut after = None;
    loop {
        let chain = chain.clone();
        let page: Result<_, db::Error> = db
            .read("list_address_keys_after", move |tx| {
                Box::pin(async move { store::list_address_keys_after(tx, &chain, after, PAGE).await })
            })
            .await;
        let page = page?;
        let is_last = i64::try_from(page.len()).is_ok_and(|length| length < PAGE);
        after = page.last().copied();
        page.into_iter().for_each(|key| watched.insert(key));
        if is_last {
            return Ok(());
        }
    }
}

impl Addresses {
    /// Stores the account keys that are not in the database yet, and returns the issuers of all chains. The caller adds
    /// the issued addresses to the watch sets with [`watch_issued_addresses`] before a chain is followed.
    ///
    /// # Errors
    /// Any [`db::Error`] of the database.
    pub async fn store_accounts(tx: &mut Tx, accounts: Vec<ChainAccount>) -> Result<Addresses, db::Error> {
        let mut issuers = HashMap::new();
        for new in accounts {
            let account = store::find_or_insert_address_account(tx, new.family, new.xpub.trim()).await?;
            let issuer = Issuer {
                account,
                deriver: new.deriver,
                watched: new.watched,
                followed: Arc::new(AtomicBool::new(true)),
                lease: Arc::default(),
            };
            issuers.insert(new.chain, issuer);
        }
        Ok(Addresses(issuers))
    }

    /// Returns true when the chain has an account key and the follower reads the chain.
    pub fn can_issue_address(&self, chain: &ChainId) -> bool {
        self.0.get(chain).is_some_and(|issuer| issuer.followed.load(Ordering::Relaxed))
    }

    /// Stores in memory whether the follower reads the chain. The follower calls this function with true when it has
    /// stored the first block, and with false when the chain is halted.
    pub fn set_chain_followed(&self, chain: &ChainId, followed: bool) {
        if let Some(issuer) = self.0.get(chain) {
            issuer.followed.store(followed, Ordering::Relaxed);
        }
    }

    /// Reserves an address for one order. When all leased indices are used, this function stores a new lease in the
    /// database before it uses an index of the lease. Otherwise, after a crash, the daemon could issue the same index
    /// twice.
    ///
    /// # Errors
    /// [`IssueError::NoAccount`] when the chain has no account key; otherwise the error of the derivation or the
    /// database.
    pub async fn reserve_address(&self, db: &Db, chain: &ChainId) -> Result<ReservedAddress, IssueError> {
        let issuer = self.0.get(chain).ok_or_else(|| IssueError::NoAccount(chain.clone()))?;
        let (index, address) = match issuer.lease.take_returned_address() {
            Some(returned) => returned,
            None => {
                let index = issuer.lease.take_or_lease_index(db, issuer.account).await?;
                (index, issuer.deriver.derive_address(index)?)
            }
        };
        let (account, watched, lease) = (issuer.account, issuer.watched.clone(), issuer.lease.clone());
        Ok(ReservedAddress::new(chain.clone(), account, index, address, watched, lease))
    }
}
