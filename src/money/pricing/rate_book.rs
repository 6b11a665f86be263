//! The current exchange rates in memory, and the quotes that are computed from them.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use chain::Amount;
use rust_decimal::Decimal;

use crate::pricing::fiat::{Currency, Fiat, convert_price_to_amount_rounded_up};
use clock::Instant;

/// The maximum time, in milliseconds, by which the observation of a rate may lie in the future. The limit allows for
/// small corrections of the clock.
const CLOCK_STEP_MAX_MS: i64 = 5_000;
/// The maximum number of decimal places of an amount due. Wallets and exchanges ignore further places.
const DUE_DECIMALS_MAX: u8 = 8;
/// The limit of the share that rounding may add to an exact amount, as the reciprocal of the share: 10,000 stands for
/// 1/10,000, which is 0.01 %.
const ROUNDING_SHARE_MAX: u64 = 10_000;

/// An accepted exchange rate: the price of one unit of a base, which is a currency or an asset, in a quote currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// Units of the quote currency for one unit of the base.
    pub value: Decimal,
    /// The exchange tickers, or the configuration setting, that the rate comes from.
    pub source: String,
    /// The time when the rate was observed, or [`Rate::CONFIGURED`].
    pub observed_at: Instant,
}

impl Rate {
    /// The value of `observed_at` for a rate that the operator has configured. Such a rate never becomes stale.
    pub const CONFIGURED: Instant = Instant(i64::MAX);
}

/// The amount that a buyer has to pay, with the rate that it was computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The price of one whole unit of the asset in the currency, after the spread was subtracted.
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
        /// The currency or asset whose rate is missing.
        base: String,
        /// The currency in which the rate should be.
        quote: String,
    },
    /// The latest rate is older than the configured limit, or it comes from the future because the clock was set back.
    #[error("the latest rate for {base}/{quote} is too old, or the clock was set back")]
    Stale {
        /// The currency or asset whose rate is too old.
        base: String,
        /// The currency in which the rate is.
        quote: String,
    },
    /// The amount or the rate is outside the range of its type.
    #[error("the amount is out of range")]
    OutOfRange,
}

/// The current exchange rates. All clones of a book share the rates, and only the rates worker updates them.
#[derive(Debug, Clone)]
pub struct RateBook {
    rates: Arc<RwLock<HashMap<(String, String), Rate>>>,
    /// The maximum age of a rate, in milliseconds; older rates give no quote. [Configured](Rate::CONFIGURED) rates never
    /// become stale.
    stale_after_ms: i64,
    /// The share, in basis points, by which a quote reduces the rate, so that the buyer pays more.
    spread_basis_points: u32,
}

impl RateBook {
    /// Returns a book without rates. `stale_after_ms` is the maximum age, in milliseconds, of a rate that is used for
    /// quotes.
    pub fn new(stale_after_ms: i64, spread_basis_points: u32) -> RateBook {
        RateBook { rates: Arc::default(), stale_after_ms, spread_basis_points }
    }

    /// Sets the rate of `base` in `quote`.
    pub fn set_rate(&self, base: &str, quote: &str, rate: Rate) {
        let mut rates = self.rates.write().expect("no thread panics while it holds the lock");
        rates.insert((base.to_owned(), quote.to_owned()), rate);
    }

    /// Removes the rate of `base` in `quote`, because its sources disagree or because the market has moved away from it.
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

    /// Returns a fresh rate of `base` in `quote`: the rate of the pair itself if the book has one, otherwise the rate
    /// of `base` in USD multiplied by the rate of USD in `quote`. The rate is 1 when both are the same.
    ///
    /// # Errors
    /// [`QuoteError::NoRate`] or [`QuoteError::Stale`] when a needed rate is missing or too old,
    /// [`QuoteError::OutOfRange`] when the product is too large.
    pub fn find_fresh_direct_or_crossed_rate(&self, now: Instant, base: &str, quote: &str) -> Result<Rate, QuoteError> {
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

    /// Returns the amount of the asset `base` that pays `price`, with the rate that was used. The spread is subtracted
    /// from the rate, so that the buyer pays more. The asset has `decimals` decimal places. The amount is rounded up to
    /// the fewest places with which rounding adds at most 0.01 %, and never to more than eight or `kept_decimals`
    /// places.
    ///
    /// # Errors
    /// [`QuoteError::NoRate`] or [`QuoteError::Stale`] when a needed rate is missing or too old,
    /// [`QuoteError::OutOfRange`] when the amount is too large.
    pub fn compute_quote_with_spread(
        &self,
        now: Instant,
        base: &str,
        decimals: u8,
        kept_decimals: u8,
        price: Fiat,
    ) -> Result<Quote, QuoteError> {
        let rate = self.find_fresh_direct_or_crossed_rate(now, base, price.currency.as_str())?;
        let spread = Decimal::new(i64::from(self.spread_basis_points), 4);
        let net = Decimal::ONE.checked_sub(spread).and_then(|share| rate.value.checked_mul(share));
        let net = net.filter(|rate| *rate > Decimal::ZERO).ok_or(QuoteError::OutOfRange)?;
        let due = convert_price_to_amount_rounded_up(price, net, decimals)
            .and_then(|due| round_up_to_fewest_cheap_decimals(due, decimals, kept_decimals));
        let rated_at = rate.observed_at.min(now);
        Ok(Quote { rate: net.normalize(), source: rate.source, rated_at, due: due.ok_or(QuoteError::OutOfRange)? })
    }

    /// Returns the rate of the pair itself, the price of `base` in `quote`. Fails when the rate is missing or not
    /// fresh.
    fn find_fresh_rate(&self, now: Instant, base: &str, quote: &str) -> Result<Rate, QuoteError> {
        let Some(rate) = self.find_latest_rate(base, quote) else {
            return Err(QuoteError::NoRate { base: base.to_owned(), quote: quote.to_owned() });
        };
        let age_ms = now.since(rate.observed_at);
        // After the clock was set back, the time of an observation may lie in the future, and the true age of the rate
        // is unknown.
        let is_fresh = (-CLOCK_STEP_MAX_MS..=self.stale_after_ms).contains(&age_ms);
        if !is_fresh && rate.observed_at != Rate::CONFIGURED {
            return Err(QuoteError::Stale { base: base.to_owned(), quote: quote.to_owned() });
        }
        Ok(rate)
    }
}

/// Returns `exact` rounded up to the fewest decimal places with which rounding adds at most 0.01 %; `None` when the
/// result is out of range. The maximum number of places is eight, or `kept_decimals` if that is fewer; it is used when
/// fewer places always add more than 0.01 %. One whole coin is 10^`decimals` base units.
fn round_up_to_fewest_cheap_decimals(exact: Amount, decimals: u8, kept_decimals: u8) -> Option<Amount> {
    let most = kept_decimals.min(DUE_DECIMALS_MAX);
    let is_cheap = |rounded: &Amount| {
        let added = rounded.saturating_sub(exact);
        added.checked_mul(ROUNDING_SHARE_MAX).is_some_and(|scaled| scaled <= exact)
    };
    let cheapest = (0..most).filter_map(|places| exact.round_up_to_decimals(decimals, places)).find(is_cheap);
    cheapest.or_else(|| exact.round_up_to_decimals(decimals, most))
}

/// Returns a price in US cents, rounded up, from which [`crate::assets::Depths`] gives the required confirmations.
/// `None` while no fresh rate is known, and when the result is out of range.
pub fn convert_price_to_usd_cents_rounded_up(rates: &RateBook, now: Instant, price: Fiat) -> Option<i64> {
    let rate = rates.find_fresh_direct_or_crossed_rate(now, Currency::USD.as_str(), price.currency.as_str()).ok()?;
    let cents = convert_price_to_amount_rounded_up(price, rate.value, Currency::USD.decimals())?;
    i64::try_from(cents.units()).ok()
}
