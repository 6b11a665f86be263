//! The options `[rates]`: the sources of exchange rates, and the conditions under which a rate is used.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, de::Error};
use url::Url;

use crate::deserializers;

/// The options of exchange rates.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// The origin of the rates: exchanges, or only fixed rates of the configuration.
    pub mode: RatesMode,
    /// The exchanges whose tickers (latest prices) are read.
    pub sources: Vec<ExchangeName>,
    /// The minimum number of exchanges that must agree on a rate.
    pub min_sources: usize,
    /// The time between two rounds. In each round all exchanges are asked for their prices.
    #[serde(rename = "refresh_seconds", deserialize_with = "deserializers::deserialize_seconds")]
    pub refresh: Duration,
    /// The maximum age of a price of an exchange, and of a rate computed from it.
    #[serde(rename = "staleness_seconds", deserialize_with = "deserializers::deserialize_seconds")]
    pub staleness: Duration,
    /// The time limit of one request to an exchange.
    #[serde(rename = "timeout_ms", deserialize_with = "deserializers::deserialize_milliseconds")]
    pub timeout: Duration,
    /// The maximum deviation of an exchange's price from the median, in percent. Prices with a larger deviation are
    /// ignored.
    pub max_deviation_percent: u32,
    /// The maximum change of a rate from one round to the next, in percent. A larger change is a jump; it is accepted
    /// only when further rounds show it too.
    pub max_jump_percent: u32,
    /// The number of rounds in a row that must show a jump before it is accepted.
    pub jump_rounds: u32,
    /// The surcharge on amounts that are due in an asset, in basis points.
    pub spread_basis_points: u32,
    /// The maximum deviation of USDT from 1 USD, in percent. When the deviation is larger, USDT has no rate.
    pub depeg_percent: u32,
    /// The minimum number of exchanges that must report the price of USDT in USD.
    pub depeg_min_sources: usize,
    /// Fixed rates. For its pair, a fixed rate is used instead of the rate of the exchanges.
    #[serde(deserialize_with = "deserialize_fixed_rates_dropping_empty")]
    pub fixed: BTreeMap<Pair, Decimal>,
    /// The base URLs of the exchanges' APIs.
    #[serde(deserialize_with = "deserialize_exchange_urls")]
    pub urls: BTreeMap<ExchangeName, Url>,
}

/// The origin of all rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RatesMode {
    /// Rates are computed from the prices of exchanges, except for pairs with a fixed rate.
    Feeds,
    /// All rates are the fixed rates of the configuration; no exchange is asked.
    Fixed,
}

/// An exchange whose tickers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeName {
    /// Binance Spot, whose prices are in USDT.
    Binance,
    /// Kraken Spot, whose prices are in USD.
    Kraken,
    /// Coinbase Exchange, whose prices are in USD.
    Coinbase,
    /// OKX, whose prices are in USDT.
    Okx,
}

impl ExchangeName {
    /// Returns the name as it is written in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            ExchangeName::Binance => "binance",
            ExchangeName::Kraken => "kraken",
            ExchangeName::Coinbase => "coinbase",
            ExchangeName::Okx => "okx",
        }
    }
}

impl fmt::Display for ExchangeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A currency pair, written `BTC/USD`. Its rate is the price of one unit of the base in units of the quote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// The symbol of the base: the currency or asset of which one unit is priced.
    pub base: String,
    /// The symbol of the currency or asset in which the price is given.
    pub quote: String,
}

impl Pair {
    /// Returns the pair of a base symbol and a quote symbol.
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
        let is_symbol =
            |s: &str| (2..=12).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        match text.split_once('/') {
            Some((base, quote)) if is_symbol(base) && is_symbol(quote) && base != quote => Ok(Pair::new(base, quote)),
            Some(_) | None => Err(format!("\"{text}\" is not a pair such as \"BTC/USD\"")),
        }
    }
}

/// Deserialises the rates of pairs such as `BTC/USD`. A pair whose rate is an empty string is left out, so that a later
/// layer of the configuration can remove a rate. A rate of zero is an error.
fn deserialize_fixed_rates_dropping_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Pair, Decimal>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let present = texts.into_iter().filter(|(_, rate)| !rate.is_empty());
    let parse = |(pair, rate): (String, String)| {
        let rate = deserializers::parse_decimal(&rate).map_err(|e| format!("{pair}: {e}"))?;
        if rate.is_zero() { Err(format!("{pair}: a rate is above 0")) } else { Ok((pair.parse()?, rate)) }
    };
    present.map(|entry| parse(entry).map_err(D::Error::custom)).collect()
}

/// Deserialises the base URL of each exchange's API. Fails when a text is not a URL.
fn deserialize_exchange_urls<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<ExchangeName, Url>, D::Error> {
    let texts = BTreeMap::<ExchangeName, String>::deserialize(deserializer)?;
    let parse = |(source, text): (ExchangeName, String)| {
        let url =
            Url::parse(&text).map_err(|e| D::Error::custom(format!("{source}: \"{text}\" is not an address: {e}")))?;
        Ok((source, url))
    };
    texts.into_iter().map(parse).collect()
}
