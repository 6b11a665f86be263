//! How many blocks one range question may cover, learnt from what the nodes accept. Pure.

use crate::RpcError;

/// Growth after this many answers in a row.
const GROW_AFTER: u32 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveSize {
    size: u64,
    max: u64,
    successes: u32,
}

impl AdaptiveSize {
    /// `start` blocks at first, never more than `max`, never less than one.
    pub fn new(start: u64, max: u64) -> AdaptiveSize {
        let max = max.max(1);
        AdaptiveSize { size: start.clamp(1, max), max, successes: 0 }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// A question over `used` blocks was answered. Only full-sized ones teach anything.
    pub fn succeeded(&mut self, used: u64) {
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

    /// A question over `used` blocks was too large. Takes the range that the node suggests if it is smaller, else half.
    /// `false` when a single block was too large already: nothing is left to split.
    pub fn too_large(&mut self, used: u64, message: &str) -> bool {
        self.successes = 0;
        let half = (used / 2).max(1);
        self.size = suggestion(message).filter(|blocks| *blocks < used).unwrap_or(half).clamp(1, self.max);
        used > 1
    }

    /// Whether a question over `used` blocks that failed like this is worth asking again over fewer, which the size then is:
    /// what was too large, or could not be answered in time.
    pub fn shrinks(&mut self, used: u64, failure: &RpcError) -> bool {
        match failure {
            RpcError::TooLarge(message) => self.too_large(used, message),
            RpcError::Slow(_) => self.too_large(used, ""),
            RpcError::Unavailable(_) | RpcError::Missing(_) | RpcError::Refused(_) | RpcError::Wrong(_) => false,
        }
    }
}

/// Blocks that an error text proposes: `[0x9, 0xfa0]`, `up to 500 blocks`, `10K block range`. Numbers of results or bytes
/// are not numbers of blocks and are passed over.
fn suggestion(message: &str) -> Option<u64> {
    bracketed(message).or_else(|| counted(message)).filter(|blocks| *blocks > 0)
}

fn bracketed(message: &str) -> Option<u64> {
    let inside = message.split_once('[')?.1.split_once(']')?.0;
    let (from, to) = inside.split_once(',')?;
    number(to.trim())?.checked_sub(number(from.trim())?)?.checked_add(1)
}

fn counted(message: &str) -> Option<u64> {
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

fn number(text: &str) -> Option<u64> {
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
    fn grows_slowly_and_halves() {
        let mut span = AdaptiveSize::new(2_000, 10_000);
        for _ in 0..10 {
            span.succeeded(2_000);
        }
        assert_eq!(span.size(), 2_500);
        for _ in 0..100 {
            span.succeeded(10);
        }
        assert_eq!(span.size(), 2_500, "short questions teach nothing");
        assert!(span.too_large(2_500, "query returned more than 10000 results"));
        assert_eq!(span.size(), 1_250);
        assert!(!span.too_large(1, "too many results"));
        assert_eq!(span.size(), 1);
    }

    #[test]
    fn suggestions_count_only_when_smaller() {
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
            let mut span = AdaptiveSize::new(used, 100_000);
            span.too_large(used, message);
            assert_eq!(span.size(), expected, "{message}");
        }
    }

    proptest! {
        #[test]
        fn stays_within_bounds(steps in prop::collection::vec((any::<bool>(), 0u64..1 << 40, ".{0,60}"), 0..200)) {
            let mut span = AdaptiveSize::new(2_000, 5_000);
            for (worked, used, message) in steps {
                if worked { span.succeeded(used) } else {
                    span.too_large(used.min(span.size()), &message);
                }
                prop_assert!((1..=5_000).contains(&span.size()));
            }
        }
    }
}
