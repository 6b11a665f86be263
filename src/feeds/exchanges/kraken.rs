//! Kraken Spot, `GET /0/public/Ticker?pair=…`: the response contains no timestamps. The price is the middle of the best
//! bid and the best ask, because the last trade may be a day old.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;
use url::Url;

use super::{FeedError, Observation, append_path_and_query, parse_json, parse_positive_price};
use clock::Instant;
use config::{ExchangeName, Pair};

#[derive(Deserialize)]
struct KrakenResponse<'a> {
    error: Vec<String>,
    #[serde(borrow, default)]
    result: BTreeMap<&'a str, KrakenTicker<'a>>,
}

/// The best ask and the best bid. Each is a list of three texts: the price, the volume in whole lots, and the volume.
#[derive(Deserialize)]
struct KrakenTicker<'a> {
    #[serde(borrow, rename = "a")]
    ask: [&'a str; 3],
    #[serde(borrow, rename = "b")]
    bid: [&'a str; 3],
}

/// Returns the URL that requests the tickers of these pairs.
pub fn build_ticker_url(root: &Url, pairs: &[Pair]) -> Url {
    let names: Vec<String> = pairs.iter().map(kraken_pair_name).collect();
    append_path_and_query(root, "/0/public/Ticker", &[("pair", &names.join(","))])
}

/// Parses the tickers of the requested pairs. The prices get the time `now`, because the response has no timestamps.
pub fn parse_ticker_response(pairs: &[Pair], body: &[u8], now: Instant) -> Result<Vec<Observation>, FeedError> {
    let response: KrakenResponse<'_> = parse_json(body)?;
    if let Some(error) = response.error.first() {
        return Err(FeedError::new_rejected(error));
    }
    let requested = response.result.iter().filter_map(|(name, ticker)| {
        let pair = pairs.iter().find(|pair| matches_kraken_name(pair, name))?;
        Some((pair, ticker))
    });
    let to_observation = |(pair, ticker): (&Pair, &KrakenTicker<'_>)| {
        Ok(Observation {
            source: ExchangeName::Kraken,
            pair: pair.clone(),
            price: ticker.compute_mid_price()?,
            at: now,
        })
    };
    requested.map(to_observation).collect()
}

impl KrakenTicker<'_> {
    /// Returns the middle between the best bid and the best ask. Fails when the bid is above the ask, because no real
    /// market is in this state.
    fn compute_mid_price(&self) -> Result<Decimal, FeedError> {
        let (ask, bid) = (parse_positive_price(self.ask[0])?, parse_positive_price(self.bid[0])?);
        let sum = ask.checked_add(bid).filter(|_| bid <= ask);
        let sum = sum.ok_or_else(|| FeedError::new_malformed("the bid is above the ask"))?;
        Ok(sum / Decimal::TWO)
    }
}

/// Returns Kraken's code of the base asset, which is XBT for Bitcoin.
fn kraken_base_code(pair: &Pair) -> &str {
    if pair.base == "BTC" { "XBT" } else { &pair.base }
}

/// Returns the name of a pair in requests to Kraken, such as XBTUSD.
fn kraken_pair_name(pair: &Pair) -> String {
    format!("{}{}", kraken_base_code(pair), pair.quote)
}

/// Returns true when `response_name` is a name of this pair. Responses use longer names for old pairs: XXBTZUSD,
/// XETHZUSD, USDTZUSD.
fn matches_kraken_name(pair: &Pair, response_name: &str) -> bool {
    let (base, quote) = (kraken_base_code(pair), &pair.quote);
    [kraken_pair_name(pair), format!("X{base}Z{quote}"), format!("{base}Z{quote}")]
        .iter()
        .any(|name| name == response_name)
}
