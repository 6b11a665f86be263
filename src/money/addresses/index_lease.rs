//! Leases of address indices. A lease is a range of indices that one process may use. The database never gives the same
//! index to two leases.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use chain::{Address, ChainId, Height};

use crate::addresses::{IssueError, MarkFile, store};
use db::{self, Db};

/// The number of indices in a lease. When the daemon stops, up to this many indices of its lease stay unused for ever.
const LEASE: u32 = 64;

/// The indices of one lease that are not used yet.
#[derive(Debug, Default)]
struct CurrentLease {
    indices: Range<u32>,
    /// True when the mark file has the lease. Until then, no index of it is used.
    is_in_mark_file: bool,
}

/// The leased indices of an account that are not used yet. They are leased for addresses on one chain.
#[derive(Debug, Default)]
pub(super) struct IndexLease {
    leased: tokio::sync::Mutex<CurrentLease>,
    /// The addresses of dropped reservations. These are reserved again before new addresses are derived.
    returned: Mutex<Vec<(u32, Address)>>,
}

impl IndexLease {
    /// Takes out an address whose reservation was dropped, and returns it with its index; `None` when there is no such
    /// address.
    pub fn take_returned_address(&self) -> Option<(u32, Address)> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps the index and the address of a dropped reservation, so that another order can use them.
    pub fn return_address(&self, unused: (u32, Address)) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).push(unused);
    }

    /// Returns the next leased index. Stores a new lease when the current one is used up, and copies the database's mark to
    /// the mark file before the lease is used. When the file cannot be written, the next call tries it again with the same
    /// lease. `account` is the id of the account and the epoch of this daemon; `tip` is the height of the highest known
    /// block of the chain.
    pub async fn take_or_lease_index(
        &self,
        db: &Db,
        account: (i64, u64),
        chain: &ChainId,
        tip: Height,
        mark: Option<&MarkFile>,
    ) -> Result<u32, IssueError> {
        let mut leased = self.leased.lock().await;
        if leased.indices.is_empty() {
            let chain = chain.clone();
            let lease = db.write("lease_indices", move |tx| {
                Box::pin(async move { store::lease_indices(tx, account, LEASE, &chain, tip).await })
            });
            let first: u32 = lease.await?;
            *leased = CurrentLease { indices: first..first.saturating_add(LEASE), is_in_mark_file: false };
        }
        if !leased.is_in_mark_file {
            if let Some(mark) = mark {
                mark.copy_database_mark(db).await?;
            }
            leased.is_in_mark_file = true;
        }
        let exhausted = || db::Error::Statement("an account has no address indices left".into());
        Ok(leased.indices.next().ok_or_else(exhausted)?)
    }
}
