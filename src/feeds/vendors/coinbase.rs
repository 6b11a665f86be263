//! Coinbase Exchange, `GET /products/BTC-USD/ticker`: the last trade and its time.

use serde::Deserialize;
use url::Url;

use super::{FeedError, Observation, json, price, with};
use clock::Instant;
use config::{Pair, SourceName};

#[derive(Deserialize)]
struct Ticker<'a> {
    price: &'a str,
    time: &'a str,
}

pub fn url(root: &Url, pair: &Pair) -> Url {
    with(root, &format!("/products/{}-{}/ticker", pair.base, pair.quote), &[])
}

pub fn read(pair: &Pair, body: &[u8]) -> Result<Observation, FeedError> {
    let ticker: Ticker<'_> = json(body)?;
    let time: jiff::Timestamp = ticker.time.parse().map_err(FeedError::malformed)?;
    let at = Instant(time.as_millisecond());
    Ok(Observation { source: SourceName::Coinbase, pair: pair.clone(), price: price(ticker.price)?, at })
}
