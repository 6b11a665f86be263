//! Exact sliding windows, a kind of rate limit: within any period of the window's length, at most the allowed number of
//! hits of one key is admitted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::limits::{Key, Limited};
use clock::Instant;

/// The maximum number of stored hits of one rule, for all keys together. These hits need about 30 MiB. When the maximum
/// is reached, further hits are refused, so that an attacker who fills the table cannot make the limit forget earlier
/// hits.
const HITS_MAX: usize = 1 << 18;

/// A rate limit: at most `hits` of one key within any period of `window_seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The maximum number of admitted hits within the window; 0 admits no hit.
    pub hits: u32,
    /// The length of the window, in seconds.
    pub window_seconds: u32,
}

/// `N` rate limits that apply to the same requests. Each limit counts requests by its own key. A request that one limit
/// refuses is not counted by any limit.
pub struct Windows<const N: usize>(Mutex<[Window; N]>);

impl<const N: usize> Windows<N> {
    /// Creates one window for each rule. No hit has been counted yet.
    pub fn new(rules: [Rule; N]) -> Windows<N> {
        Windows(Mutex::new(rules.map(Window::new)))
    }

    /// Counts a hit under one key for each rule. Fails when any rule refuses the hit; then no rule counts the hit.
    pub fn count_hit_unless_limited(&self, now: Instant, keys: [Key; N]) -> Result<(), Limited> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait_ms = windows
            .iter_mut()
            .zip(keys)
            .filter_map(|(window, key)| window.expire_hits_and_find_wait_ms(now, key))
            .max();
        if let Some(wait_ms) = wait_ms {
            return Err(Limited::from_wait_ms(wait_ms));
        }
        windows.iter_mut().zip(keys).for_each(|(window, key)| window.record_hit(key));
        Ok(())
    }
}

/// The hits of one rule that were admitted within its window.
struct Window {
    /// The maximum number of hits of one key within the window.
    hits: usize,
    /// The length of the window, in milliseconds.
    window_ms: i64,
    /// The latest time that a caller has passed to this window. It never decreases, even if the clock is set back.
    now: Instant,
    /// The admitted hits of all keys that are still within the window, the oldest hit first.
    all: VecDeque<(Instant, Key)>,
    /// The same hits as in `all`, but for each key separately, the oldest hit first.
    of_key: HashMap<Key, VecDeque<Instant>>,
}

impl Window {
    fn new(rule: Rule) -> Window {
        let hits = usize::try_from(rule.hits).expect("32 bits fit");
        let window_ms = i64::from(rule.window_seconds) * 1000;
        Window { hits, window_ms, now: Instant(i64::MIN), all: VecDeque::new(), of_key: HashMap::new() }
    }

    /// Removes the hits that have left the window. Returns the number of milliseconds until a hit of this key is
    /// admitted; `None` when the hit is admitted now.
    fn expire_hits_and_find_wait_ms(&mut self, now: Instant, key: Key) -> Option<i64> {
        self.now = self.now.max(now);
        while let Some(&(at, key)) = self.all.front()
            && self.remaining_ms(at) <= 0
        {
            self.all.pop_front();
            self.remove_oldest_hit_of_key(key);
        }
        let of_key = self.of_key.get(&key);
        if of_key.map_or(0, VecDeque::len) >= self.hits {
            // A rule with `hits` = 0 never admits a hit, so there is no oldest hit to wait for. The reported wait is
            // the whole window.
            return Some(of_key.and_then(VecDeque::front).map_or(self.window_ms, |at| self.remaining_ms(*at)));
        }
        if self.all.len() >= HITS_MAX { self.all.front().map(|(at, _)| self.remaining_ms(*at)) } else { None }
    }

    /// Stores an admitted hit of a key.
    fn record_hit(&mut self, key: Key) {
        self.all.push_back((self.now, key));
        self.of_key.entry(key).or_default().push_back(self.now);
    }

    /// Removes the oldest hit of a key from `of_key`.
    fn remove_oldest_hit_of_key(&mut self, key: Key) {
        if let std::collections::hash_map::Entry::Occupied(mut entry) = self.of_key.entry(key) {
            entry.get_mut().pop_front();
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    /// Returns the milliseconds until a hit that was counted at `at` leaves the window; 0 or less when the hit has left
    /// the window already.
    fn remaining_ms(&self, at: Instant) -> i64 {
        at.plus_ms(self.window_ms).since(self.now)
    }
}
