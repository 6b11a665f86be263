//! Kraken Spot, `GET /0/public/Ticker?pair=…`: no times, so that the middle of the book counts, which is of now, and not
//! the last trade, which may be of yesterday.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;
use url::Url;

use super::{FeedError, Observation, json, price, with};
use clock::Instant;
use config::{Pair, SourceName};

#[derive(Deserialize)]
struct Answer<'a> {
    error: Vec<String>,
    #[serde(borrow, default)]
    result: BTreeMap<&'a str, Ticker<'a>>,
}

/// Price, whole lots, lots.
#[derive(Deserialize)]
struct Ticker<'a> {
    #[serde(borrow, rename = "a")]
    ask: [&'a str; 3],
    #[serde(borrow, rename = "b")]
    bid: [&'a str; 3],
}

pub fn url(root: &Url, pairs: &[Pair]) -> Url {
    let names: Vec<String> = pairs.iter().map(name).collect();
    with(root, "/0/public/Ticker", &[("pair", &names.join(","))])
}

pub fn read(pairs: &[Pair], body: &[u8], now: Instant) -> Result<Vec<Observation>, FeedError> {
    let answer: Answer<'_> = json(body)?;
    if let Some(error) = answer.error.first() {
        return Err(FeedError::refused(error));
    }
    let asked = answer.result.iter().filter_map(|(name, ticker)| {
        let pair = pairs.iter().find(|pair| is_named(pair, name))?;
        Some((pair, ticker))
    });
    let observe = |(pair, ticker): (&Pair, &Ticker<'_>)| {
        Ok(Observation { source: SourceName::Kraken, pair: pair.clone(), price: ticker.middle()?, at: now })
    };
    asked.map(observe).collect()
}

impl Ticker<'_> {
    fn middle(&self) -> Result<Decimal, FeedError> {
        let (ask, bid) = (price(self.ask[0])?, price(self.bid[0])?);
        let sum = ask.checked_add(bid).filter(|_| bid <= ask);
        let sum = sum.ok_or_else(|| FeedError::malformed("the bid is above the ask"))?;
        Ok(sum / Decimal::TWO)
    }
}

/// Kraken writes XBT for Bitcoin.
fn base(pair: &Pair) -> &str {
    if pair.base == "BTC" { "XBT" } else { &pair.base }
}

fn name(pair: &Pair) -> String {
    format!("{}{}", base(pair), pair.quote)
}

/// Answers call old pairs by longer names: XXBTZUSD, XETHZUSD, USDTZUSD.
fn is_named(pair: &Pair, answer: &str) -> bool {
    let (base, quote) = (base(pair), &pair.quote);
    [name(pair), format!("X{base}Z{quote}"), format!("{base}Z{quote}")].iter().any(|name| name == answer)
}
