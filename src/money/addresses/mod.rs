//! One derived address per invoice, from watch-only account keys. Indices are leased from the account in blocks, and an
//! address is derived before the transaction that hands it out: neither the account's row nor a curve operation holds up
//! other orders. An index is never used twice; what of a block is left at the end of the daemon is never used.

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

/// An account key as it is stored: chains of one family share it, and its counter.
#[derive(Debug, Clone)]
struct Issuer {
    account: i64,
    deriver: Deriver,
    watched: Arc<WatchSet>,
    /// Whether somebody reads the chain: an address that nobody watches is not handed out.
    followed: Arc<AtomicBool>,
    shelf: Arc<IndexLease>,
}

/// Issues addresses for every chain that has an account key.
#[derive(Debug, Clone, Default)]
pub struct Addresses(HashMap<ChainId, Issuer>);

/// What [`Addresses::open`] needs to know of a chain.
pub struct ChainAccount {
    pub chain: ChainId,
    pub family: Family,
    pub xpub: String,
    pub deriver: Deriver,
    pub watched: Arc<WatchSet>,
}

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("no account key is configured for {0}")]
    NoAccount(ChainId),
    #[error(transparent)]
    Derive(#[from] DeriveError),
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl Addresses {
    /// Registers the account keys and fills the watch sets with every address ever issued.
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
                shelf: Arc::default(),
            };
            issuers.insert(new.chain, issuer);
        }
        Ok(Addresses(issuers))
    }

    /// Watches on `chain` what was issued on another chain where the keys are the same.
    pub async fn watch_sibling(&self, tx: &mut Tx, chain: &ChainId, siblings: &ChainId) -> Result<(), db::Error> {
        let Some(issuer) = self.0.get(chain) else { return Ok(()) };
        for key in store::list_keys(tx, siblings).await? {
            issuer.watched.insert(key);
        }
        Ok(())
    }

    /// Whether there is an account key and somebody reads the chain.
    pub fn can_issue(&self, chain: &ChainId) -> bool {
        self.0.get(chain).is_some_and(|issuer| issuer.followed.load(Ordering::Relaxed))
    }

    /// Said by whoever reads the chain: from its first stored block on it is followed, and not while it is halted.
    pub fn set_followed(&self, chain: &ChainId, followed: bool) {
        if let Some(issuer) = self.0.get(chain) {
            issuer.followed.store(followed, Ordering::Relaxed);
        }
    }

    /// An address that nobody was told of, for one transaction to come. It writes a new lease down when one is over, and
    /// waits until that is stored: an index whose lease was lost could come twice.
    pub async fn prepare(&self, db: &Db, chain: &ChainId) -> Result<ReservedAddress, IssueError> {
        let issuer = self.0.get(chain).ok_or_else(|| IssueError::NoAccount(chain.clone()))?;
        let (index, address) = match issuer.shelf.take_back() {
            Some(back) => back,
            None => {
                let index = issuer.shelf.take_index(db, issuer.account).await?;
                (index, issuer.deriver.derive_address(index)?)
            }
        };
        let (account, watched, shelf) = (issuer.account, issuer.watched.clone(), issuer.shelf.clone());
        Ok(ReservedAddress::new(chain.clone(), account, index, address, watched, shelf))
    }
}
