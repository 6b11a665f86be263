//! What each exchange is asked and how its answer reads. All are asked for pairs in USD; Binance and OKX answer in USDT.

mod binance;
mod coinbase;
mod kraken;
mod okx;

use rust_decimal::Decimal;
use url::Url;

use super::{FeedError, Observation};
use clock::Instant;
use config::{Pair, SourceName};

/// Whether it could have such a pair. That it has none is found out by asking.
pub fn quotes(source: SourceName, pair: &Pair) -> bool {
    pair.quote == "USD"
        && match source {
            SourceName::Binance | SourceName::Okx => pair.base != "USDT",
            SourceName::Kraken | SourceName::Coinbase => true,
        }
}

/// Whether one question may be for several pairs.
pub fn takes_several(source: SourceName) -> bool {
    match source {
        SourceName::Binance | SourceName::Kraken => true,
        SourceName::Coinbase | SourceName::Okx => false,
    }
}

/// The question for these pairs, of which there is at least one and only one unless it takes several.
pub fn url(source: SourceName, root: &Url, pairs: &[Pair]) -> Url {
    match source {
        SourceName::Binance => binance::url(root, pairs),
        SourceName::Kraken => kraken::url(root, pairs),
        SourceName::Coinbase => coinbase::url(root, &pairs[0]),
        SourceName::Okx => okx::url(root, &pairs[0]),
    }
}

/// What it answered. A pair that was asked for and is not there is left out; one that was not asked for is ignored.
pub fn read(source: SourceName, pairs: &[Pair], body: &[u8], now: Instant) -> Result<Vec<Observation>, FeedError> {
    let mut said = match source {
        SourceName::Binance => binance::read(pairs, body)?,
        SourceName::Kraken => kraken::read(pairs, body, now)?,
        SourceName::Coinbase => vec![coinbase::read(&pairs[0], body)?],
        SourceName::Okx => vec![okx::read(&pairs[0], body)?],
    };
    for observation in &mut said {
        observation.at = observation.at.min(now);
    }
    Ok(said)
}

/// A price as exchanges write it: plain digits, above zero.
fn price(text: &str) -> Result<Decimal, FeedError> {
    let price = Decimal::from_str_exact(text).ok().filter(|price| *price > Decimal::ZERO);
    price.ok_or_else(|| FeedError::malformed(format_args!("`{text}` is no price")))
}

fn json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, FeedError> {
    serde_json::from_slice(body).map_err(FeedError::malformed)
}

fn with(root: &Url, path: &str, query: &[(&str, &str)]) -> Url {
    let mut url = root.clone();
    url.set_path(&format!("{}{path}", root.path().trim_end_matches('/')));
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}
