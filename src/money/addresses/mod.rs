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
    /// The extended public key of the account, from the configuration.
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

impl Addresses {
    /// Stores the account keys that are not in the database yet, adds every issued address to the watch sets, and
    /// returns the issuers of all chains.
    ///
    /// # Errors
    /// Any [`db::Error`] of the database.
    pub async fn store_accounts_and_watch_addresses(
        tx: &mut Tx,
        accounts: Vec<ChainAccount>,
    ) -> Result<Addresses, db::Error> {
        let mut issuers = HashMap::new();
        for new in accounts {
            let account = store::find_or_insert_address_account(tx, new.family, new.xpub.trim()).await?;
            for key in store::list_address_keys(tx, &new.chain).await? {
                new.watched.insert(key);
            }
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

    /// Adds the addresses that were issued on the chain `sibling` to the watch set of `chain`. Both chains share an
    /// account key, so the buyer may send to the address on either of them.
    ///
    /// # Errors
    /// Any [`db::Error`] of the database.
    pub async fn watch_sibling_addresses(
        &self,
        tx: &mut Tx,
        chain: &ChainId,
        sibling: &ChainId,
    ) -> Result<(), db::Error> {
        let Some(issuer) = self.0.get(chain) else { return Ok(()) };
        for key in store::list_address_keys(tx, sibling).await? {
            issuer.watched.insert(key);
        }
        Ok(())
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
