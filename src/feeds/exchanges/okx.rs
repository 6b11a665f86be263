//! OKX, `GET /api/v5/market/ticker?instId=BTC-USDT`: returns the last price and the time at which OKX generated the
//! response. Prices are in USDT.

use serde::Deserialize;
use url::Url;

use super::{FeedError, Observation, append_path_and_query, parse_json, parse_positive_price};
use clock::Instant;
use config::{ExchangeName, Pair};

#[derive(Deserialize)]
struct OkxResponse<'a> {
    code: &'a str,
    msg: String,
    #[serde(borrow, default)]
    data: Vec<OkxTicker<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OkxTicker<'a> {
    inst_id: &'a str,
    last: &'a str,
    ts: &'a str,
}

/// Returns the URL that requests the ticker of one pair.
pub fn build_ticker_url(root: &Url, pair: &Pair) -> Url {
    append_path_and_query(root, "/api/v5/market/ticker", &[("instId", &okx_instrument_id(pair))])
}

/// Parses the ticker of the requested pair.
pub fn parse_ticker_response(pair: &Pair, body: &[u8]) -> Result<Observation, FeedError> {
    let response: OkxResponse<'_> = parse_json(body)?;
    if response.code != "0" {
        return Err(FeedError::new_rejected(&format!("{} {}", response.code, response.msg)));
    }
    let ticker = response.data.iter().find(|ticker| ticker.inst_id == okx_instrument_id(pair));
    let ticker = ticker.ok_or_else(|| FeedError::new_malformed("the requested pair is missing"))?;
    let at = Instant(ticker.ts.parse().map_err(FeedError::new_malformed)?);
    Ok(Observation {
        source: ExchangeName::Okx,
        pair: Pair::new(&pair.base, "USDT"),
        price: parse_positive_price(ticker.last)?,
        at,
    })
}

/// Returns OKX's name of the market of the base asset in USDT, such as BTC-USDT.
fn okx_instrument_id(pair: &Pair) -> String {
    format!("{}-USDT", pair.base)
}
