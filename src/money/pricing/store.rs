//! All SQL of accepted rates.

use rust_decimal::Decimal;

use crate::pricing::Rate;
use db::{self, Tx, execute, row};

/// Inserts an accepted rate, the price of `base` in `quote`, with the time of its observation.
pub async fn insert_rate(tx: &mut Tx, base: &str, quote: &str, rate: &Rate) -> Result<(), db::Error> {
    let inserted = execute!(
        tx,
        "insert into rates (base, quote, rate, source, observed_at) values ($1, $2, $3, $4, $5)",
        base,
        quote,
        rate.value.to_string(),
        &rate.source,
        rate.observed_at
    )?;
    db::expect_changed(inserted, 1)
}

/// Returns the rate of `base` in `quote` that was inserted last; `None` when there is none.
pub async fn find_newest_rate(tx: &mut Tx, base: &str, quote: &str) -> Result<Option<Rate>, db::Error> {
    let found = row!(
        tx,
        "select rate, source, observed_at from rates where base = $1 and quote = $2 order by id desc limit 1",
        base,
        quote
    )?;
    let Some(found) = found else { return Ok(None) };
    let text: String = found.get("rate")?;
    let value: Decimal =
        text.parse().map_err(|_| db::Error::Value { column: "rate".into(), reason: "it is not a decimal".into() })?;
    Ok(Some(Rate { value, source: found.get("source")?, observed_at: found.get("observed_at")? }))
}
