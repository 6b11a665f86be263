//! Deposit addresses. Each invoice has its own address, which is derived from a watch-only account key.
//!
//! The daemon leases ranges of address indices, and derives each address before the database transaction that stores
//! it. Therefore no order waits for a lock on the row of the account, or for the derivation. An index is never used
//! twice. When the daemon stops, the remaining indices of its lease stay unused for ever.

mod index_lease;
mod reserved_address;
mod initial_balances;
mod mark;
mod mark_file;
mod restore;
mod store;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chain::derive::DeriveError;
use chain::{Address, ChainId, Deriver, Family, Height, WatchSet};

use db::{self, Db, Tx};
use ids::Mode;

pub use initial_balances::{InitialBalance, LeasedIndices, store_initial_balances_and_review_old_money};
pub use mark::{AddressMark, MarkedAccount};
pub use mark_file::{MarkFile, MarkFileError};
pub use reserved_address::ReservedAddress;
pub use restore::{DEFAULT_SKIP, RestoreError, RestoredAddresses, SkippedIndices, skip_indices_after_restore};

use index_lease::IndexLease;

/// The number of addresses that one query reads while the daemon starts.
const PAGE: i64 = 10_000;

/// Returns the high-water mark of the database.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn load_database_mark(tx: &mut Tx) -> Result<AddressMark, db::Error> {
    store::load_database_mark(tx).await
}

/// The data to issue addresses of one chain. Chains of one family share the account key and its index counter.
#[derive(Debug, Clone)]
struct Issuer {
    account: i64,
    deriver: Deriver,
    watched: Arc<WatchSet>,
    /// True while the follower reads the chain. While it is false, callers must issue no address of the chain, because
    /// the daemon would not see payments to the address. [`Addresses::can_issue_address`] tells them.
    followed: Arc<AtomicBool>,
    /// The height of the highest block that a node of the chain has reported.
    tip: Arc<AtomicU64>,
    lease: Arc<IndexLease>,
}

/// Issues addresses for every chain that has an account key.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    issuers: HashMap<ChainId, Issuer>,
    /// The epoch of the issued addresses when the daemon started.
    epoch: u64,
    /// The file to which the mark is copied before a lease is used; `None` in tests and in commands that issue nothing.
    mark: Option<Arc<MarkFile>>,
}

/// The account key of a chain and the objects that use it.
pub struct ChainAccount {
    /// The chain on which addresses are issued.
    pub chain: ChainId,
    /// The family of the chain, which determines the form of addresses.
    pub family: Family,
    /// The purpose of the account in the configuration, such as `deposit`.
    pub purpose: String,
    /// The mode of payments to the addresses.
    pub mode: Mode,
    /// The derivation path of the account in the configuration; may be empty.
    pub path: String,
    /// Derives addresses from the account key.
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
    /// The mark file could not be written, so no address is issued.
    #[error(transparent)]
    Mark(#[from] MarkFileError),
    /// The address could not be derived.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Adds every address that was issued on a chain to a watch set. The addresses are read in pages, each in a transaction
/// of its own, so that millions of addresses need little extra memory and no transaction stays open for long. `watched`
/// may be the watch set that several chains with the same account key share, because a buyer may send to the address on
/// any of them.
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
    /// Stores the account keys that are not in the database yet, and returns an [`Addresses`] that can issue addresses
    /// on all chains of `accounts`. Before a chain is followed, the caller must add the addresses that were issued
    /// earlier to its watch set with [`watch_issued_addresses`].
    ///
    /// # Errors
    /// Any [`db::Error`] of the database.
    pub async fn store_account_keys_and_build(
        tx: &mut Tx,
        accounts: Vec<ChainAccount>,
    ) -> Result<Addresses, db::Error> {
        let mut issuers = HashMap::new();
        for new in accounts {
            let marked = MarkedAccount {
                family: new.family,
                purpose: new.purpose,
                mode: new.mode,
                path: new.path,
                next_index: 0,
            };
            let key = new.deriver.account_key_bytes();
            let account = store::find_or_insert_address_account(tx, &key, &marked).await?;
            let issuer = Issuer {
                account,
                deriver: new.deriver,
                watched: new.watched,
                followed: Arc::new(AtomicBool::new(true)),
                tip: Arc::default(),
                lease: Arc::default(),
            };
            issuers.insert(new.chain, issuer);
        }
        Ok(Addresses { issuers, epoch: store::find_newest_daemon_epoch(tx).await?, mark: None })
    }

    /// Returns the same addresses with a mark file, to which the database's mark is copied before a lease is used.
    pub fn with_mark_file(self, mark: Arc<MarkFile>) -> Addresses {
        Addresses { mark: Some(mark), ..self }
    }

    /// Adds the leased addresses of a chain that were not issued, such as the skipped ones after a restore, to its watch
    /// set. They stand in no table, so they are derived.
    ///
    /// # Errors
    /// [`IssueError::Db`] when the database fails, and [`IssueError::Derive`] when an address cannot be derived.
    pub async fn watch_unissued_leased_addresses(&self, db: &Db, chain: &ChainId) -> Result<(), IssueError> {
        let Some(issuer) = self.issuers.get(chain) else { return Ok(()) };
        let (account, of) = (issuer.account, chain.clone());
        let unissued: Result<_, db::Error> = db
            .read("list_unissued_indices", move |tx| {
                Box::pin(async move { store::list_unissued_indices(tx, account, &of).await })
            })
            .await;
        for index in unissued? {
            issuer.watched.insert(issuer.deriver.derive_address(index)?.key);
        }
        Ok(())
    }

    /// Returns true when the chain has an account key and the follower reads the chain.
    pub fn can_issue_address(&self, chain: &ChainId) -> bool {
        self.issuers.get(chain).is_some_and(|issuer| issuer.followed.load(Ordering::Acquire))
    }

    /// Records that a node reported a block at the height `tip`. The follower calls this function whenever it has read the
    /// tip. Money in blocks up to the highest reported one pays no invoice whose address is leased later.
    pub fn raise_known_tip(&self, chain: &ChainId, tip: Height) {
        if let Some(issuer) = self.issuers.get(chain) {
            issuer.tip.fetch_max(tip, Ordering::Relaxed);
        }
    }

    /// Records whether the follower reads the chain. Addresses are issued only while it does.
    pub fn set_chain_followed(&self, chain: &ChainId, followed: bool) {
        if let Some(issuer) = self.issuers.get(chain) {
            issuer.followed.store(followed, Ordering::Release);
        }
    }

    /// Returns the oldest lease for addresses on the chain whose initial balances are not stored; `None` when there is
    /// none. Leases of an account key that is not used any more are left out.
    ///
    /// # Errors
    /// Any [`db::Error`] of the database.
    pub async fn find_lease_without_balances(
        &self,
        tx: &mut Tx,
        chain: &ChainId,
    ) -> Result<Option<LeasedIndices>, db::Error> {
        let Some(issuer) = self.issuers.get(chain) else { return Ok(None) };
        store::find_lease_without_balances(tx, issuer.account, chain).await
    }

    /// Derives the addresses of leased indices on a chain and adds them to its watch set, so that money that arrives before
    /// they are issued is found. Returns no address when the chain has no account key.
    ///
    /// # Errors
    /// [`DeriveError`] when an address cannot be derived.
    pub fn derive_and_watch_leased_addresses(
        &self,
        chain: &ChainId,
        lease: &LeasedIndices,
    ) -> Result<Vec<(u32, Address)>, DeriveError> {
        let Some(issuer) = self.issuers.get(chain) else { return Ok(Vec::new()) };
        let derive = |index| {
            let address = issuer.deriver.derive_address(index)?;
            issuer.watched.insert(address.key);
            Ok((index, address))
        };
        lease.indices.clone().map(derive).collect()
    }

    /// Reserves an address for one order. When all leased indices are used, this function stores a new lease before it
    /// uses it. Otherwise, after a crash, the daemon could issue the same index twice.
    ///
    /// # Errors
    /// [`IssueError::NoAccount`] when the chain has no account key; otherwise the error of the derivation or the
    /// database.
    pub async fn reserve_address(&self, db: &Db, chain: &ChainId) -> Result<ReservedAddress, IssueError> {
        let issuer = self.issuers.get(chain).ok_or_else(|| IssueError::NoAccount(chain.clone()))?;
        let (index, address) = match issuer.lease.take_returned_address() {
            Some(returned) => returned,
            None => {
                let tip = issuer.tip.load(Ordering::Relaxed);
                let (account, mark) = ((issuer.account, self.epoch), self.mark.as_deref());
                let index = issuer.lease.take_or_lease_index(db, account, chain, tip, mark).await?;
                (index, issuer.deriver.derive_address(index)?)
            }
        };
        let (account, watched, lease) = (issuer.account, issuer.watched.clone(), issuer.lease.clone());
        Ok(ReservedAddress::new(chain.clone(), account, index, address, watched, lease))
    }
}
