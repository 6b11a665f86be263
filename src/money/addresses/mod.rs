//! One derived address per invoice, from watch-only account keys. Indices are handed out in the transaction that uses them,
//! in order, and never twice.

mod store;

use std::collections::HashMap;
use std::sync::Arc;

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
            issuers.insert(new.chain, Issuer { account, deriver: new.deriver, watched: new.watched });
        }
        Ok(Addresses(issuers))
    }

    pub fn can_issue(&self, chain: &ChainId) -> bool {
        self.0.contains_key(chain)
    }

    /// The next address of the chain's account. It is watched from the commit on, before the caller is answered.
    pub async fn issue(&self, tx: &mut Tx, now: Instant, chain: &ChainId) -> Result<(AddressId, Address), IssueError> {
        let issuer = self.0.get(chain).ok_or_else(|| IssueError::NoAccount(chain.clone()))?;
        let index = store::set_next_index(tx, issuer.account).await?;
        let address = issuer.deriver.address(index)?;
        let id = store::insert_address(tx, now, chain, &address, issuer.account, index).await?;
        let (watched, key) = (issuer.watched.clone(), address.key);
        tx.after_commit(move || watched.insert(key));
        Ok((id, address))
    }
}
