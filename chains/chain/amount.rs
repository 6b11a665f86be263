//! Base units of one asset: unsigned 256-bit integers with checked arithmetic only.

use std::fmt;

use ruint::aliases::U256;

/// The integer inside an [`Amount`], for arithmetic that the type itself does not offer.
pub type Units = U256;

/// A number of base units (satoshi, wei, sun, 10^-decimals of a token). Never negative; every operation that could leave
/// the range says so. Which asset it counts is known from where it stands: an account, an invoice, a transfer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(U256);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("`{0}` is not a decimal number")]
    NotANumber(String),
    #[error("`{0}` has more than {1} decimal places")]
    TooManyDecimals(String, u8),
    #[error("`{0}` is larger than 2^256 base units")]
    TooLarge(String),
}

impl Amount {
    pub const ZERO: Amount = Amount(U256::ZERO);
    pub const MAX: Amount = Amount(U256::MAX);

    pub const fn new(units: U256) -> Amount {
        Amount(units)
    }

    pub fn from_units(units: u128) -> Amount {
        Amount(U256::from(units))
    }

    pub const fn units(self) -> U256 {
        self.0
    }

    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    pub fn checked_mul(self, factor: u64) -> Option<Amount> {
        self.0.checked_mul(U256::from(factor)).map(Amount)
    }

    /// `self · numerator / denominator`, rounded down; `None` on overflow or a zero denominator.
    pub fn checked_mul_ratio(self, numerator: u64, denominator: u64) -> Option<Amount> {
        self.0.checked_mul(U256::from(numerator))?.checked_div(U256::from(denominator)).map(Amount)
    }

    pub fn saturating_sub(self, other: Amount) -> Amount {
        Amount(self.0.saturating_sub(other.0))
    }

    /// The sum of all, or `None` when it leaves the range.
    pub fn checked_sum(amounts: impl IntoIterator<Item = Amount>) -> Option<Amount> {
        amounts.into_iter().try_fold(Amount::ZERO, Amount::checked_add)
    }

    /// The form in which both databases store amounts: byte order is numeric order.
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }

    pub fn from_be_bytes(bytes: [u8; 32]) -> Amount {
        Amount(U256::from_be_bytes(bytes))
    }

    /// `None` unless the slice has exactly 32 bytes.
    pub fn from_be_slice(bytes: &[u8]) -> Option<Amount> {
        bytes.try_into().ok().map(Amount::from_be_bytes)
    }

    /// The next multiple of 10^(decimals − keep) that is not below: how an expected amount is cut to the decimal
    /// places a wallet can type. `None` on overflow.
    pub fn round_up(self, decimals: u8, keep: u8) -> Option<Amount> {
        let step = power_of_ten(decimals.saturating_sub(keep))?;
        let excess = self.0 % step;
        if excess.is_zero() { Some(self) } else { self.0.checked_add(step - excess).map(Amount) }
    }

    /// Exact decimal text in whole coins, without trailing zeros: 690608 with 6 decimals is `0.690608`.
    pub fn to_decimal(self, decimals: u8) -> String {
        let digits = self.0.to_string();
        let places = usize::from(decimals);
        let padded = format!("{digits:0>width$}", width = places + 1);
        let (whole, fraction) = padded.split_at(padded.len() - places);
        match fraction.trim_end_matches('0') {
            "" => whole.to_owned(),
            rest => format!("{whole}.{rest}"),
        }
    }

    /// The inverse of [`Amount::to_decimal`]. Signs, exponents, blanks and superfluous places are refused, never rounded.
    pub fn parse_decimal(text: &str, decimals: u8) -> Result<Amount, ParseError> {
        let not_a_number = || ParseError::NotANumber(text.chars().take(100).collect());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || text.len() > 200 {
            return Err(not_a_number());
        }
        let fraction = fraction.trim_end_matches('0');
        let places = usize::from(decimals);
        if fraction.len() > places {
            return Err(ParseError::TooManyDecimals(text.to_owned(), decimals));
        }
        let digits = format!("{whole}{fraction:0<places$}");
        U256::from_str_radix(&digits, 10).map(Amount).map_err(|_| ParseError::TooLarge(text.to_owned()))
    }
}

fn power_of_ten(exponent: u8) -> Option<U256> {
    U256::from(10).checked_pow(U256::from(exponent))
}

impl From<u64> for Amount {
    fn from(units: u64) -> Amount {
        Amount(U256::from(units))
    }
}

/// Base units as a plain integer; whole coins need the asset's decimals ([`Amount::to_decimal`]).
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_amount() -> impl Strategy<Value = Amount> {
        (any::<[u8; 32]>(), 0usize..32).prop_map(|(mut bytes, zeros)| {
            bytes[..zeros].fill(0);
            Amount::from_be_bytes(bytes)
        })
    }

    proptest! {
        #[test]
        fn decimal_text_round_trips(amount in any_amount(), decimals in 0u8..=36) {
            prop_assert_eq!(Amount::parse_decimal(&amount.to_decimal(decimals), decimals), Ok(amount));
        }

        #[test]
        fn byte_order_is_numeric_order(a in any_amount(), b in any_amount()) {
            prop_assert_eq!(a.cmp(&b), a.to_be_bytes().cmp(&b.to_be_bytes()));
        }

        #[test]
        fn sum_and_difference_agree(a in any_amount(), b in any_amount()) {
            if let Some(sum) = a.checked_add(b) {
                prop_assert_eq!(sum.checked_sub(b), Some(a));
            }
        }

        #[test]
        fn rounding_up_is_the_least_multiple(a in any_amount(), keep in 0u8..=18) {
            if let Some(up) = a.round_up(18, keep) {
                let step = power_of_ten(18 - keep).unwrap();
                prop_assert!(up >= a && up.units() - a.units() < step && (up.units() % step).is_zero());
            }
        }

        #[test]
        fn parsing_any_text_never_panics(text in ".{0,80}", decimals in 0u8..=36) {
            let _ = Amount::parse_decimal(&text, decimals);
        }
    }

    #[test]
    fn texts_that_are_not_exact_amounts_are_refused() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", " 1", "1 ", "1,0", "0x1", "١"] {
            assert!(Amount::parse_decimal(text, 6).is_err(), "{text:?}");
        }
        assert_eq!(Amount::parse_decimal("0.0000001", 6), Err(ParseError::TooManyDecimals("0.0000001".into(), 6)));
        assert_eq!(Amount::parse_decimal("1.50", 1), Ok(Amount::from_units(15)));
    }
}
