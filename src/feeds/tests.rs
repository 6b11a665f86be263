use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;
use config::Config;

/// 2026-02-11T12:00:00Z, the moment after the times in the fixtures.
const NOW: Instant = Instant(1_770_811_200_000);

fn usd(base: &str) -> Pair {
    Pair::new(base, "USD")
}

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

#[derive(Deserialize)]
struct Fixture {
    about: String,
    answer: Box<RawValue>,
}

fn fixture(source: SourceName) -> String {
    let text = match source {
        SourceName::Binance => include_str!("fixtures/binance.json"),
        SourceName::Kraken => include_str!("fixtures/kraken.json"),
        SourceName::Coinbase => include_str!("fixtures/coinbase.json"),
        SourceName::Okx => include_str!("fixtures/okx.json"),
    };
    let fixture: Fixture = serde_json::from_str(text).unwrap();
    assert!(fixture.about.ends_with("not recorded."));
    fixture.answer.get().to_owned()
}

const ALL: [SourceName; 4] = [SourceName::Binance, SourceName::Kraken, SourceName::Coinbase, SourceName::Okx];

/// What a stand-in says to a path with its query.
type Says = dyn Fn(&str) -> Response + Send + Sync;

/// Stands in for all exchanges on one port; answers by path.
struct StandIn {
    url: Url,
    asked: Arc<AtomicU32>,
}

async fn stand_in(says: impl Fn(&str) -> Response + Send + Sync + 'static) -> StandIn {
    let asked = Arc::new(AtomicU32::new(0));
    let says: Arc<Says> = Arc::new(says);
    let answer = async |State((says, asked)): State<(Arc<Says>, Arc<AtomicU32>)>, request: Request<Body>| {
        asked.fetch_add(1, Ordering::SeqCst);
        assert!(request.headers()["user-agent"].to_str().unwrap().starts_with("settled/"));
        says(&request.uri().to_string())
    };
    let router = Router::new().fallback(answer).with_state((says, asked.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mirror", listener.local_addr().unwrap()).parse().unwrap();
    tasks::Tasks::default().spawn("stand-in", async move { axum::serve(listener, router).await.unwrap() });
    StandIn { url, asked }
}

fn feeds(stand_in: &StandIn, sources: &[SourceName], clock: &Clock) -> Feeds {
    let mut config = Config::default().rates;
    config.sources = sources.to_vec();
    config.urls = ALL.iter().map(|source| (*source, stand_in.url.clone())).collect();
    config.timeout = Duration::from_secs(5);
    Feeds::new(&config, clock.clone()).unwrap()
}

fn of_fixtures(uri: &str) -> Response {
    let source = match uri {
        "/mirror/api/v3/ticker/24hr?symbols=%5B%22BTCUSDT%22%2C%22TRXUSDT%22%5D&type=MINI" => SourceName::Binance,
        "/mirror/0/public/Ticker?pair=XBTUSD%2CTRXUSD%2CUSDTUSD" => SourceName::Kraken,
        "/mirror/products/BTC-USD/ticker" => SourceName::Coinbase,
        "/mirror/api/v5/market/ticker?instId=BTC-USDT" => SourceName::Okx,
        "/mirror/products/TRX-USD/ticker" | "/mirror/products/USDT-USD/ticker" => {
            return (StatusCode::NOT_FOUND, r#"{"message":"NotFound"}"#).into_response();
        }
        "/mirror/api/v5/market/ticker?instId=TRX-USDT" => {
            let refusal =
                r#"{"code":"51001","msg":"Instrument ID, Instrument ID code, or Spread ID doesn't exist.","data":[]}"#;
            return refusal.into_response();
        }
        other => panic!("{other} is no question"),
    };
    fixture(source).into_response()
}

#[tokio::test]
async fn every_exchange_is_asked_in_its_own_words_and_understood() {
    let stand_in = stand_in(of_fixtures).await;
    let feeds = feeds(&stand_in, &ALL, &Clock::manual(NOW));
    let mut heard = feeds.observe(&[usd("BTC"), usd("TRX"), usd("USDT"), Pair::new("USD", "CNY")]).await;
    heard.sort_by_key(|observation| (observation.pair.clone(), observation.source));
    let heard: Vec<(String, &str, String, i64)> = heard
        .iter()
        .map(|o| (o.pair.to_string(), o.source.as_str(), o.price.normalize().to_string(), NOW.since(o.at)))
        .collect();
    let expected = [
        ("BTC/USD", "kraken", "65000", 0),
        ("BTC/USD", "coinbase", "65005", 1_750),
        ("BTC/USDT", "binance", "65010.2", 500),
        ("BTC/USDT", "okx", "65020.5", 1_000),
        ("TRX/USD", "kraken", "0.1234", 0),
        ("TRX/USDT", "binance", "0.1234", 400),
        ("USDT/USD", "kraken", "1", 0),
    ];
    assert_eq!(heard, expected.map(|(pair, source, price, age)| (pair.to_owned(), source, price.to_owned(), age)));
}

#[tokio::test]
async fn a_pair_that_an_exchange_does_not_know_does_not_silence_the_others() {
    let refusing = |uri: &str| -> Response {
        if uri.contains("NOPE") && uri.contains("24hr") {
            (StatusCode::BAD_REQUEST, r#"{"code":-1121,"msg":"Invalid symbol."}"#).into_response()
        } else if uri.contains("NOPE") {
            r#"{"error":["EQuery:Unknown asset pair"]}"#.into_response()
        } else if uri.contains("24hr") {
            fixture(SourceName::Binance).into_response()
        } else {
            fixture(SourceName::Kraken).into_response()
        }
    };
    let stand_in = stand_in(refusing).await;
    let feeds = feeds(&stand_in, &[SourceName::Binance, SourceName::Kraken], &Clock::manual(NOW));
    let heard = feeds.observe(&[usd("NOPE"), usd("BTC")]).await;
    let heard: Vec<&str> = heard.iter().map(|observation| observation.source.as_str()).collect();
    assert_eq!(heard, ["binance", "kraken"]);
    let answers = feeds.ask(&[usd("NOPE")]).await;
    assert!(answers.iter().all(|(_, answer)| matches!(answer, Err(FeedError::Refused(_)))), "{answers:?}");
}

#[tokio::test]
async fn an_exchange_that_asks_for_a_rest_gets_it() {
    let limiting =
        |_: &str| -> Response { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "30")], "").into_response() };
    let stand_in = stand_in(limiting).await;
    let clock = Clock::manual(NOW);
    let feeds = feeds(&stand_in, &[SourceName::Kraken], &clock);
    let ask = async || feeds.ask(&[usd("BTC")]).await.remove(0).1.unwrap_err();
    assert_eq!(ask().await, FeedError::Limited { seconds: 30 });
    clock.advance_ms(29_999);
    assert_eq!(ask().await, FeedError::Resting);
    assert_eq!(stand_in.asked.load(Ordering::SeqCst), 1);
    clock.advance_ms(1);
    assert_eq!(ask().await, FeedError::Limited { seconds: 30 });
}

#[tokio::test]
async fn what_is_no_answer_is_named() {
    let endless =
        || Body::from_stream(futures_util::stream::repeat(Ok::<_, std::convert::Infallible>(" ".repeat(65_536))));
    let nonsense = move |uri: &str| -> Response {
        match uri {
            uri if uri.contains("24hr") => endless().into_response(),
            uri if uri.contains("public") => (StatusCode::BAD_GATEWAY, "<html>").into_response(),
            uri if uri.contains("products") => "<html>\u{7}</html>".into_response(),
            _ => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")], "").into_response(),
        }
    };
    let stand_in = stand_in(nonsense).await;
    let answers = feeds(&stand_in, &ALL, &Clock::manual(NOW)).ask(&[usd("BTC")]).await;
    let answers: BTreeMap<SourceName, FeedError> =
        answers.into_iter().map(|(source, answer)| (source, answer.unwrap_err())).collect();
    assert_eq!(answers[&SourceName::Binance], FeedError::TooLong);
    assert_eq!(answers[&SourceName::Kraken], FeedError::Status(502));
    assert!(matches!(&answers[&SourceName::Coinbase], FeedError::Malformed(_)));
    assert_eq!(answers[&SourceName::Okx], FeedError::Status(302), "redirects are not followed");
}

#[tokio::test]
async fn an_exchange_that_is_silent_or_gone_costs_its_time_only() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let mut config = Config::default().rates;
    config.timeout = Duration::from_millis(200);
    config.sources = vec![SourceName::Kraken, SourceName::Okx];
    config.urls.insert(SourceName::Kraken, silent.parse().unwrap());
    config.urls.insert(SourceName::Okx, "http://127.0.0.1:1".parse().unwrap());
    let feeds = Feeds::new(&config, Clock::manual(NOW)).unwrap();
    let answers = feeds.ask(&[usd("BTC")]).await;
    assert_eq!(answers[0], (SourceName::Kraken, Err(FeedError::TimedOut)));
    assert!(matches!(answers[1].1, Err(FeedError::Unreachable(_))));
    assert_eq!(feeds.observe(&[usd("BTC")]).await, []);
}

#[test]
fn answers_that_are_nearly_right_are_refused() {
    let btc = [usd("BTC")];
    let read = |source: SourceName, body: &str| vendors::read(source, &btc, body.as_bytes(), NOW);
    for (source, good, bad) in [
        (SourceName::Binance, "65010.20000000", "-1"),
        (SourceName::Binance, "65010.20000000", "0.00000000"),
        (SourceName::Binance, "\"65010.20000000\"", "65010.2"),
        (SourceName::Binance, "1770811199500", "null"),
        (SourceName::Kraken, "64999.90000", "NaN"),
        (SourceName::Kraken, "\"64999.90000\", ", ""),
        (SourceName::Kraken, "64999.90000", "65000.20000"),
        (SourceName::Coinbase, "65005.00", ""),
        (SourceName::Coinbase, "65005.00", "6.5e4"),
        (SourceName::Coinbase, "2026-02-11T11:59:58.250833Z", "yesterday"),
        (SourceName::Okx, "BTC-USDT", "BTC-EUR"),
        (SourceName::Okx, "1770811199000", "later"),
    ] {
        let body = fixture(source);
        assert_eq!(read(source, &body).unwrap().len(), 1);
        assert!(body.contains(good), "{source}: {good}");
        let altered = read(source, &body.replacen(good, bad, 1));
        assert!(matches!(altered, Err(FeedError::Malformed(_))), "{source}: {good} as {bad}: {altered:?}");
    }
    let refused = read(SourceName::Okx, &fixture(SourceName::Okx).replacen("\"0\"", "\"50011\"", 1));
    assert!(matches!(refused, Err(FeedError::Refused(_))));
    let future = fixture(SourceName::Okx).replace("1770811199000", "9770811199000");
    assert_eq!(read(SourceName::Okx, &future).unwrap()[0].at, NOW, "no observation is newer than its receipt");
    let other = vendors::read(SourceName::Kraken, &[usd("ETH")], fixture(SourceName::Kraken).as_bytes(), NOW);
    assert_eq!(other, Ok(Vec::new()), "what was not asked for is ignored");
}

proptest! {
    #[test]
    fn no_answer_makes_reading_panic(body in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..1_000) {
        for source in ALL {
            let _ = vendors::read(source, &[usd("BTC")], &body, NOW);
            let real = fixture(source);
            let _ = vendors::read(source, &[usd("BTC")], &real.as_bytes()[..cut.min(real.len())], NOW);
        }
    }

    /// Three honest sources within 1 % of each other, one that says anything at any time.
    #[test]
    fn one_liar_moves_a_rate_only_among_the_honest(
        honest in proptest::collection::vec(100_000_i64..=101_000, 3),
        lie in 1_i64..=10_000_000,
        age in 0_i64..=300_000,
        liar in 0_usize..4,
    ) {
        let mut heard: Vec<Observation> = Vec::new();
        let mut rest = honest.iter();
        for (number, source) in ALL.into_iter().enumerate() {
            let (units, at) = match number == liar {
                true => (lie, NOW.plus_ms(-age)),
                false => (*rest.next().unwrap(), NOW),
            };
            heard.push(Observation { source, pair: usd("BTC"), price: Decimal::new(units, 2), at });
        }
        let outcome = consensus().round(NOW, &[usd("BTC")], &heard).remove(0).1;
        let least = Decimal::new(*honest.iter().min().unwrap(), 2);
        let most = Decimal::new(*honest.iter().max().unwrap(), 2);
        let agreed = outcome.unwrap();
        prop_assert!(least <= agreed.value && agreed.value <= most);
    }
}

fn consensus() -> RateConsensus {
    RateConsensus::new(&Config::default().rates)
}

fn says(source: SourceName, pair: (&str, &str), price: &str, age_seconds: i64) -> Observation {
    Observation { source, pair: Pair::new(pair.0, pair.1), price: dec(price), at: NOW.plus_seconds(-age_seconds) }
}

/// Kraken and Coinbase quote in USD, Binance and OKX in USDT, as they do.
fn market(base: &str, prices: [&str; 4], usdt: &str) -> Vec<Observation> {
    use SourceName::{Binance, Coinbase, Kraken, Okx};
    vec![
        says(Kraken, (base, "USD"), prices[0], 1),
        says(Coinbase, (base, "USD"), prices[1], 1),
        says(Binance, (base, "USDT"), prices[2], 1),
        says(Okx, (base, "USDT"), prices[3], 1),
        says(Kraken, ("USDT", "USD"), usdt, 1),
        says(Coinbase, ("USDT", "USD"), usdt, 1),
    ]
}

fn judged(consensus: &mut RateConsensus, heard: &[Observation]) -> Result<Agreed, Refused> {
    consensus.round(NOW, &[usd("BTC")], heard).remove(0).1
}

#[test]
fn a_rate_is_the_median_of_all_that_agree() {
    let agreed = judged(&mut consensus(), &market("BTC", ["100", "101", "102", "101.5"], "0.999")).unwrap();
    assert_eq!((agreed.value, agreed.at), (dec("101.25"), NOW));
    assert_eq!(agreed.to_string(), "median of binance, kraken, coinbase, okx");

    let agreed = judged(&mut consensus(), &market("BTC", ["100", "101", "150", "101.5"], "1")).unwrap();
    assert_eq!(agreed.value, dec("101"));
    assert_eq!(agreed.to_string(), "median of kraken, coinbase, okx", "the far one is left out");
}

#[test]
fn without_enough_fresh_sources_there_is_no_rate() {
    let mut heard = market("BTC", ["100", "101", "102", "101"], "1");
    heard[0].at = NOW.plus_seconds(-120);
    assert!(
        judged(&mut consensus(), &heard).is_ok_and(|agreed| agreed.sources.len() == 4),
        "at the limit it is still heard"
    );
    heard[0].at = NOW.plus_ms(-120_001);
    assert!(judged(&mut consensus(), &heard).is_ok_and(|agreed| agreed.sources.len() == 3));
    heard.remove(1);
    assert_eq!(judged(&mut consensus(), &heard), Err(Refused::TooFew { found: 2, needed: 3 }));
    assert_eq!(judged(&mut consensus(), &[]), Err(Refused::TooFew { found: 0, needed: 3 }));
    let twice = says(SourceName::Okx, ("BTC", "USD"), "101", 0);
    assert_eq!(
        judged(&mut consensus(), &[twice.clone(), twice.clone(), twice]),
        Err(Refused::TooFew { found: 1, needed: 3 })
    );
}

#[test]
fn sources_that_disagree_make_no_rate() {
    let heard = market("BTC", ["100", "110", "121", "133"], "1");
    let median = dec("115.5");
    assert_eq!(judged(&mut consensus(), &heard), Err(Refused::Disagreement { found: 0, needed: 3, median }));
}

#[test]
fn usdt_is_a_dollar_while_its_tickers_say_so() {
    let mut consensus = consensus();
    let pairs = [usd("USDT"), usd("BTC")];
    let mut round = |usdt: &str| {
        let outcomes = consensus.round(NOW, &pairs, &market("BTC", ["100", "100", "100", "100"], usdt));
        outcomes.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>()
    };
    for within in ["1", "0.98", "1.02", "0.9991"] {
        let outcomes = round(within);
        assert_eq!(outcomes[0].as_ref().unwrap().value, Decimal::ONE, "{within}");
        assert!(outcomes[1].is_ok(), "{within}");
    }
    for beyond in ["0.9799", "1.0201", "0.5"] {
        let outcomes = round(beyond);
        assert_eq!(outcomes[0], Err(Refused::Depegged(dec(beyond))));
        assert_eq!(outcomes[1], Err(Refused::TooFew { found: 2, needed: 3 }), "quotes in USDT are not heard");
    }
}

#[test]
fn without_tickers_of_usdt_nothing_that_is_quoted_in_it_counts() {
    let heard = market("BTC", ["100", "100", "100", "100"], "1");
    let outcomes = consensus().round(NOW, &[usd("USDT"), usd("BTC")], &heard[..5]);
    assert_eq!(outcomes[0].1, Err(Refused::TooFew { found: 1, needed: 2 }));
    assert_eq!(outcomes[1].1, Err(Refused::TooFew { found: 2, needed: 3 }));
}

#[test]
fn a_jump_needs_rounds_in_a_row_that_agree_on_it() {
    let calm = market("BTC", ["100", "100", "100", "100"], "1");
    let jumped = market("BTC", ["120", "120", "121", "121"], "1");
    let elsewhere = market("BTC", ["80", "80", "80", "80"], "1");
    let jump = |to: &str, rounds| Err(Refused::Jump { from: dec("100"), to: dec(to), rounds, needed: 3 });
    let mut consensus = consensus();
    for (heard, expected) in [
        (&calm, Ok(dec("100"))),
        (&jumped, jump("120.5", 1)),
        (&calm, Ok(dec("100"))),
        (&jumped, jump("120.5", 1)),
        (&jumped, jump("120.5", 2)),
        (&elsewhere, jump("80", 1)),
        (&jumped, jump("120.5", 1)),
        (&jumped, jump("120.5", 2)),
        (&Vec::new(), Err(Refused::TooFew { found: 0, needed: 3 })),
        (&jumped, jump("120.5", 1)),
        (&jumped, jump("120.5", 2)),
        (&jumped, Ok(dec("120.5"))),
        (&jumped, Ok(dec("120.5"))),
    ] {
        assert_eq!(judged(&mut consensus, heard).map(|agreed| agreed.value), expected);
    }
}

#[test]
fn a_step_within_the_limit_is_no_jump() {
    let mut consensus = consensus();
    for price in ["100", "110", "99", "108.9"] {
        assert!(judged(&mut consensus, &market("BTC", [price; 4], "1")).is_ok(), "{price}");
    }
}

#[test]
fn the_rate_before_a_restart_is_compared_with() {
    let mut consensus = consensus();
    consensus.resume(usd("BTC"), dec("50"));
    let outcome = judged(&mut consensus, &market("BTC", ["100"; 4], "1"));
    assert!(matches!(outcome, Err(Refused::Jump { rounds: 1, .. })));
}
