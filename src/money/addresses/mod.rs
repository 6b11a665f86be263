//! One derived address per invoice, from watch-only account keys. Indices are handed out in the transaction that uses them,
//! in order, and never twice.

mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chain::derive::DeriveError;
use chain::{Address, ChainId, Deriver, Family, WatchSet};

use crate::clock::Instant;
use crate::db::{self, Tx};
use crate::ids::AddressId;

/// An account key as it is stored: chains of one family share it, and its counter.
#[derive(Debug, Clone)]
struct Issuer {
    account: i64,
    deriver: Deriver,
    watched: Arc<WatchSet>,
    /// Whether somebody reads the chain: an address that nobody watches is not handed out.
    followed: Arc<AtomicBool>,
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
            let followed = Arc::new(AtomicBool::new(true));
            issuers.insert(new.chain, Issuer { account, deriver: new.deriver, watched: new.watched, followed });
        }
        Ok(Addresses(issuers))
    }

    /// Watches on `chain` what was issued on another chain where the keys are the same.
    pub async fn watch_kin(&self, tx: &mut Tx, chain: &ChainId, kin: &ChainId) -> Result<(), db::Error> {
        let Some(issuer) = self.0.get(chain) else { return Ok(()) };
        for key in store::list_keys(tx, kin).await? {
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

    /// The next address of the chain's account. It is watched even before the commit, whose outcome may stay unknown; a key
    /// that is watched for nothing is harmless.
    pub async fn issue(&self, tx: &mut Tx, now: Instant, chain: &ChainId) -> Result<(AddressId, Address), IssueError> {
        let issuer = self.0.get(chain).ok_or_else(|| IssueError::NoAccount(chain.clone()))?;
        let index = store::set_next_index(tx, issuer.account).await?;
        let address = issuer.deriver.address(index)?;
        let id = store::insert_address(tx, now, chain, &address, issuer.account, index).await?;
        issuer.watched.insert(address.key);
        Ok((id, address))
    }
}
