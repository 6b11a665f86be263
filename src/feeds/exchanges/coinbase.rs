//! Coinbase Exchange, `GET /products/BTC-USD/ticker`: returns the last trade and its time.

use serde::Deserialize;
use url::Url;

use super::{FeedError, Observation, extend_url, parse_json, parse_price};
use clock::Instant;
use config::{Pair, SourceName};

#[derive(Deserialize)]
struct CoinbaseTicker<'a> {
    price: &'a str,
    time: &'a str,
}

/// Returns the URL that requests the ticker of one pair.
pub fn build_url(root: &Url, pair: &Pair) -> Url {
    extend_url(root, &format!("/products/{}-{}/ticker", pair.base, pair.quote), &[])
}

/// Parses the ticker of the requested pair.
pub fn parse_response(pair: &Pair, body: &[u8]) -> Result<Observation, FeedError> {
    let ticker: CoinbaseTicker<'_> = parse_json(body)?;
    let time: jiff::Timestamp = ticker.time.parse().map_err(FeedError::malformed)?;
    let at = Instant(time.as_millisecond());
    Ok(Observation { source: SourceName::Coinbase, pair: pair.clone(), price: parse_price(ticker.price)?, at })
}
