//! Addresses that are derived and do not belong to an invoice yet.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use chain::{Address, ChainId, WatchSet};

use crate::addresses::store;
use clock::Instant;
use db::{self, Db, ResultRef, Tx};
use ids::AddressId;

/// The number of indices in a lease. When the daemon stops, at most this number of indices stays unused.
const LEASE: u32 = 64;

/// The leased indices of an account that are not used yet.
#[derive(Debug, Default)]
pub(super) struct IndexLease {
    /// The remaining indices of the current lease.
    leased: tokio::sync::Mutex<Range<u32>>,
    /// The addresses of dropped reservations. These are reserved again before new addresses are derived.
    returned: Mutex<Vec<(u32, Address)>>,
}

impl IndexLease {
    /// Returns an address whose reservation was dropped, with its index; `None` when there is none.
    pub fn take_returned_address(&self) -> Option<(u32, Address)> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Returns the next leased index. Stores a new lease when the current one is used up.
    pub async fn take_or_lease_index(&self, db: &Db, account: i64) -> Result<u32, db::Error> {
        let mut leased = self.leased.lock().await;
        if leased.is_empty() {
            let first = db.write("lease_indices", move |tx| Box::pin(store::lease_indices(tx, account, LEASE))).await?;
            *leased = first..first.saturating_add(LEASE);
        }
        leased.next().ok_or_else(|| db::Error::Statement("an account has no address indices left".into()))
    }
}

/// An address that is reserved for one order. When it is dropped before it is [issued](ReservedAddress::issue_address),
/// another order can reserve it.
#[derive(Debug)]
pub struct ReservedAddress {
    chain: ChainId,
    account: i64,
    watched: Arc<WatchSet>,
    lease: Arc<IndexLease>,
    /// The index and the address; `None` after the address was issued.
    address: Option<(u32, Address)>,
}

impl ReservedAddress {
    pub(super) fn new(
        chain: ChainId,
        account: i64,
        index: u32,
        address: Address,
        watched: Arc<WatchSet>,
        lease: Arc<IndexLease>,
    ) -> ReservedAddress {
        ReservedAddress { chain, account, watched, lease, address: Some((index, address)) }
    }

    /// Returns the chain of the address.
    pub fn chain(&self) -> &ChainId {
        &self.chain
    }

    /// Queues the statement that stores the address.
    ///
    /// # Panics
    /// Never: only `issue_address` and `drop` take the address out, and both consume the reservation.
    pub(crate) fn queue_address_insert(&self, tx: &mut Tx, now: Instant) -> ResultRef<AddressId> {
        let (index, address) = self.address.as_ref().expect("only `issue_address` and `drop` take the address");
        store::queue_address_insert(tx, now, &self.chain, address, self.account, *index)
    }

    /// Adds the address to the watch set and returns its text. Call this function when nothing in the database
    /// transaction can reject the order any more. The address is watched before the commit, because the outcome of a
    /// commit can stay unknown; watching an unused address is harmless.
    ///
    /// # Panics
    /// Never: only `issue_address` and `drop` take the address out, and both consume the reservation.
    pub fn issue_address(mut self) -> String {
        let (_, address) = self.address.take().expect("only `issue_address` and `drop` take the address");
        self.watched.insert(address.key);
        address.text
    }
}

impl Drop for ReservedAddress {
    fn drop(&mut self) {
        if let Some(unused) = self.address.take() {
            self.lease.returned.lock().unwrap_or_else(PoisonError::into_inner).push(unused);
        }
    }
}
