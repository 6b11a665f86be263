//! Where exchange rates come from and how far they are believed.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, de::Error};
use url::Url;

use crate::text;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    pub mode: RatesMode,
    pub sources: Vec<SourceName>,
    pub min_sources: usize,
    #[serde(rename = "refresh_seconds", deserialize_with = "text::seconds")]
    pub refresh: Duration,
    #[serde(rename = "staleness_seconds", deserialize_with = "text::seconds")]
    pub staleness: Duration,
    #[serde(rename = "timeout_ms", deserialize_with = "text::milliseconds")]
    pub timeout: Duration,
    pub max_deviation_percent: u32,
    pub max_jump_percent: u32,
    pub jump_rounds: u32,
    pub spread_basis_points: u32,
    pub depeg_percent: u32,
    pub depeg_min_sources: usize,
    /// Used as they stand, before any source.
    #[serde(deserialize_with = "fixed")]
    pub fixed: BTreeMap<Pair, Decimal>,
    #[serde(deserialize_with = "urls")]
    pub urls: BTreeMap<SourceName, Url>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RatesMode {
    Feeds,
    Fixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceName {
    Binance,
    Kraken,
    Coinbase,
    Okx,
}

impl SourceName {
    pub const fn as_str(self) -> &'static str {
        match self {
            SourceName::Binance => "binance",
            SourceName::Kraken => "kraken",
            SourceName::Coinbase => "coinbase",
            SourceName::Okx => "okx",
        }
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `BTC/USD`: what one unit of the first costs in units of the second.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    pub base: String,
    pub quote: String,
}

impl Pair {
    pub fn new(base: &str, quote: &str) -> Pair {
        Pair { base: base.to_owned(), quote: quote.to_owned() }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.quote)
    }
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Pair, String> {
        let symbol =
            |s: &str| (2..=12).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        match text.split_once('/') {
            Some((base, quote)) if symbol(base) && symbol(quote) && base != quote => Ok(Pair::new(base, quote)),
            Some(_) | None => Err(format!("\"{text}\" is not a pair such as \"BTC/USD\"")),
        }
    }
}

fn fixed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Pair, Decimal>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let given = texts.into_iter().filter(|(_, rate)| !rate.is_empty());
    let read = |(pair, rate): (String, String)| {
        let rate = text::parse_decimal(&rate).map_err(|e| format!("{pair}: {e}"))?;
        if rate.is_zero() { Err(format!("{pair}: a rate is above 0")) } else { Ok((pair.parse()?, rate)) }
    };
    given.map(|entry| read(entry).map_err(D::Error::custom)).collect()
}

fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<SourceName, Url>, D::Error> {
    let texts = BTreeMap::<SourceName, String>::deserialize(deserializer)?;
    let read = |(source, text): (SourceName, String)| {
        let url =
            Url::parse(&text).map_err(|e| D::Error::custom(format!("{source}: \"{text}\" is not an address: {e}")))?;
        Ok((source, url))
    };
    texts.into_iter().map(read).collect()
}
