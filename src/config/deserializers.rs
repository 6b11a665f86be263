//! Deserialises single values. A duration is written as a whole number, and the key names the unit; a decimal is
//! written as a string.

use std::{str::FromStr, time::Duration};

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Deserializer, de::Error};
use url::Url;

/// Deserialises a whole number of milliseconds as a duration.
pub fn deserialize_milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

/// Deserialises a whole number of seconds as a duration.
pub fn deserialize_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u32::deserialize(deserializer).map(|seconds| Duration::from_secs(seconds.into()))
}

/// Deserialises a whole number of minutes as a duration.
pub fn deserialize_minutes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u32::deserialize(deserializer).map(|minutes| Duration::from_secs(u64::from(minutes) * 60))
}

/// Deserialises a decimal from a string.
pub fn deserialize_decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_decimal(&text).map_err(D::Error::custom)
}

/// Deserialises an amount of money, a string with at most two decimal places, and returns it in cents.
pub fn deserialize_decimal_as_cents<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let value = deserialize_decimal(deserializer)?;
    let cents = value.checked_mul(Decimal::ONE_HUNDRED).filter(Decimal::is_integer).and_then(|cents| cents.to_i64());
    cents.ok_or_else(|| D::Error::custom(format!("\"{value}\" is not an amount such as \"0.05\"")))
}

/// Deserialises the decimal of an optional key. Only called when the key is present.
pub fn deserialize_some_decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
    deserialize_decimal(deserializer).map(Some)
}

/// Parses digits with at most one decimal point. Signs, exponents and numbers with more digits than a `Decimal` can
/// hold are refused.
pub fn parse_decimal(text: &str) -> Result<Decimal, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.starts_with(|c: char| c.is_ascii_digit());
    let error = || format!("\"{text}\" is not a decimal number such as \"7.24\"");
    if !plain || text.ends_with('.') {
        return Err(error());
    }
    Decimal::from_str_exact(text).map_err(|_| error())
}

/// Deserialises a URL from a string. The text of an error does not contain the string, because a URL may contain a key.
pub fn deserialize_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    Url::parse(&text).map_err(|e| D::Error::custom(format!("not an address such as \"https://example.com\": {e}")))
}

/// Deserialises the URL of an optional key. Only called when the key is present.
pub fn deserialize_some_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    deserialize_url(deserializer).map(Some)
}

/// Deserialises a string and parses the string with the `FromStr` of the target type.
pub fn deserialize_from_str<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
