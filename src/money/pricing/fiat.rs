//! Fiat currencies and prices, and the exact conversion of a price to an amount of an asset.

use chain::Amount;
use chain::amount::{ParseError, Units};
use rust_decimal::Decimal;

use crate::pricing::minor_units::DECIMALS_BY_CODE;

/// A currency of ISO 4217, by its code of three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Chinese yuan.
    pub const CNY: Currency = Currency(*b"CNY");
    /// United States dollar.
    pub const USD: Currency = Currency(*b"USD");

    /// Returns the currency with this code; `None` unless ISO 4217 lists the code as a currency with minor units.
    pub fn new(code: &str) -> Option<Currency> {
        let code: [u8; 3] = code.as_bytes().try_into().ok()?;
        find_decimals(code).map(|_| Currency(code))
    }

    /// Returns the number of decimal places of the currency: 2 for USD, 0 for JPY, 3 for KWD. One unit of the currency
    /// is 10 to the power of this number of minor units.
    pub fn decimals(self) -> u8 {
        find_decimals(self.0).expect("`new` accepts listed codes only")
    }

    /// Returns the code, such as `USD`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("`new` accepts ASCII only")
    }
}

fn find_decimals(code: [u8; 3]) -> Option<u8> {
    let found = DECIMALS_BY_CODE.binary_search_by_key(&code, |(listed, _)| *listed).ok()?;
    DECIMALS_BY_CODE.get(found).map(|(_, decimals)| *decimals)
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
    /// The number of minor units, such as cents, fen or yen. [`Currency::decimals`] tells how many of them make one
    /// unit of the currency.
    pub minor: i64,
}

impl Fiat {
    /// Returns the amount of `minor` minor units of `currency`.
    pub const fn new(currency: Currency, minor: i64) -> Fiat {
        Fiat { currency, minor }
    }

    /// Returns the exact amount in whole units of the currency: `0.5` for 50 fen, `50` for 50 yen.
    pub fn to_decimal(self) -> Decimal {
        Decimal::new(self.minor, u32::from(self.currency.decimals())).normalize()
    }

    /// Parses a decimal text in whole units of the currency, such as `0.50`, into the amount. Nothing is rounded.
    ///
    /// A sentence for the person who entered the text. This function fails when the text is not a number without sign
    /// and exponent, when it has more decimal places than the currency, or when it is too large.
    pub fn parse_decimal(text: &str, currency: Currency) -> Result<Fiat, String> {
        let decimals = currency.decimals();
        let units = Amount::parse_decimal(text, decimals).map_err(|error| match error {
            ParseError::TooManyDecimals(..) => {
                format!("`{text}` has too many decimal places; {currency} has {decimals}")
            }
            ParseError::NotANumber(_) | ParseError::TooLarge(_) => error.to_string(),
        })?;
        let minor = i64::try_from(units.units()).map_err(|_| format!("{text} is too large"))?;
        Ok(Fiat::new(currency, minor))
    }
}

/// Returns the amount of an asset that costs `price`, in base units, rounded up: `price / rate` by exact integer
/// arithmetic. `rate` is the price of one whole unit of the asset, which has `decimals` decimal places. `None` when the
/// price is negative, the rate is not positive, or the amount is too large.
pub fn convert_price_to_amount_rounded_up(price: Fiat, rate: Decimal, decimals: u8) -> Option<Amount> {
    let ten = Units::from(10);
    let minor = u64::try_from(price.minor).ok()?;
    let mantissa = u128::try_from(rate.mantissa()).ok().filter(|mantissa| *mantissa > 0)?;
    let scale = u64::from(rate.scale()) + u64::from(decimals);
    let numerator = Units::from(minor).checked_mul(ten.checked_pow(Units::from(scale))?)?;
    let denominator = Units::from(mantissa).checked_mul(ten.checked_pow(Units::from(price.currency.decimals()))?)?;
    let quotient = numerator.checked_div(denominator)?;
    let exact = quotient.checked_mul(denominator)? == numerator;
    if exact { Some(Amount::new(quotient)) } else { quotient.checked_add(Units::from(1)).map(Amount::new) }
}
