//! Rates and quotes. A quote freezes a rate for one payment. Without a fresh rate there is no quote.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use chain::Amount;
use chain::amount::Units;
use rust_decimal::Decimal;

use clock::Instant;
use db::{self, Tx};

mod store;

#[cfg(test)]
mod tests;

/// The ISO 4217 code of a currency: three capital letters. All currencies have two decimal places here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Chinese yuan.
    pub const CNY: Currency = Currency(*b"CNY");
    /// United States dollar.
    pub const USD: Currency = Currency(*b"USD");

    /// Returns `None` unless the code is three capital ASCII letters.
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

/// An amount of a currency. A price is never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fiat {
    /// The currency of the amount.
    pub currency: Currency,
    /// Minor units (cents, fen).
    pub minor: i64,
}

impl Fiat {
    /// Returns `minor` minor units of `currency`.
    pub const fn new(currency: Currency, minor: i64) -> Fiat {
        Fiat { currency, minor }
    }

    /// Returns the exact decimal with at most two places: `0.5` for 50 fen.
    pub fn to_decimal(self) -> Decimal {
        Decimal::new(self.minor, 2).normalize()
    }
}

/// An accepted rate of one base currency or asset in a quote currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// Units of the quote currency for one unit of the base.
    pub value: Decimal,
    /// The tickers or the setting that the rate comes from.
    pub source: String,
    /// When the rate was observed.
    pub observed_at: Instant,
}

/// The amount that a payment must bring, and the rate behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// Units of the currency for one whole unit of the asset, spread included.
    pub rate: Decimal,
    /// The source of the rate.
    pub source: String,
    /// When the rate was observed.
    pub rated_at: Instant,
    /// Base units of the asset, rounded up to the number of decimal places that buyers use.
    pub due: Amount,
}

/// Why there is no quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// No rate was accepted for the pair, or it was withdrawn.
    #[error("there is no rate for {base}/{quote}")]
    NoRate {
        /// The currency or asset that is priced.
        base: String,
        /// The currency of the price.
        quote: String,
    },
    /// The latest rate is older than the configured limit.
    #[error("the latest rate for {base}/{quote} is too old")]
    Stale {
        /// The currency or asset that is priced.
        base: String,
        /// The currency of the price.
        quote: String,
    },
    /// The amount or the rate leaves the range of its type.
    #[error("the amount is out of range")]
    OutOfRange,
}

/// The current rates, shared by all quotes. Only the rates worker updates them.
#[derive(Debug, Clone)]
pub struct RateBook {
    rates: Arc<RwLock<HashMap<(String, String), Rate>>>,
    /// A rate that is older gives no quote. Configured rates never get old: they were observed in the far future.
    stale_after_ms: i64,
    /// Reduces the rate of a quote, so that the buyer pays more; in basis points.
    spread_basis_points: u32,
}

impl RateBook {
    /// Returns a book without rates.
    pub fn new(stale_after_ms: i64, spread_basis_points: u32) -> RateBook {
        RateBook { rates: Arc::default(), stale_after_ms, spread_basis_points }
    }

    /// Sets the rate of a pair.
    pub fn set(&self, base: &str, quote: &str, rate: Rate) {
        let mut rates = self.rates.write().expect("no thread panics while it holds the lock");
        rates.insert((base.to_owned(), quote.to_owned()), rate);
    }

    /// Removes the rate of a pair, because its sources disagree.
    pub fn withdraw(&self, base: &str, quote: &str) {
        self.rates
            .write()
            .expect("no thread panics while it holds the lock")
            .remove(&(base.to_owned(), quote.to_owned()));
    }

    /// Returns the latest rate of a pair, however old; `None` when there is none.
    pub fn get(&self, base: &str, quote: &str) -> Option<Rate> {
        self.rates
            .read()
            .expect("no thread panics while it holds the lock")
            .get(&(base.to_owned(), quote.to_owned()))
            .cloned()
    }

    /// Returns the rate of `base` in `quote`: the rate of the pair, or the product of both rates to USD.
    ///
    /// # Errors
    /// [`QuoteError::NoRate`] and [`QuoteError::Stale`] when no fresh rate is known, [`QuoteError::OutOfRange`] for a product
    /// that is too large.
    pub fn rate(&self, now: Instant, base: &str, quote: &str) -> Result<Rate, QuoteError> {
        if base == quote {
            return Ok(Rate { value: Decimal::ONE, source: "same".into(), observed_at: now });
        }
        if self.get(base, quote).is_some() || base == "USD" || quote == "USD" {
            return self.fresh_rate(now, base, quote);
        }
        let (to_usd, from_usd) = (self.fresh_rate(now, base, "USD")?, self.fresh_rate(now, "USD", quote)?);
        Ok(Rate {
            value: to_usd.value.checked_mul(from_usd.value).ok_or(QuoteError::OutOfRange)?,
            source: format!("{} x {}", to_usd.source, from_usd.source),
            observed_at: to_usd.observed_at.min(from_usd.observed_at),
        })
    }

    /// Returns the amount of the asset `base` that pays `price`. The asset has `decimals` decimal places; the amount is rounded
    /// up to `kept_decimals` of them.
    ///
    /// # Errors
    /// [`QuoteError::NoRate`] and [`QuoteError::Stale`] when no fresh rate is known, [`QuoteError::OutOfRange`] when the amount
    /// is too large.
    pub fn quote(
        &self,
        now: Instant,
        base: &str,
        decimals: u8,
        kept_decimals: u8,
        price: Fiat,
    ) -> Result<Quote, QuoteError> {
        let rate = self.rate(now, base, price.currency.as_str())?;
        let spread = Decimal::new(i64::from(self.spread_basis_points), 4);
        let net = Decimal::ONE.checked_sub(spread).and_then(|share| rate.value.checked_mul(share));
        let net = net.filter(|rate| *rate > Decimal::ZERO).ok_or(QuoteError::OutOfRange)?;
        let due = amount_for(price, net, decimals).and_then(|due| due.round_up(decimals, kept_decimals));
        let rated_at = rate.observed_at.min(now);
        Ok(Quote { rate: net.normalize(), source: rate.source, rated_at, due: due.ok_or(QuoteError::OutOfRange)? })
    }

    /// Returns the rate of a pair, unless it is too old.
    fn fresh_rate(&self, now: Instant, base: &str, quote: &str) -> Result<Rate, QuoteError> {
        let Some(rate) = self.get(base, quote) else {
            return Err(QuoteError::NoRate { base: base.to_owned(), quote: quote.to_owned() });
        };
        if now.since(rate.observed_at) > self.stale_after_ms {
            return Err(QuoteError::Stale { base: base.to_owned(), quote: quote.to_owned() });
        }
        Ok(rate)
    }
}

/// Stores an accepted rate.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn accept(tx: &mut Tx, base: &str, quote: &str, rate: &Rate) -> Result<(), db::Error> {
    store::insert_rate(tx, base, quote, rate).await
}

/// Returns the latest accepted rate of a pair, however old; `None` when there never was one.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_accepted(tx: &mut Tx, base: &str, quote: &str) -> Result<Option<Rate>, db::Error> {
    store::find_latest(tx, base, quote).await
}

/// Returns `price / rate` in base units of an asset with `decimals` decimal places, rounded up, by exact integer arithmetic.
/// `None` when the price is negative, the rate is not positive, or the amount is too large.
pub fn amount_for(price: Fiat, rate: Decimal, decimals: u8) -> Option<Amount> {
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
