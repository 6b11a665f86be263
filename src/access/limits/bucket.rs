//! Token buckets, a kind of rate limit. A limit of N hits per minute allows each key N hits per minute on average, and
//! up to N hits at the same moment.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::limits::{Key, Limited};
use clock::Instant;

/// One minute in milliseconds.
const MINUTE_MS: i64 = 60_000;
/// The maximum number of keys in the table. A full table needs about 6 MiB. Hits of further keys are admitted and not
/// counted, because otherwise an attacker could lock out all other clients by filling the table.
const KEYS_MAX: usize = 1 << 18;

/// A limit of hits per minute for each key.
pub struct Buckets {
    per_minute: i64,
    table: Mutex<Table>,
}

/// The buckets of all keys. Times are stored in milliseconds multiplied by `per_minute`, so that one hit costs exactly
/// 60,000 units and no division rounds.
struct Table {
    /// The latest time that a caller has passed to this table. It never decreases, even if the clock is set back.
    now: i64,
    /// For each key, the time at which its bucket is full again. A key with a full bucket need not be stored.
    full_at: HashMap<Key, i64>,
    /// The number of stored keys at which the next hit first removes the keys with full buckets.
    eviction_threshold: usize,
}

impl Buckets {
    /// Creates a limit of `hits` per minute. A limit of 0 is raised to 1.
    pub fn with_hits_per_minute(hits: u32) -> Buckets {
        let table = Table { now: i64::MIN, full_at: HashMap::new(), eviction_threshold: 1024 };
        Buckets { per_minute: i64::from(hits.max(1)), table: Mutex::new(table) }
    }

    /// Counts a hit of a key. Fails when the bucket of the key is empty; then the hit is not counted. A hit of a new
    /// key is admitted without being counted when the table is full.
    pub fn count_hit_unless_limited(&self, now: Instant, key: Key) -> Result<(), Limited> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.now = table.now.max(now.0.saturating_mul(self.per_minute));
        let now = table.now;
        let full_at = table.full_at.get(&key).copied().unwrap_or(now).max(now).saturating_add(MINUTE_MS);
        let excess = full_at.saturating_sub(now).saturating_sub(MINUTE_MS.saturating_mul(self.per_minute));
        if excess > 0 {
            let wait_ms = excess.saturating_add(self.per_minute - 1) / self.per_minute;
            return Err(Limited::from_wait_ms(wait_ms));
        }
        table.drop_full_buckets_and_store_if_room(key, full_at);
        Ok(())
    }

    /// Returns the number of keys that have a bucket in memory.
    #[cfg(test)]
    pub fn count_keys(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).full_at.len()
    }
}

impl Table {
    /// Stores the bucket of a key. When the table has `eviction_threshold` keys or more, the keys with full buckets are
    /// removed first. A new key is not stored when the table still has [`KEYS_MAX`] keys.
    fn drop_full_buckets_and_store_if_room(&mut self, key: Key, full_at: i64) {
        if self.full_at.len() >= self.eviction_threshold {
            let now = self.now;
            self.full_at.retain(|_, full_at| *full_at > now);
            self.eviction_threshold = self.full_at.len().saturating_mul(2).clamp(1024, KEYS_MAX);
        }
        if self.full_at.len() < KEYS_MAX || self.full_at.contains_key(&key) {
            self.full_at.insert(key, full_at);
        }
    }
}
