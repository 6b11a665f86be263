//! Binance Spot, `GET /api/v3/ticker/24hr?symbols=[…]&type=MINI`: returns the last price and the end of
//! the 24-hour interval that the statistics cover. Binance has no markets in US dollars, so the prices are in USDT.

use serde::Deserialize;
use url::Url;

use super::{FeedError, Observation, append_path_and_query, parse_json, parse_positive_price};
use clock::Instant;
use config::{ExchangeName, Pair};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BinanceTicker<'a> {
    symbol: &'a str,
    last_price: &'a str,
    close_time: i64,
}

/// Returns the URL that requests the tickers of these pairs.
pub fn build_ticker_url(root: &Url, pairs: &[Pair]) -> Url {
    let symbols: Vec<String> = pairs.iter().map(|pair| format!("\"{}\"", binance_symbol(pair))).collect();
    append_path_and_query(
        root,
        "/api/v3/ticker/24hr",
        &[("symbols", &format!("[{}]", symbols.join(","))), ("type", "MINI")],
    )
}

/// Parses the tickers of the requested pairs.
pub fn parse_ticker_response(pairs: &[Pair], body: &[u8]) -> Result<Vec<Observation>, FeedError> {
    let tickers: Vec<BinanceTicker<'_>> = parse_json(body)?;
    let requested = tickers.iter().filter_map(|ticker| {
        let pair = pairs.iter().find(|pair| binance_symbol(pair) == ticker.symbol)?;
        Some((pair, ticker))
    });
    let to_observation = |(pair, ticker): (&Pair, &BinanceTicker<'_>)| {
        let (pair, at) = (Pair::new(&pair.base, "USDT"), Instant(ticker.close_time));
        Ok(Observation { source: ExchangeName::Binance, pair, price: parse_positive_price(ticker.last_price)?, at })
    };
    requested.map(to_observation).collect()
}

/// Returns Binance's name of the market of the base asset in USDT, such as BTCUSDT.
fn binance_symbol(pair: &Pair) -> String {
    format!("{}USDT", pair.base)
}
