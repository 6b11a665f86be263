//! Coinbase Exchange, `GET /products/BTC-USD/ticker`: returns the price of the last trade and its time.

use serde::Deserialize;
use url::Url;

use super::{FeedError, Observation, append_path_and_query, parse_json, parse_positive_price};
use clock::Instant;
use config::{ExchangeName, Pair};

#[derive(Deserialize)]
struct CoinbaseTicker<'a> {
    price: &'a str,
    time: &'a str,
}

/// Returns the URL that requests the ticker of one pair.
pub fn build_ticker_url(root: &Url, pair: &Pair) -> Url {
    append_path_and_query(root, &format!("/products/{}-{}/ticker", pair.base, pair.quote), &[])
}

/// Parses the ticker of the requested pair.
pub fn parse_ticker_response(pair: &Pair, body: &[u8]) -> Result<Observation, FeedError> {
    let ticker: CoinbaseTicker<'_> = parse_json(body)?;
    let time: jiff::Timestamp = ticker.time.parse().map_err(FeedError::new_malformed)?;
    let at = Instant(time.as_millisecond());
    Ok(Observation {
        source: ExchangeName::Coinbase,
        pair: pair.clone(),
        price: parse_positive_price(ticker.price)?,
        at,
    })
}
