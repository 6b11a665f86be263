//! OKX, `GET /api/v5/market/ticker?instId=BTC-USDT`: the last price and the time of the snapshot. The quotes are in USDT.

use serde::Deserialize;
use url::Url;

use super::{FeedError, Observation, json, price, with};
use clock::Instant;
use config::{Pair, SourceName};

#[derive(Deserialize)]
struct Answer<'a> {
    code: &'a str,
    msg: String,
    #[serde(borrow, default)]
    data: Vec<Ticker<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ticker<'a> {
    inst_id: &'a str,
    last: &'a str,
    ts: &'a str,
}

pub fn url(root: &Url, pair: &Pair) -> Url {
    with(root, "/api/v5/market/ticker", &[("instId", &instrument(pair))])
}

pub fn read(pair: &Pair, body: &[u8]) -> Result<Observation, FeedError> {
    let answer: Answer<'_> = json(body)?;
    if answer.code != "0" {
        return Err(FeedError::refused(&format!("{} {}", answer.code, answer.msg)));
    }
    let ticker = answer.data.iter().find(|ticker| ticker.inst_id == instrument(pair));
    let ticker = ticker.ok_or_else(|| FeedError::malformed("the pair that was asked for is not in it"))?;
    let at = Instant(ticker.ts.parse().map_err(FeedError::malformed)?);
    Ok(Observation { source: SourceName::Okx, pair: Pair::new(&pair.base, "USDT"), price: price(ticker.last)?, at })
}

fn instrument(pair: &Pair) -> String {
    format!("{}-USDT", pair.base)
}
