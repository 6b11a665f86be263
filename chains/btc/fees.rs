//! What a transaction should pay for its place in a block, whoever says so: clamped, so that a node's fancy costs little.

/// Satoshi for a thousand virtual bytes, the unit in which Bitcoin Core thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeeRate(pub u64);

/// What every node relays (1 sat/vB).
pub const LEAST: FeeRate = FeeRate(1_000);
/// 1,000 sat/vB: twice what was ever paid for hours on end.
pub const MOST: FeeRate = FeeRate(1_000_000);

impl FeeRate {
    pub fn clamped(self) -> FeeRate {
        self.clamp(LEAST, MOST)
    }

    /// Reads `decimal · 10^places`, rounded up: BTC/kvB with 8 places, sat/vB with 3. Estimates have digits beyond that.
    pub(crate) fn read(decimal: &str, places: usize) -> Option<FeeRate> {
        let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
        if whole.is_empty() || ![whole, fraction].iter().all(|part| part.bytes().all(|b| b.is_ascii_digit())) {
            return None;
        }
        let (kept, beyond) = fraction.split_at(fraction.len().min(places));
        let units: u64 = format!("{whole}{kept:0<places$}").parse().ok()?;
        let rest = u64::from(beyond.bytes().any(|b| b != b'0'));
        units.checked_add(rest).map(FeeRate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_read_exactly_and_rounded_up() {
        for (text, places, expected) in [
            ("0.00001000", 8, Some(1_000)),
            ("0.00012345", 8, Some(12_345)),
            ("1.0009999999999999", 3, Some(1_001)),
            ("87.882", 3, Some(87_882)),
            ("3", 3, Some(3_000)),
            ("1e-5", 8, None),
            ("-1", 8, None),
            ("", 8, None),
            (".5", 3, None),
        ] {
            assert_eq!(FeeRate::read(text, places).map(|rate| rate.0), expected, "{text}");
        }
        assert_eq!((FeeRate(3).clamped(), FeeRate(u64::MAX).clamped()), (LEAST, MOST));
    }
}
