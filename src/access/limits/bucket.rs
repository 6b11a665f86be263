//! Token buckets: so many hits a minute on average and at most as many at once, for eight bytes a key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::limits::{Key, Limited};
use clock::Instant;

const MINUTE_MS: i64 = 60_000;
/// Keys that are remembered, about 6 MiB. Beyond it strangers are admitted uncounted: this limit keeps single clients from
/// taking all the service, and must not itself be the way to deny it to everybody.
const KEYS_MAX: usize = 1 << 18;

/// A limit per minute and key.
pub struct Buckets {
    per_minute: i64,
    table: Mutex<Table>,
}

/// Time is counted in milliseconds × `per_minute`, so that one hit is worth exactly one minute of it.
struct Table {
    now: i64,
    /// When the bucket of a key is full again. One that is full is as good as absent.
    full_at: HashMap<Key, i64>,
    /// How many keys make it worth to look for full buckets.
    crowd: usize,
}

impl Buckets {
    pub fn per_minute(hits: u32) -> Buckets {
        let table = Table { now: i64::MIN, full_at: HashMap::new(), crowd: 1024 };
        Buckets { per_minute: i64::from(hits.max(1)), table: Mutex::new(table) }
    }

    pub fn admit(&self, now: Instant, key: Key) -> Result<(), Limited> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.now = table.now.max(now.0.saturating_mul(self.per_minute));
        let now = table.now;
        let full_at = table.full_at.get(&key).copied().unwrap_or(now).max(now).saturating_add(MINUTE_MS);
        let excess = full_at.saturating_sub(now).saturating_sub(MINUTE_MS.saturating_mul(self.per_minute));
        if excess > 0 {
            let wait_ms = excess.saturating_add(self.per_minute - 1) / self.per_minute;
            return Err(Limited::after_ms(wait_ms));
        }
        table.remember(key, full_at);
        Ok(())
    }

    #[cfg(test)]
    pub fn keys(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).full_at.len()
    }
}

impl Table {
    fn remember(&mut self, key: Key, full_at: i64) {
        if self.full_at.len() >= self.crowd {
            let now = self.now;
            self.full_at.retain(|_, full_at| *full_at > now);
            self.crowd = self.full_at.len().saturating_mul(2).clamp(1024, KEYS_MAX);
        }
        if self.full_at.len() < KEYS_MAX || self.full_at.contains_key(&key) {
            self.full_at.insert(key, full_at);
        }
    }
}
