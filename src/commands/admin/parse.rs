//! Parses prices, percentages, currencies, times and modes from the command line and from imported files.

use chain::Amount;

use clock::Instant;
use ids::Mode;
use money::pricing::{Currency, Fiat};
use shop::catalog::languages::normalize_language_tag;

/// Parses a mode: `live` or `test`.
pub fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "live" => Ok(Mode::Live),
        "test" => Ok(Mode::Test),
        _ => Err("the mode is `live` or `test`".into()),
    }
}

/// Parses a price such as `0.50` into minor units of its currency: 50 fen, but 500 fils of a Kuwaiti dinar. Signs,
/// exponents and more decimal places than the currency has are errors.
pub fn parse_price_in_minor_units(text: &str, currency: Currency) -> Result<i64, String> {
    Fiat::parse_decimal(text, currency).map(|price| price.minor)
}

/// Parses a percentage such as `2.5` into basis points, here 250.
pub fn parse_percent_in_basis_points(text: &str) -> Result<i64, String> {
    let points = Amount::parse_decimal(text, 2).map_err(|e| e.to_string())?.units();
    i64::try_from(points).map_err(|_| format!("{text} is too large"))
}

/// Parses a currency code such as `CNY`.
pub fn parse_currency(code: &str) -> Result<Currency, String> {
    Currency::new(code).ok_or_else(|| format!("`{code}` is not a currency of ISO 4217, such as CNY"))
}

/// Parses a language tag such as `zh_cn` and returns its canonical form, here `zh-CN`.
pub fn parse_language_tag(text: &str) -> Result<String, String> {
    normalize_language_tag(text).ok_or_else(|| format!("`{text}` is not a language tag such as en or zh-CN"))
}

/// Parses a time such as `2026-02-11T12:00:00Z`.
pub fn parse_instant(text: &str) -> Result<Instant, String> {
    let parsed = text.parse::<jiff::Timestamp>();
    let refused = |_| format!("`{text}` is not a time such as 2026-02-11T12:00:00Z");
    parsed.map(|at| Instant(at.as_millisecond())).map_err(refused)
}
