//! Every address ever issued whose key is the same on one chain and its kin, in memory.

use std::sync::{RwLock, RwLockReadGuard};

use crate::{AddressKey, OutPoint};

type Keys = hashbrown::HashSet<AddressKey, ahash::RandomState>;
type Outputs = hashbrown::HashSet<OutPoint, ahash::RandomState>;

/// Grows only. An address is in the set before anybody is told of it, so a block that pays it is never read without it.
/// The hash is keyed at random, because senders choose the keys that are looked up.
#[derive(Default)]
pub struct WatchSet {
    keys: RwLock<Keys>,
    /// What reached the addresses on chains that have outputs, spent or not: a block that was read and did not become ours
    /// leaves some in it that never were.
    outputs: RwLock<Outputs>,
}

/// The set as it stands while one block is matched.
pub struct WatchedAddresses<'a>(RwLockReadGuard<'a, Keys>);

/// Our outputs as they stand while the inputs of one block are matched.
pub struct WatchedOutputs<'a>(RwLockReadGuard<'a, Outputs>);

/// Without the addresses: there may be millions.
impl std::fmt::Debug for WatchSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchSet").finish_non_exhaustive()
    }
}

impl WatchSet {
    pub fn with_capacity(addresses: usize) -> WatchSet {
        let keys = Keys::with_capacity_and_hasher(addresses, ahash::RandomState::default());
        WatchSet { keys: RwLock::new(keys), outputs: RwLock::default() }
    }

    pub fn insert(&self, key: AddressKey) {
        self.keys.write().expect("no writer panics while it holds the set").insert(key);
    }

    /// By the driver as soon as it has read the block that has them, and at the start for all that are not spent.
    pub fn insert_outputs(&self, new: impl IntoIterator<Item = OutPoint>) {
        self.outputs.write().expect("no writer panics while it holds the set").extend(new);
    }

    pub fn read_outputs(&self) -> WatchedOutputs<'_> {
        WatchedOutputs(self.outputs.read().expect("no writer panics while it holds the set"))
    }

    pub fn read_addresses(&self) -> WatchedAddresses<'_> {
        WatchedAddresses(self.keys.read().expect("no writer panics while it holds the set"))
    }

    pub fn contains(&self, key: &AddressKey) -> bool {
        self.read_addresses().contains(key)
    }

    pub fn len(&self) -> usize {
        self.read_addresses().0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl WatchedOutputs<'_> {
    pub fn contains(&self, output: &OutPoint) -> bool {
        self.0.contains(output)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl WatchedAddresses<'_> {
    pub fn contains(&self, key: &AddressKey) -> bool {
        self.0.contains(key)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &AddressKey> {
        self.0.iter()
    }
}
