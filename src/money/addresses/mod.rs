//! Addresses: one for each invoice, derived from watch-only account keys. The daemon leases indices from an account in ranges, and
//! derives an address before the transaction that stores it, so that neither the account's row nor the derivation holds up other
//! orders. An index is never used twice; the indices of a lease that are left when the daemon stops are never used.

#![deny(missing_docs)]

mod reserved;
mod store;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chain::derive::DeriveError;
use chain::{ChainId, Deriver, Family, WatchSet};

use db::{self, Db, Tx};

pub use reserved::ReservedAddress;

use reserved::IndexLease;

/// The account of one chain. Chains of one family share the account key and its counter.
#[derive(Debug, Clone)]
struct Issuer {
    account: i64,
    deriver: Deriver,
    watched: Arc<WatchSet>,
    /// The follower reads the chain. No address is issued while it does not, because payments to it would not be seen.
    followed: Arc<AtomicBool>,
    lease: Arc<IndexLease>,
}

/// Issues addresses for every chain that has an account key.
#[derive(Debug, Clone, Default)]
pub struct Addresses(HashMap<ChainId, Issuer>);

/// The account key of a chain, for [`Addresses::open`].
pub struct ChainAccount {
    /// The chain.
    pub chain: ChainId,
    /// Its family, which decides on the form of addresses.
    pub family: Family,
    /// The extended public key of the account, as it is configured.
    pub xpub: String,
    /// Derives addresses from `xpub`.
    pub deriver: Deriver,
    /// Receives every issued address.
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
    /// Registers the account keys and adds every address ever issued to the watch sets.
    pub async fn open(tx: &mut Tx, accounts: Vec<ChainAccount>) -> Result<Addresses, db::Error> {
        let mut issuers = HashMap::new();
        for new in accounts {
            let account = store::insert_or_find_account(tx, new.family, new.xpub.trim()).await?;
            for key in store::list_keys(tx, &new.chain).await? {
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

    /// Adds the addresses that were issued on the chain `sibling` to the watch set of `chain`. Both share an account key.
    pub async fn watch_sibling(&self, tx: &mut Tx, chain: &ChainId, sibling: &ChainId) -> Result<(), db::Error> {
        let Some(issuer) = self.0.get(chain) else { return Ok(()) };
        for key in store::list_keys(tx, sibling).await? {
            issuer.watched.insert(key);
        }
        Ok(())
    }

    /// Returns true when the chain has an account key and a follower that reads it.
    pub fn can_issue(&self, chain: &ChainId) -> bool {
        self.0.get(chain).is_some_and(|issuer| issuer.followed.load(Ordering::Relaxed))
    }

    /// Records whether the chain is followed. The follower calls it: a chain is followed from its first stored block on, and not
    /// while it is halted.
    pub fn set_followed(&self, chain: &ChainId, followed: bool) {
        if let Some(issuer) = self.0.get(chain) {
            issuer.followed.store(followed, Ordering::Relaxed);
        }
    }

    /// Reserves an address for one order. Stores a new lease when the last one is used up, and waits until it is stored: an index
    /// whose lease was lost could be issued twice.
    ///
    /// # Errors
    ///
    /// Fails when the chain has no account key, and when the database does.
    pub async fn reserve(&self, db: &Db, chain: &ChainId) -> Result<ReservedAddress, IssueError> {
        let issuer = self.0.get(chain).ok_or_else(|| IssueError::NoAccount(chain.clone()))?;
        let (index, address) = match issuer.lease.take_returned() {
            Some(returned) => returned,
            None => {
                let index = issuer.lease.take_index(db, issuer.account).await?;
                (index, issuer.deriver.derive_address(index)?)
            }
        };
        let (account, watched, lease) = (issuer.account, issuer.watched.clone(), issuer.lease.clone());
        Ok(ReservedAddress::new(chain.clone(), account, index, address, watched, lease))
    }
}
