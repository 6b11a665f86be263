//! Binance Spot, `GET /api/v3/ticker/24hr?symbols=[…]&type=MINI`: the last price and the time of the statistics.
//! It has no market against the dollar; the quotes are in USDT.

use serde::Deserialize;
use url::Url;

use super::{FeedError, Observation, json, price, with};
use clock::Instant;
use config::{Pair, SourceName};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ticker<'a> {
    symbol: &'a str,
    last_price: &'a str,
    close_time: i64,
}

pub fn url(root: &Url, pairs: &[Pair]) -> Url {
    let symbols: Vec<String> = pairs.iter().map(|pair| format!("\"{}\"", symbol(pair))).collect();
    with(root, "/api/v3/ticker/24hr", &[("symbols", &format!("[{}]", symbols.join(","))), ("type", "MINI")])
}

pub fn read(pairs: &[Pair], body: &[u8]) -> Result<Vec<Observation>, FeedError> {
    let tickers: Vec<Ticker<'_>> = json(body)?;
    let asked = tickers.iter().filter_map(|ticker| {
        let pair = pairs.iter().find(|pair| symbol(pair) == ticker.symbol)?;
        Some((pair, ticker))
    });
    let observe = |(pair, ticker): (&Pair, &Ticker<'_>)| {
        let (pair, at) = (Pair::new(&pair.base, "USDT"), Instant(ticker.close_time));
        Ok(Observation { source: SourceName::Binance, pair, price: price(ticker.last_price)?, at })
    };
    asked.map(observe).collect()
}

fn symbol(pair: &Pair) -> String {
    format!("{}USDT", pair.base)
}
