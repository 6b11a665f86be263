//! Amounts: numbers of base units of one asset, as unsigned 256-bit integers with checked arithmetic only.

use std::fmt;

use ruint::aliases::U256;

/// The integer type inside an [`Amount`], for arithmetic that [`Amount`] does not offer.
pub type Units = U256;

/// A number of base units (satoshi, wei, sun, 10^-decimals of a token), from 0 to 2^256 − 1. Every operation that could
/// leave this range returns `None` or an error. The account, invoice or transfer that holds the amount names its asset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(U256);

/// The reason why a text is not an exact amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text is not a plain decimal number: digits, and at most one decimal point between them. The field contains
    /// the first 100 characters of the text.
    #[error("`{0}` is not a decimal number")]
    NotANumber(String),
    /// The text has more decimal places than the asset. The fields contain the text and the decimals of the asset.
    #[error("`{0}` has more than {1} decimal places")]
    TooManyDecimals(String, u8),
    /// The text means 2^256 base units or more. The field contains the text.
    #[error("`{0}` is larger than the largest amount, 2^256 − 1 base units")]
    TooLarge(String),
}

impl Amount {
    /// The amount of 0 base units.
    pub const ZERO: Amount = Amount(U256::ZERO);
    /// The largest amount, 2^256 − 1 base units.
    pub const MAX: Amount = Amount(U256::MAX);

    /// Returns the amount of `units` base units.
    pub const fn new(units: U256) -> Amount {
        Amount(units)
    }

    /// Returns the amount of `units` base units.
    pub fn from_units(units: u128) -> Amount {
        Amount(U256::from(units))
    }

    /// Returns the number of base units.
    pub const fn units(self) -> U256 {
        self.0
    }

    /// Returns true when the amount is zero.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// Returns `self + other`, or `None` on overflow.
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// Returns `self − other`, or `None` when `other` is larger.
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// Returns `self · factor`, or `None` on overflow.
    pub fn checked_mul(self, factor: u64) -> Option<Amount> {
        self.0.checked_mul(U256::from(factor)).map(Amount)
    }

    /// Returns `self · numerator / denominator`, rounded down, or `None` when the product overflows or the denominator
    /// is zero.
    pub fn mul_ratio_rounded_down(self, numerator: u64, denominator: u64) -> Option<Amount> {
        self.0.checked_mul(U256::from(numerator))?.checked_div(U256::from(denominator)).map(Amount)
    }

    /// Returns `self − other`, or zero when `other` is larger.
    pub fn saturating_sub(self, other: Amount) -> Amount {
        Amount(self.0.saturating_sub(other.0))
    }

    /// Returns the sum of all amounts, which is zero when there are none, or `None` on overflow.
    pub fn checked_sum(amounts: impl IntoIterator<Item = Amount>) -> Option<Amount> {
        amounts.into_iter().try_fold(Amount::ZERO, Amount::checked_add)
    }

    /// Returns the amount as 32 bytes, the most significant byte first. Both databases store amounts in this form, so
    /// that they sort by their value.
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }

    /// Returns the amount that [`Amount::to_be_bytes`] encoded.
    pub fn from_be_bytes(bytes: [u8; 32]) -> Amount {
        Amount(U256::from_be_bytes(bytes))
    }

    /// Returns the amount that [`Amount::to_be_bytes`] encoded, or `None` when the slice does not have exactly 32
    /// bytes.
    pub fn from_be_slice(bytes: &[u8]) -> Option<Amount> {
        bytes.try_into().ok().map(Amount::from_be_bytes)
    }

    /// Returns the smallest amount that is at least `self` and has at most `keep_decimals` decimal places when written
    /// in whole coins; `None` on overflow. One whole coin is 10^`decimals` base units. Amounts due are rounded like
    /// this, so that a buyer can type them into a wallet.
    pub fn round_up_to_decimals(self, decimals: u8, keep_decimals: u8) -> Option<Amount> {
        let step = power_of_ten(decimals.saturating_sub(keep_decimals))?;
        let excess = self.0 % step;
        if excess.is_zero() { Some(self) } else { self.0.checked_add(step - excess).map(Amount) }
    }

    /// Returns the amount as decimal text in whole coins, exact and without trailing zeros: 690600 base units of an
    /// asset with 6 decimals are `0.6906`.
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

    /// Parses a decimal text in whole coins, as [`Amount::to_decimal`] returns it. Trailing zeros after the decimal
    /// point are ignored, and nothing is rounded.
    ///
    /// # Errors
    /// Fails with [`ParseError::NotANumber`] for signs, exponents, blanks and texts of more than 200 bytes, with
    /// [`ParseError::TooManyDecimals`] for more decimal places than `decimals`, and with [`ParseError::TooLarge`] for
    /// amounts of 2^256 base units or more.
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

/// Writes the number of base units. For a text in whole coins, use [`Amount::to_decimal`], which needs the decimals of
/// the asset.
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
        fn parsing_a_decimal_text_returns_its_amount(amount in any_amount(), decimals in 0u8..=36) {
            prop_assert_eq!(Amount::parse_decimal(&amount.to_decimal(decimals), decimals), Ok(amount));
        }

        #[test]
        fn byte_order_is_numeric_order(a in any_amount(), b in any_amount()) {
            prop_assert_eq!(a.cmp(&b), a.to_be_bytes().cmp(&b.to_be_bytes()));
        }

        #[test]
        fn subtracting_an_addend_returns_the_other(a in any_amount(), b in any_amount()) {
            if let Some(sum) = a.checked_add(b) {
                prop_assert_eq!(sum.checked_sub(b), Some(a));
            }
        }

        #[test]
        fn rounding_up_returns_the_least_multiple(a in any_amount(), keep in 0u8..=18) {
            if let Some(up) = a.round_up_to_decimals(18, keep) {
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
