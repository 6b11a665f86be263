//! Exact sliding windows: never more than so many admitted hits of one key within any window.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use std::collections::HashMap;

use crate::limits::{Key, Limited};
use clock::Instant;

/// Hits that are remembered for one rule, all keys together: about 30 MiB. Beyond it strangers are refused, so that nobody
/// can flush a limit by filling the table.
const HITS_MAX: usize = 1 << 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub hits: u32,
    pub window_seconds: u32,
}

/// `N` rules that apply at once, each with a key of its own. A refused hit counts for none of them.
pub struct Windows<const N: usize>(Mutex<[Window; N]>);

impl<const N: usize> Windows<N> {
    pub fn new(rules: [Rule; N]) -> Windows<N> {
        Windows(Mutex::new(rules.map(Window::new)))
    }

    pub fn admit(&self, now: Instant, keys: [Key; N]) -> Result<(), Limited> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait_ms = windows.iter_mut().zip(keys).filter_map(|(window, key)| window.wait_ms(now, key)).max();
        if let Some(wait_ms) = wait_ms {
            return Err(Limited::after_ms(wait_ms));
        }
        windows.iter_mut().zip(keys).for_each(|(window, key)| window.record(key));
        Ok(())
    }
}

struct Window {
    hits: usize,
    window_ms: i64,
    /// Never goes back, whatever the clock does.
    now: Instant,
    /// Admitted hits of the running window, oldest first: of all keys, and of each.
    all: VecDeque<(Instant, Key)>,
    of_key: HashMap<Key, VecDeque<Instant>>,
}

impl Window {
    fn new(rule: Rule) -> Window {
        let hits = usize::try_from(rule.hits).expect("32 bits fit");
        let window_ms = i64::from(rule.window_seconds) * 1000;
        Window { hits, window_ms, now: Instant(i64::MIN), all: VecDeque::new(), of_key: HashMap::new() }
    }

    /// Forgets what left the window; how long this key has to wait, if at all.
    fn wait_ms(&mut self, now: Instant, key: Key) -> Option<i64> {
        self.now = self.now.max(now);
        while let Some(&(at, key)) = self.all.front()
            && self.left_ms(at) <= 0
        {
            self.all.pop_front();
            self.forget_oldest(key);
        }
        let of_key = self.of_key.get(&key);
        if of_key.map_or(0, VecDeque::len) >= self.hits {
            // A rule of no hits at all never admits; it answers with a whole window.
            return Some(of_key.and_then(VecDeque::front).map_or(self.window_ms, |at| self.left_ms(*at)));
        }
        if self.all.len() >= HITS_MAX { self.all.front().map(|(at, _)| self.left_ms(*at)) } else { None }
    }

    fn record(&mut self, key: Key) {
        self.all.push_back((self.now, key));
        self.of_key.entry(key).or_default().push_back(self.now);
    }

    fn forget_oldest(&mut self, key: Key) {
        if let std::collections::hash_map::Entry::Occupied(mut entry) = self.of_key.entry(key) {
            entry.get_mut().pop_front();
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    fn left_ms(&self, at: Instant) -> i64 {
        at.plus_ms(self.window_ms).since(self.now)
    }
}
