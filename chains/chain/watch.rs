//! The watch set: every address ever issued on a chain, in memory. Sibling chains, whose addresses have the same keys, share
//! one set.

use std::sync::{RwLock, RwLockReadGuard};

use crate::{AddressKey, OutPoint};

type Keys = hashbrown::HashSet<AddressKey, ahash::RandomState>;
type Outputs = hashbrown::HashSet<OutPoint, ahash::RandomState>;

/// The watched addresses and outputs. Both only grow. An address is inserted before it is returned to a buyer, so that no
/// block that pays it is matched without it. The hash function has a random key, because senders choose the addresses that
/// are looked up.
#[derive(Default)]
pub struct WatchSet {
    keys: RwLock<Keys>,
    /// Outputs to watched addresses, spent or not. Outputs of a block that the follower read and then did not apply stay in
    /// it, although they may never have existed on our branch.
    outputs: RwLock<Outputs>,
}

/// The watched addresses under a read lock, held while one block is matched.
pub struct WatchedAddresses<'a>(RwLockReadGuard<'a, Keys>);

/// The watched outputs under a read lock, held while the inputs of one block are matched.
pub struct WatchedOutputs<'a>(RwLockReadGuard<'a, Outputs>);

/// Prints no addresses, because there may be millions.
impl std::fmt::Debug for WatchSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchSet").finish_non_exhaustive()
    }
}

impl WatchSet {
    /// An empty set with room for `addresses` addresses.
    pub fn with_capacity(addresses: usize) -> WatchSet {
        let keys = Keys::with_capacity_and_hasher(addresses, ahash::RandomState::default());
        WatchSet { keys: RwLock::new(keys), outputs: RwLock::default() }
    }

    /// Adds an address.
    pub fn insert(&self, key: AddressKey) {
        self.keys.write().expect("no thread panics while it holds the lock").insert(key);
    }

    /// Adds outputs. The driver calls this as soon as it has read the block that creates them, and the daemon at start for
    /// all unspent ones.
    pub fn insert_outputs(&self, new: impl IntoIterator<Item = OutPoint>) {
        self.outputs.write().expect("no thread panics while it holds the lock").extend(new);
    }

    /// Locks the watched outputs for reading.
    pub fn read_outputs(&self) -> WatchedOutputs<'_> {
        WatchedOutputs(self.outputs.read().expect("no thread panics while it holds the lock"))
    }

    /// Locks the watched addresses for reading.
    pub fn read_addresses(&self) -> WatchedAddresses<'_> {
        WatchedAddresses(self.keys.read().expect("no thread panics while it holds the lock"))
    }

    /// Returns true when the address is watched.
    pub fn contains(&self, key: &AddressKey) -> bool {
        self.read_addresses().contains(key)
    }

    /// The number of watched addresses.
    pub fn len(&self) -> usize {
        self.read_addresses().0.len()
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

    /// The number of watched addresses.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All watched addresses, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &AddressKey> {
        self.0.iter()
    }
}
