//! Addresses that are derived and do not belong to an invoice yet.

use std::sync::Arc;

use chain::{Address, ChainId, WatchSet};

use crate::addresses::index_lease::IndexLease;
use crate::addresses::store;
use clock::Instant;
use db::{ResultRef, Tx};
use ids::AddressId;

/// An address that is reserved for one order. When the reservation is dropped before it is
/// [issued](ReservedAddress::watch_and_issue_address), another order can reserve it.
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

    /// Queues the statement that stores the address. The result refers to the id of the new address. The address stays
    /// reserved until [`ReservedAddress::watch_and_issue_address`] is called.
    ///
    /// # Panics
    /// Never: only `watch_and_issue_address` and `drop` take the address out, and both consume the reservation.
    pub(crate) fn queue_address_insert(&self, tx: &mut Tx, now: Instant) -> ResultRef<AddressId> {
        let (index, address) =
            self.address.as_ref().expect("only `watch_and_issue_address` and `drop` take the address");
        store::queue_address_insert(tx, now, &self.chain, address, self.account, *index)
    }

    /// Adds the address to the watch set, marks it as issued, and returns it as text. Call this function when nothing
    /// in the database transaction can refuse the order any more. The address is watched before the commit, because the
    /// outcome of a commit can stay unknown; watching an unused address is harmless.
    ///
    /// # Panics
    /// Never: only `watch_and_issue_address` and `drop` take the address out, and both consume the reservation.
    pub fn watch_and_issue_address(mut self) -> String {
        let (_, address) = self.address.take().expect("only `watch_and_issue_address` and `drop` take the address");
        self.watched.insert(address.key);
        address.text
    }
}

impl Drop for ReservedAddress {
    fn drop(&mut self) {
        if let Some(unused) = self.address.take() {
            self.lease.return_address(unused);
        }
    }
}
