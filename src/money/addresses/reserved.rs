//! Addresses between their derivation and the invoice that asks for money to them.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use chain::{Address, ChainId, WatchSet};

use crate::addresses::store;
use clock::Instant;
use db::{self, Batch, Db, ResultRef};
use ids::AddressId;

/// Indices that are leased at once; as many may stay unused when the daemon ends.
const LEASE: u32 = 64;

/// What is at hand of one chain's account.
#[derive(Debug, Default)]
pub(super) struct IndexLease {
    leased: tokio::sync::Mutex<Range<u32>>,
    /// Derived for orders that did not come about.
    back: Mutex<Vec<(u32, Address)>>,
}

impl IndexLease {
    pub fn take_back(&self) -> Option<(u32, Address)> {
        self.back.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub async fn take_index(&self, db: &Db, account: i64) -> Result<u32, db::Error> {
        let mut leased = self.leased.lock().await;
        if leased.is_empty() {
            let first = db.write("lease_indices", move |tx| Box::pin(store::set_leased(tx, account, LEASE))).await?;
            *leased = first..first.saturating_add(LEASE);
        }
        leased.next().ok_or_else(|| db::Error::Statement("an account has no indices left".into()))
    }
}

/// An address that nobody was told of. Dropped before it is [issued](ReservedAddress::issue), it serves the next order.
#[derive(Debug)]
pub struct ReservedAddress {
    chain: ChainId,
    account: i64,
    watched: Arc<WatchSet>,
    shelf: Arc<IndexLease>,
    /// `None` once it is issued.
    address: Option<(u32, Address)>,
}

impl ReservedAddress {
    pub(super) fn new(
        chain: ChainId,
        account: i64,
        index: u32,
        address: Address,
        watched: Arc<WatchSet>,
        shelf: Arc<IndexLease>,
    ) -> ReservedAddress {
        ReservedAddress { chain, account, watched, shelf, address: Some((index, address)) }
    }

    pub fn chain(&self) -> &ChainId {
        &self.chain
    }

    /// Writes the address down, if the transaction is stored.
    pub(crate) fn insert(&self, links: &mut Batch, now: Instant) -> ResultRef<AddressId> {
        let (index, address) = self.address.as_ref().expect("it is issued last, and then gone");
        store::insert_address(links, now, &self.chain, address, self.account, *index)
    }

    /// Said when the transaction has nothing left that may refuse it. The address is watched even before the commit, whose
    /// outcome may stay unknown; a key that is watched for nothing is harmless.
    pub fn issue(mut self) -> String {
        let (_, address) = self.address.take().expect("it is issued once, because it is gone then");
        self.watched.insert(address.key);
        address.text
    }
}

impl Drop for ReservedAddress {
    fn drop(&mut self) {
        if let Some(unused) = self.address.take() {
            self.shelf.back.lock().unwrap_or_else(PoisonError::into_inner).push(unused);
        }
    }
}
