//! Rates and quotes. A quote freezes a rate for one payment; without a fresh rate there is no quote.

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

/// A currency's ISO 4217 code, three capital letters. All have two decimal places here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    pub const CNY: Currency = Currency(*b"CNY");
    pub const USD: Currency = Currency(*b"USD");

    pub fn new(code: &str) -> Option<Currency> {
        let bytes: [u8; 3] = code.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_uppercase).then_some(Currency(bytes))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("ASCII by construction")
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

/// An amount of a currency in minor units (cents, fen); never negative where it is a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fiat {
    pub currency: Currency,
    pub minor: i64,
}

impl Fiat {
    pub const fn new(currency: Currency, minor: i64) -> Fiat {
        Fiat { currency, minor }
    }

    /// Exact decimal, two places at most: 50 fen are `0.5`.
    pub fn to_decimal(self) -> Decimal {
        Decimal::new(self.minor, 2).normalize()
    }
}

/// A rate as it was accepted: `value` units of the quote currency for one of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    pub value: Decimal,
    pub source: String,
    pub at: Instant,
}

/// What a payment has to bring, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// Currency units per whole coin, spread included.
    pub rate: Decimal,
    pub source: String,
    pub rated_at: Instant,
    /// Base units, rounded up to the decimal places that a buyer can type.
    pub due: Amount,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    #[error("there is no rate for {base}/{quote}")]
    NoRate { base: String, quote: String },
    #[error("the newest rate for {base}/{quote} is too old")]
    Stale { base: String, quote: String },
    #[error("the amount cannot be expressed")]
    OutOfRange,
}

/// The rates in force, shared by everybody who quotes. Updated by the rates worker only.
#[derive(Debug, Clone)]
pub struct RateBook {
    rates: Arc<RwLock<HashMap<(String, String), Rate>>>,
    /// A rate older than this quotes nothing. Configured crosses count as always fresh (`at` in the far future).
    stale_after_ms: i64,
    /// Added to what the buyer pays, in basis points.
    spread_basis_points: u32,
}

impl RateBook {
    pub fn new(stale_after_ms: i64, spread_basis_points: u32) -> RateBook {
        RateBook { rates: Arc::default(), stale_after_ms, spread_basis_points }
    }

    pub fn set(&self, base: &str, quote: &str, rate: Rate) {
        let mut rates = self.rates.write().expect("no holder of the rates panics");
        rates.insert((base.to_owned(), quote.to_owned()), rate);
    }

    /// A rate that may not be used any more, because its sources disagree.
    pub fn withdraw(&self, base: &str, quote: &str) {
        self.rates.write().expect("no holder of the rates panics").remove(&(base.to_owned(), quote.to_owned()));
    }

    pub fn get(&self, base: &str, quote: &str) -> Option<Rate> {
        self.rates.read().expect("no holder of the rates panics").get(&(base.to_owned(), quote.to_owned())).cloned()
    }

    /// What one `base` costs in `quote`: directly, or across USD.
    pub fn rate(&self, now: Instant, base: &str, quote: &str) -> Result<Rate, QuoteError> {
        if base == quote {
            return Ok(Rate { value: Decimal::ONE, source: "same".into(), at: now });
        }
        if self.get(base, quote).is_some() || base == "USD" || quote == "USD" {
            return self.fresh(now, base, quote);
        }
        let (to_usd, from_usd) = (self.fresh(now, base, "USD")?, self.fresh(now, "USD", quote)?);
        Ok(Rate {
            value: to_usd.value.checked_mul(from_usd.value).ok_or(QuoteError::OutOfRange)?,
            source: format!("{} x {}", to_usd.source, from_usd.source),
            at: to_usd.at.min(from_usd.at),
        })
    }

    /// How much of `base` (with `decimals`, cut to `keep` places, rounded up) pays `price`.
    pub fn quote(&self, now: Instant, base: &str, decimals: u8, keep: u8, price: Fiat) -> Result<Quote, QuoteError> {
        let rate = self.rate(now, base, price.currency.as_str())?;
        let spread = Decimal::new(i64::from(self.spread_basis_points), 4);
        let net = Decimal::ONE.checked_sub(spread).and_then(|share| rate.value.checked_mul(share));
        let net = net.filter(|rate| *rate > Decimal::ZERO).ok_or(QuoteError::OutOfRange)?;
        let due = amount_for(price, net, decimals).and_then(|due| due.round_up(decimals, keep));
        let rated_at = rate.at.min(now);
        Ok(Quote { rate: net.normalize(), source: rate.source, rated_at, due: due.ok_or(QuoteError::OutOfRange)? })
    }

    fn fresh(&self, now: Instant, base: &str, quote: &str) -> Result<Rate, QuoteError> {
        let pair = || (base.to_owned(), quote.to_owned());
        let Some(rate) = self.get(base, quote) else {
            let (base, quote) = pair();
            return Err(QuoteError::NoRate { base, quote });
        };
        if now.since(rate.at) > self.stale_after_ms {
            let (base, quote) = pair();
            return Err(QuoteError::Stale { base, quote });
        }
        Ok(rate)
    }
}

/// Writes an accepted rate down.
pub async fn accept(tx: &mut Tx, base: &str, quote: &str, rate: &Rate) -> Result<(), db::Error> {
    store::insert_rate(tx, base, quote, rate).await
}

/// The rate that was accepted last, however old.
pub async fn find_accepted(tx: &mut Tx, base: &str, quote: &str) -> Result<Option<Rate>, db::Error> {
    store::find_latest(tx, base, quote).await
}

/// `price / rate` in base units, rounded up; exact integer arithmetic on the rate's digits.
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
