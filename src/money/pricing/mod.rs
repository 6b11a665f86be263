//! Exchange rates and quotes. A quote freezes a rate for one payment. There is no quote without a fresh rate.

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

/// An accepted rate of one base currency or asset in a quote currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// Units of the quote currency for one unit of the base.
    pub value: Decimal,
    /// The exchange tickers, or the configuration setting, that the rate comes from.
    pub source: String,
    /// The time when the rate was observed.
    pub observed_at: Instant,
}

/// The amount that a buyer has to pay, with the rate that it was computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// Units of the currency for one whole unit of the asset, spread included.
    pub rate: Decimal,
    /// The exchange tickers, or the configuration setting, that the rate comes from.
    pub source: String,
    /// The time when the rate was observed; for a crossed rate, the older of the two times.
    pub rated_at: Instant,
    /// The amount due in base units of the asset, rounded up to the decimal places that buyers see.
    pub due: Amount,
}

/// The reason why a quote could not be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// No rate was accepted for the pair, or the rate was withdrawn because its sources disagree.
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

/// The current rates. All clones share them, and only the rates worker updates them.
#[derive(Debug, Clone)]
pub struct RateBook {
    rates: Arc<RwLock<HashMap<(String, String), Rate>>>,
    /// The maximum age of a rate, in milliseconds; older rates give no quote. Configured rates never become stale,
    /// because their time of observation is set far in the future.
    stale_after_ms: i64,
    /// The share, in basis points, by which a quote reduces the rate, so that the buyer pays more.
    spread_basis_points: u32,
}

impl RateBook {
    /// Returns a book without rates. `stale_after_ms` is the maximum age of a rate for quotes.
    pub fn new(stale_after_ms: i64, spread_basis_points: u32) -> RateBook {
        RateBook { rates: Arc::default(), stale_after_ms, spread_basis_points }
    }

    /// Sets the rate of `base` in `quote`.
    pub fn set_rate(&self, base: &str, quote: &str, rate: Rate) {
        let mut rates = self.rates.write().expect("no thread panics while it holds the lock");
        rates.insert((base.to_owned(), quote.to_owned()), rate);
    }

    /// Removes the rate of `base` in `quote`, because its sources disagree.
    pub fn remove_rate(&self, base: &str, quote: &str) {
        self.rates
            .write()
            .expect("no thread panics while it holds the lock")
            .remove(&(base.to_owned(), quote.to_owned()));
    }

    /// Returns the latest rate of `base` in `quote`, regardless of its age; `None` when there is none.
    pub fn find_latest_rate(&self, base: &str, quote: &str) -> Option<Rate> {
        self.rates
            .read()
            .expect("no thread panics while it holds the lock")
            .get(&(base.to_owned(), quote.to_owned()))
            .cloned()
    }

    /// Returns the rate of `base` in `quote`: the rate of the pair itself, or the rate of `base` in USD multiplied by
    /// the rate of USD in `quote`.
    ///
    /// # Errors
    /// [`QuoteError::NoRate`] or [`QuoteError::Stale`] when a needed rate is missing or too old,
    /// [`QuoteError::OutOfRange`] when the product is too large.
    pub fn compute_exchange_rate(&self, now: Instant, base: &str, quote: &str) -> Result<Rate, QuoteError> {
        if base == quote {
            return Ok(Rate { value: Decimal::ONE, source: "same".into(), observed_at: now });
        }
        if self.find_latest_rate(base, quote).is_some() || base == "USD" || quote == "USD" {
            return self.find_fresh_rate(now, base, quote);
        }
        let (to_usd, from_usd) = (self.find_fresh_rate(now, base, "USD")?, self.find_fresh_rate(now, "USD", quote)?);
        Ok(Rate {
            value: to_usd.value.checked_mul(from_usd.value).ok_or(QuoteError::OutOfRange)?,
            source: format!("{} x {}", to_usd.source, from_usd.source),
            observed_at: to_usd.observed_at.min(from_usd.observed_at),
        })
    }

    /// Returns the amount of the asset `base` that pays `price`. The asset has `decimals` decimal places; the amount
    /// is rounded up to `kept_decimals` of them.
    ///
    /// # Errors
    /// [`QuoteError::NoRate`] or [`QuoteError::Stale`] when a needed rate is missing or too old,
    /// [`QuoteError::OutOfRange`] when the amount is too large.
    pub fn compute_quote(
        &self,
        now: Instant,
        base: &str,
        decimals: u8,
        kept_decimals: u8,
        price: Fiat,
    ) -> Result<Quote, QuoteError> {
        let rate = self.compute_exchange_rate(now, base, price.currency.as_str())?;
        let spread = Decimal::new(i64::from(self.spread_basis_points), 4);
        let net = Decimal::ONE.checked_sub(spread).and_then(|share| rate.value.checked_mul(share));
        let net = net.filter(|rate| *rate > Decimal::ZERO).ok_or(QuoteError::OutOfRange)?;
        let due = convert_price_to_amount(price, net, decimals)
            .and_then(|due| due.round_up_to_decimals(decimals, kept_decimals));
        let rated_at = rate.observed_at.min(now);
        Ok(Quote { rate: net.normalize(), source: rate.source, rated_at, due: due.ok_or(QuoteError::OutOfRange)? })
    }

    /// Returns the rate of `base` in `quote`, unless it is missing or older than the limit.
    fn find_fresh_rate(&self, now: Instant, base: &str, quote: &str) -> Result<Rate, QuoteError> {
        let Some(rate) = self.find_latest_rate(base, quote) else {
            return Err(QuoteError::NoRate { base: base.to_owned(), quote: quote.to_owned() });
        };
        if now.since(rate.observed_at) > self.stale_after_ms {
            return Err(QuoteError::Stale { base: base.to_owned(), quote: quote.to_owned() });
        }
        Ok(rate)
    }
}

/// Stores an accepted rate, so that the daemon can use it after a restart.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn store_accepted_rate(tx: &mut Tx, base: &str, quote: &str, rate: &Rate) -> Result<(), db::Error> {
    store::insert_rate(tx, base, quote, rate).await
}

/// Returns the latest rate that was accepted for a pair, regardless of its age; `None` when none was ever accepted.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_accepted_rate(tx: &mut Tx, base: &str, quote: &str) -> Result<Option<Rate>, db::Error> {
    store::find_newest_rate(tx, base, quote).await
}

/// Returns `price / rate` in base units of an asset with `decimals` decimal places, rounded up, by exact integer
/// arithmetic. `None` when the price is negative, the rate is not positive, or the amount is too large.
pub fn convert_price_to_amount(price: Fiat, rate: Decimal, decimals: u8) -> Option<Amount> {
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
