//! The number of blocks or calls in one request, which adapts to the sizes that the nodes accept. This module does no
//! I/O.

use crate::RpcError;

/// The number of successes in a row after which the size grows.
const GROW_AFTER: u32 = 10;

/// The number of blocks or calls in the next request. The size grows by a quarter after ten successes in a row, and is
/// halved when a request was too large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveSize {
    size: u64,
    max: u64,
    successes: u32,
}

impl AdaptiveSize {
    /// Returns a size that begins with `start` and stays between 1 and `max`.
    pub fn new(start: u64, max: u64) -> AdaptiveSize {
        let max = max.max(1);
        AdaptiveSize { size: start.clamp(1, max), max, successes: 0 }
    }

    /// Returns the size of the next request, at least 1.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Records that a request of size `used` succeeded. After ten successes in a row, the size grows by a quarter. A
    /// request below the current size is ignored.
    pub fn grow_after_ten_full_size_successes(&mut self, used: u64) {
        if used < self.size {
            return;
        }
        self.successes += 1;
        if self.successes >= GROW_AFTER {
            self.successes = 0;
            let grown = self.size.saturating_add((self.size / 4).max(1));
            self.size = grown.min(self.max);
        }
    }

    /// Reduces the size after a request of size `used` was too large: to the size that the node's message proposes if
    /// that is smaller, and to half of `used` otherwise. Returns false if `used` was 1, because such a request cannot
    /// be split.
    pub fn shrink_after_too_large(&mut self, used: u64, message: &str) -> bool {
        self.successes = 0;
        let half = (used / 2).max(1);
        self.size =
            parse_proposed_block_count(message).filter(|blocks| *blocks < used).unwrap_or(half).clamp(1, self.max);
        used > 1
    }

    /// Reduces the size if a request of size `used` was too large or timed out. Returns true if a smaller request may
    /// succeed.
    pub fn shrink_if_too_large_or_timed_out(&mut self, used: u64, error: &RpcError) -> bool {
        match error {
            RpcError::TooLarge(message) => self.shrink_after_too_large(used, message),
            RpcError::Timeout(_) => self.shrink_after_too_large(used, ""),
            RpcError::Unavailable(_) | RpcError::MethodMissing(_) | RpcError::NodeError(_) | RpcError::Invalid(_) => {
                false
            }
        }
    }
}

/// Returns the number of blocks that a node's error message proposes, as in `[0x9, 0xfa0]`, `up to 500 blocks` or `10K
/// block range`. Ignores numbers of results and of bytes.
fn parse_proposed_block_count(message: &str) -> Option<u64> {
    parse_length_of_bracketed_range(message).or_else(|| parse_number_before_block(message)).filter(|blocks| *blocks > 0)
}

/// Returns the number of blocks in a range such as `[0x9, 0xfa0]`. Both ends belong to the range.
fn parse_length_of_bracketed_range(message: &str) -> Option<u64> {
    let inside = message.split_once('[')?.1.split_once(']')?.0;
    let (from, to) = inside.split_once(',')?;
    parse_hex_or_decimal(to.trim())?.checked_sub(parse_hex_or_decimal(from.trim())?)?.checked_add(1)
}

/// Returns the number before a word that begins with `block`, as in `up to 500 blocks` or `10K block range`.
fn parse_number_before_block(message: &str) -> Option<u64> {
    let words: Vec<&str> = message.split(|c: char| c.is_whitespace() || matches!(c, '-' | '(' | ')' | ':')).collect();
    let pairs = words.iter().zip(words.iter().skip(1));
    pairs.filter(|(_, next)| next.to_ascii_lowercase().starts_with("block")).find_map(|(word, _)| {
        let (digits, factor) = match word.strip_suffix(['k', 'K']) {
            Some(thousands) => (thousands, 1_000),
            None => (*word, 1),
        };
        digits.replace([',', '_'], "").parse::<u64>().ok()?.checked_mul(factor)
    })
}

fn parse_hex_or_decimal(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_size_grows_slowly_and_halves_when_too_large() {
        let mut size = AdaptiveSize::new(2_000, 10_000);
        for _ in 0..10 {
            size.grow_after_ten_full_size_successes(2_000);
        }
        assert_eq!(size.size(), 2_500);
        for _ in 0..100 {
            size.grow_after_ten_full_size_successes(10);
        }
        assert_eq!(size.size(), 2_500, "requests below the size are ignored");
        assert!(size.shrink_after_too_large(2_500, "query returned more than 10000 results"));
        assert_eq!(size.size(), 1_250);
        assert!(!size.shrink_after_too_large(1, "too many results"));
        assert_eq!(size.size(), 1);
    }

    #[test]
    fn a_proposed_range_counts_only_if_it_is_smaller() {
        for (message, used, expected) in [
            ("Log response size exceeded. Try with this block range [0x9, 0x12].", 100, 10),
            ("this block range should work: [0x1, 0xfa0]", 100, 50),
            ("You can make eth_getLogs requests with up to a 500 block range.", 2_000, 500),
            ("eth_getLogs is limited to a 10K block range", 20_000, 10_000),
            ("limited to 1,000 blocks", 2_000, 1_000),
            ("exceed maximum block range: 5000", 8_000, 4_000),
            ("query returned more than 10000 results", 20_000, 10_000),
            ("range [5, 1]", 8, 4),
            ("[", 8, 4),
        ] {
            let mut size = AdaptiveSize::new(used, 100_000);
            size.shrink_after_too_large(used, message);
            assert_eq!(size.size(), expected, "{message}");
        }
    }

    proptest! {
        #[test]
        fn the_size_stays_within_its_bounds(steps in prop::collection::vec((any::<bool>(), 0u64..1 << 40, ".{0,60}"), 0..200)) {
            let mut size = AdaptiveSize::new(2_000, 5_000);
            for (worked, used, message) in steps {
                if worked { size.grow_after_ten_full_size_successes(used) } else {
                    size.shrink_after_too_large(used.min(size.size()), &message);
                }
                prop_assert!((1..=5_000).contains(&size.size()));
            }
        }
    }
}
