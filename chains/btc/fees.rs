//! Fee rates of transactions. A minimum and a maximum limit the cost of a wrong fee estimate.

use chain::SourceError;

use crate::{Backend, Bitcoin, bitcoin_core, esplora};

/// A fee rate in satoshi per 1,000 virtual bytes, the unit of Bitcoin Core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeeRate(pub u64);

impl FeeRate {
    /// 1 sat/vB: the lowest fee rate of transactions that nodes relay by default.
    pub const MIN: FeeRate = FeeRate(1_000);
    /// 1,000 sat/vB. This is twice the highest rate that mainnet blocks have required for several hours.
    pub const MAX: FeeRate = FeeRate(1_000_000);

    /// Returns the fee rate that is nearest to this one and between [`FeeRate::MIN`] and [`FeeRate::MAX`].
    pub fn clamp_to_limits(self) -> FeeRate {
        self.clamp(FeeRate::MIN, FeeRate::MAX)
    }

    /// Parses a fee rate from a decimal number, multiplies the number by 10^`places` and rounds it up. `places` is 8
    /// for a number in BTC/kvB and 3 for a number in sat/vB. Returns `None` if the text is not a decimal number.
    pub(crate) fn parse_decimal_rounding_up(decimal: &str, places: usize) -> Option<FeeRate> {
        let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
        if whole.is_empty() || ![whole, fraction].iter().all(|part| part.bytes().all(|b| b.is_ascii_digit())) {
            return None;
        }
        let (kept, beyond) = fraction.split_at(fraction.len().min(places));
        let units: u64 = format!("{whole}{kept:0<places$}").parse().ok()?;
        let round_up = u64::from(beyond.bytes().any(|b| b != b'0'));
        units.checked_add(round_up).map(FeeRate)
    }
}

impl Bitcoin {
    /// Returns the estimated fee rate for a confirmation within `blocks` blocks, limited to the range from
    /// [`FeeRate::MIN`] to [`FeeRate::MAX`]. Returns [`FeeRate::MIN`] if no endpoint has an estimate.
    ///
    /// # Errors
    /// Returns [`SourceError::Unavailable`] if no endpoint answers.
    pub async fn estimate_bounded_fee_rate(&self, blocks: u16) -> Result<FeeRate, SourceError> {
        let estimate = match self.config.backend {
            Backend::Core => bitcoin_core::estimate_fee_rate(&self.pool, blocks).await,
            Backend::Esplora => esplora::estimate_fee_rate(&self.pool, blocks).await,
        };
        let estimate = estimate.map_err(|error| error.into_source_error(0))?;
        Ok(estimate.unwrap_or(FeeRate::MIN).clamp_to_limits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_parsed_exactly_and_rounded_up() {
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
            assert_eq!(FeeRate::parse_decimal_rounding_up(text, places).map(|rate| rate.0), expected, "{text}");
        }
        assert_eq!((FeeRate(3).clamp_to_limits(), FeeRate(u64::MAX).clamp_to_limits()), (FeeRate::MIN, FeeRate::MAX));
    }
}
