//! Builds the requests to each exchange and parses the responses. All pairs are requested in USD. Binance and OKX have
//! no such markets, so the price in USDT is requested there and returned as such.

mod binance;
mod coinbase;
mod kraken;
mod okx;

use rust_decimal::Decimal;
use url::Url;

use super::{FeedError, Observation};
use clock::Instant;
use config::{ExchangeName, Pair};

/// Returns false when the exchange certainly has no market for this pair. When it returns true, only a request shows
/// whether the exchange has the market.
pub fn may_have_market(source: ExchangeName, pair: &Pair) -> bool {
    pair.quote == "USD"
        && match source {
            ExchangeName::Binance | ExchangeName::Okx => pair.base != "USDT",
            ExchangeName::Kraken | ExchangeName::Coinbase => true,
        }
}

/// Returns true when one request may contain several pairs.
pub fn accepts_several_pairs_per_request(source: ExchangeName) -> bool {
    match source {
        ExchangeName::Binance | ExchangeName::Kraken => true,
        ExchangeName::Coinbase | ExchangeName::Okx => false,
    }
}

/// Returns the URL that requests the tickers of these pairs. `pairs` must have exactly one pair, unless
/// [`accepts_several_pairs_per_request`] is true for the exchange.
pub fn build_ticker_url(source: ExchangeName, root: &Url, pairs: &[Pair]) -> Url {
    match source {
        ExchangeName::Binance => binance::build_ticker_url(root, pairs),
        ExchangeName::Kraken => kraken::build_ticker_url(root, pairs),
        ExchangeName::Coinbase => coinbase::build_ticker_url(root, &pairs[0]),
        ExchangeName::Okx => okx::build_ticker_url(root, &pairs[0]),
    }
}

/// Parses the response to a request for `pairs`. A requested pair that is missing in the response gets no observation,
/// and other pairs are ignored. A time after `now` becomes `now`.
pub fn parse_ticker_response(
    source: ExchangeName,
    pairs: &[Pair],
    body: &[u8],
    now: Instant,
) -> Result<Vec<Observation>, FeedError> {
    let mut observations = match source {
        ExchangeName::Binance => binance::parse_ticker_response(pairs, body)?,
        ExchangeName::Kraken => kraken::parse_ticker_response(pairs, body, now)?,
        ExchangeName::Coinbase => vec![coinbase::parse_ticker_response(&pairs[0], body)?],
        ExchangeName::Okx => vec![okx::parse_ticker_response(&pairs[0], body)?],
    };
    for observation in &mut observations {
        observation.at = observation.at.min(now);
    }
    Ok(observations)
}

/// Parses a price above zero in plain decimal notation.
fn parse_positive_price(text: &str) -> Result<Decimal, FeedError> {
    let price = Decimal::from_str_exact(text).ok().filter(|price| *price > Decimal::ZERO);
    price.ok_or_else(|| FeedError::new_malformed(format_args!("`{text}` is not a price")))
}

/// Parses the JSON body of a response; any other body is [`FeedError::Malformed`].
fn parse_json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, FeedError> {
    serde_json::from_slice(body).map_err(FeedError::new_malformed)
}

/// Returns the URL with this path and query appended to `root`.
fn append_path_and_query(root: &Url, path: &str, query: &[(&str, &str)]) -> Url {
    let mut url = root.clone();
    url.set_path(&format!("{}{path}", root.path().trim_end_matches('/')));
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}
