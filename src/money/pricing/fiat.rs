//! Fiat currencies and prices, and the exact conversion of a price to an amount of an asset.

use chain::Amount;
use chain::amount::Units;
use rust_decimal::Decimal;

/// An ISO 4217 currency code: three capital letters. The daemon treats every currency as having two decimal places.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Chinese yuan.
    pub const CNY: Currency = Currency(*b"CNY");
    /// United States dollar.
    pub const USD: Currency = Currency(*b"USD");

    /// Returns the currency with this code; `None` unless the code is three capital ASCII letters.
    pub fn new(code: &str) -> Option<Currency> {
        let bytes: [u8; 3] = code.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_uppercase).then_some(Currency(bytes))
    }

    /// Returns the code, such as `USD`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("`new` accepts ASCII only")
    }
}

impl std::fmt::Debug for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Currency> for db::Bind {
    fn from(currency: Currency) -> db::Bind {
        db::Bind::from(currency.as_str())
    }
}

impl db::FromValue for Currency {
    fn from_value(value: &db::Value) -> Option<Currency> {
        Currency::new(value.as_text()?)
    }
}

/// An amount of money in a fiat currency. A price is never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fiat {
    /// The currency of the amount.
    pub currency: Currency,
    /// Minor units of the currency: cents, fen.
    pub minor: i64,
}

impl Fiat {
    /// Returns the amount of `minor` minor units of `currency`.
    pub const fn new(currency: Currency, minor: i64) -> Fiat {
        Fiat { currency, minor }
    }

    /// Returns the exact amount in whole units of the currency, with at most two decimal places: `0.5` for 50 fen.
    pub fn to_decimal(self) -> Decimal {
        Decimal::new(self.minor, 2).normalize()
    }
}

/// Returns `price / rate` in base units of an asset with `decimals` decimal places, rounded up, by exact integer
/// arithmetic. `None` when the price is negative, the rate is not positive, or the amount is too large.
pub fn convert_price_to_amount_rounded_up(price: Fiat, rate: Decimal, decimals: u8) -> Option<Amount> {
    let ten = Units::from(10);
    let minor = u64::try_from(price.minor).ok()?;
    let mantissa = u128::try_from(rate.mantissa()).ok().filter(|mantissa| *mantissa > 0)?;
    let scale = u64::from(rate.scale()) + u64::from(decimals);
    let numerator = Units::from(minor).checked_mul(ten.checked_pow(Units::from(scale))?)?;
    let denominator = Units::from(mantissa).checked_mul(Units::from(100))?;
    let quotient = numerator.checked_div(denominator)?;
    let exact = quotient.checked_mul(denominator)? == numerator;
    if exact { Some(Amount::new(quotient)) } else { quotient.checked_add(Units::from(1)).map(Amount::new) }
}
