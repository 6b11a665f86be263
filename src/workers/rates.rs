//! Keeps the rates in force: asks the exchanges, accepts what they agree on, withdraws what they do not.

use crate::clock::Instant;
use crate::config;
use crate::money::pricing::{Rate, RateBook};

/// A book with the configured rates in it. They never grow old: whoever configured them answers for them.
pub fn book(settings: &config::Rates) -> RateBook {
    let stale_after_ms = i64::try_from(settings.staleness.as_millis()).unwrap_or(i64::MAX);
    let book = RateBook::new(stale_after_ms, settings.spread_basis_points);
    for (pair, value) in &settings.fixed {
        let rate = Rate { value: *value, source: "configured".into(), at: Instant(i64::MAX) };
        book.set(&pair.base, &pair.quote, rate);
    }
    book
}
