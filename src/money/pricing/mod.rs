//! Exchange rates and quotes. A quote is the amount that a buyer has to pay; it fixes the exchange rate for one
//! payment. A quote needs fresh rates.

mod fiat;
mod minor_units;
mod rate_book;
mod store;

#[cfg(test)]
mod tests;

use db::{self, Tx};

pub use fiat::{Currency, Fiat, convert_price_to_amount_rounded_up};
pub use rate_book::{Quote, QuoteError, Rate, RateBook, convert_price_to_usd_cents_rounded_up};

/// Stores an accepted rate, so that the daemon can use it after a restart.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn store_accepted_rate(tx: &mut Tx, base: &str, quote: &str, rate: &Rate) -> Result<(), db::Error> {
    store::insert_rate(tx, base, quote, rate).await
}

/// Returns the latest rate that was accepted for the price of `base` in `quote`, regardless of its age; `None` when no
/// rate was ever accepted.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_newest_accepted_rate(tx: &mut Tx, base: &str, quote: &str) -> Result<Option<Rate>, db::Error> {
    store::find_newest_rate(tx, base, quote).await
}
