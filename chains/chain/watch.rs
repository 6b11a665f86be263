//! The watch set keeps in memory every address that was ever issued on a chain, and every known output to these
//! addresses. Chains on which one key owns the same address share one watch set.

use std::sync::{RwLock, RwLockReadGuard};

use crate::{AddressKey, OutPoint};

type Keys = hashbrown::HashSet<AddressKey, ahash::RandomState>;
type Outputs = hashbrown::HashSet<OutPoint, ahash::RandomState>;

/// The watched addresses and the watched outputs. Neither is ever removed. An address is inserted before the buyer
/// learns it, so that the set contains the address before any block can contain a payment to this address. The hash
/// function has a random key, because senders choose the addresses that are looked up and could otherwise cause
/// collisions.
#[derive(Default)]
pub struct WatchSet {
    keys: RwLock<Keys>,
    /// The outputs to watched addresses, spent or not. The set also keeps outputs of blocks that the follower read and
    /// then did not apply, although such outputs may never exist on our branch.
    outputs: RwLock<Outputs>,
}

/// The watched addresses, locked for reading. A driver holds the lock while it compares the transfers of one block with
/// the addresses.
pub struct WatchedAddresses<'a>(RwLockReadGuard<'a, Keys>);

/// The watched outputs, locked for reading. A driver holds the lock while it compares the inputs of one block with the
/// outputs.
pub struct WatchedOutputs<'a>(RwLockReadGuard<'a, Outputs>);

/// `Debug` prints only the name of the type, because there may be millions of addresses.
impl std::fmt::Debug for WatchSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchSet").finish_non_exhaustive()
    }
}

impl WatchSet {
    /// Returns an empty watch set with memory for `addresses` addresses.
    pub fn with_capacity(addresses: usize) -> WatchSet {
        let keys = Keys::with_capacity_and_hasher(addresses, ahash::RandomState::default());
        WatchSet { keys: RwLock::new(keys), outputs: RwLock::default() }
    }

    /// Adds an address to the watch set.
    pub fn insert(&self, key: AddressKey) {
        self.keys.write().expect("no thread panics while it holds the lock").insert(key);
    }

    /// Adds outputs to the watch set. The driver adds the outputs of a block as soon as it has read the block, and the
    /// daemon adds all unspent outputs at start.
    pub fn insert_outputs(&self, new: impl IntoIterator<Item = OutPoint>) {
        self.outputs.write().expect("no thread panics while it holds the lock").extend(new);
    }

    /// Locks the watched outputs for reading.
    pub fn lock_outputs(&self) -> WatchedOutputs<'_> {
        WatchedOutputs(self.outputs.read().expect("no thread panics while it holds the lock"))
    }

    /// Locks the watched addresses for reading.
    pub fn lock_addresses(&self) -> WatchedAddresses<'_> {
        WatchedAddresses(self.keys.read().expect("no thread panics while it holds the lock"))
    }

    /// Returns true when the address is watched.
    pub fn contains(&self, key: &AddressKey) -> bool {
        self.lock_addresses().contains(key)
    }

    /// Returns the number of watched addresses.
    pub fn len(&self) -> usize {
        self.lock_addresses().0.len()
    }

    /// Returns true when no address is watched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl WatchedOutputs<'_> {
    /// Returns true when the output is watched.
    pub fn contains(&self, output: &OutPoint) -> bool {
        self.0.contains(output)
    }

    /// Returns true when no output is watched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl WatchedAddresses<'_> {
    /// Returns true when the address is watched.
    pub fn contains(&self, key: &AddressKey) -> bool {
        self.0.contains(key)
    }

    /// Returns true when no address is watched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of watched addresses.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns all watched addresses, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &AddressKey> {
        self.0.iter()
    }
}
