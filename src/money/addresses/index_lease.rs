//! Leases of address indices. A lease is a range of indices that one process may use. The database never gives the same
//! index to two leases.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use chain::Address;

use crate::addresses::store;
use db::{self, Db};

/// The number of indices in a lease. When the daemon stops, up to this many indices of its lease stay unused for ever.
const LEASE: u32 = 64;

/// For one account: the leased indices that no address uses yet.
#[derive(Debug, Default)]
pub(super) struct IndexLease {
    /// The indices of the current lease that are not used yet.
    leased: tokio::sync::Mutex<Range<u32>>,
    /// The addresses of dropped reservations. These are reserved again before new addresses are derived.
    returned: Mutex<Vec<(u32, Address)>>,
}

impl IndexLease {
    /// Takes an address whose reservation was dropped, and returns it with its index. `None` when no such address is
    /// left.
    pub fn take_returned_address(&self) -> Option<(u32, Address)> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps the index and the address of a dropped reservation, so that another order can use them.
    pub fn return_address(&self, unused: (u32, Address)) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).push(unused);
    }

    /// Returns the next unused index of the lease. When the lease has no unused index left, stores a new lease first.
    pub async fn take_or_lease_index(&self, db: &Db, account: i64) -> Result<u32, db::Error> {
        let mut leased = self.leased.lock().await;
        if leased.is_empty() {
            let first = db.write("lease_indices", move |tx| Box::pin(store::lease_indices(tx, account, LEASE))).await?;
            *leased = first..first.saturating_add(LEASE);
        }
        leased.next().ok_or_else(|| db::Error::Statement("an account has no address indices left".into()))
    }
}
