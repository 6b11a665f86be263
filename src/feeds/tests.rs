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
use url::Url;

use super::*;
use clock::Clock;
use config::Config;

/// 2026-02-11T12:00:00Z, the moment after the times in the fixtures.
const NOW: Instant = Instant(1_770_811_200_000);

fn usd_pair(base: &str) -> Pair {
    Pair::new(base, "USD")
}

fn parse_decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

#[derive(Deserialize)]
struct ExchangeFixture {
    about: String,
    answer: Box<RawValue>,
}

fn read_fixture_response(source: ExchangeName) -> String {
    let text = match source {
        ExchangeName::Binance => include_str!("fixtures/binance.json"),
        ExchangeName::Kraken => include_str!("fixtures/kraken.json"),
        ExchangeName::Coinbase => include_str!("fixtures/coinbase.json"),
        ExchangeName::Okx => include_str!("fixtures/okx.json"),
    };
    let fixture: ExchangeFixture = serde_json::from_str(text).unwrap();
    assert!(fixture.about.ends_with("not recorded."));
    fixture.answer.get().to_owned()
}

const ALL: [ExchangeName; 4] = [ExchangeName::Binance, ExchangeName::Kraken, ExchangeName::Coinbase, ExchangeName::Okx];

/// A function that returns the response to a request with this path and query.
type Responder = dyn Fn(&str) -> Response + Send + Sync;

/// A local HTTP server that responds like all exchanges, on one port.
struct FakeExchanges {
    url: Url,
    request_count: Arc<AtomicU32>,
}

async fn start_fake_exchanges(respond: impl Fn(&str) -> Response + Send + Sync + 'static) -> FakeExchanges {
    let request_count = Arc::new(AtomicU32::new(0));
    let respond: Arc<Responder> = Arc::new(respond);
    let answer = async |State((respond, request_count)): State<(Arc<Responder>, Arc<AtomicU32>)>,
                        request: Request<Body>| {
        request_count.fetch_add(1, Ordering::SeqCst);
        assert!(request.headers()["user-agent"].to_str().unwrap().starts_with("settled/"));
        respond(&request.uri().to_string())
    };
    let router = Router::new().fallback(answer).with_state((respond, request_count.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mirror", listener.local_addr().unwrap()).parse().unwrap();
    tasks::Tasks::default().spawn("stand-in", async move { axum::serve(listener, router).await.unwrap() });
    FakeExchanges { url, request_count }
}

fn build_feeds(exchanges: &FakeExchanges, sources: &[ExchangeName], clock: &Clock) -> Feeds {
    let mut config = Config::default().rates;
    config.sources = sources.to_vec();
    config.urls = ALL.iter().map(|source| (*source, exchanges.url.clone())).collect();
    config.timeout = Duration::from_secs(5);
    Feeds::new(&config, clock.clone()).unwrap()
}

fn respond_with_fixture(uri: &str) -> Response {
    let source = match uri {
        "/mirror/api/v3/ticker/24hr?symbols=%5B%22BTCUSDT%22%2C%22TRXUSDT%22%5D&type=MINI" => ExchangeName::Binance,
        "/mirror/0/public/Ticker?pair=XBTUSD%2CTRXUSD%2CUSDTUSD" => ExchangeName::Kraken,
        "/mirror/products/BTC-USD/ticker" => ExchangeName::Coinbase,
        "/mirror/api/v5/market/ticker?instId=BTC-USDT" => ExchangeName::Okx,
        "/mirror/products/TRX-USD/ticker" | "/mirror/products/USDT-USD/ticker" => {
            return (StatusCode::NOT_FOUND, r#"{"message":"NotFound"}"#).into_response();
        }
        "/mirror/api/v5/market/ticker?instId=TRX-USDT" => {
            let rejection =
                r#"{"code":"51001","msg":"Instrument ID, Instrument ID code, or Spread ID doesn't exist.","data":[]}"#;
            return rejection.into_response();
        }
        other => panic!("unexpected request: {other}"),
    };
    read_fixture_response(source).into_response()
}

#[tokio::test]
async fn the_requests_and_responses_of_every_exchange_are_supported() {
    let exchanges = start_fake_exchanges(respond_with_fixture).await;
    let feeds = build_feeds(&exchanges, &ALL, &Clock::manual(NOW));
    let mut observations = feeds
        .request_prices_logging_failures(&[usd_pair("BTC"), usd_pair("TRX"), usd_pair("USDT"), Pair::new("USD", "CNY")])
        .await;
    observations.sort_by_key(|observation| (observation.pair.clone(), observation.source));
    let observations: Vec<(String, &str, String, i64)> = observations
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
    assert_eq!(
        observations,
        expected.map(|(pair, source, price, age)| (pair.to_owned(), source, price.to_owned(), age))
    );
}

#[tokio::test]
async fn an_unknown_pair_does_not_hide_the_prices_of_the_others() {
    let reject_unknown_pair = |uri: &str| -> Response {
        if uri.contains("NOPE") && uri.contains("24hr") {
            (StatusCode::BAD_REQUEST, r#"{"code":-1121,"msg":"Invalid symbol."}"#).into_response()
        } else if uri.contains("NOPE") {
            r#"{"error":["EQuery:Unknown asset pair"]}"#.into_response()
        } else if uri.contains("24hr") {
            read_fixture_response(ExchangeName::Binance).into_response()
        } else {
            read_fixture_response(ExchangeName::Kraken).into_response()
        }
    };
    let exchanges = start_fake_exchanges(reject_unknown_pair).await;
    let feeds = build_feeds(&exchanges, &[ExchangeName::Binance, ExchangeName::Kraken], &Clock::manual(NOW));
    let observations = feeds.request_prices_logging_failures(&[usd_pair("NOPE"), usd_pair("BTC")]).await;
    let observations: Vec<&str> = observations.iter().map(|observation| observation.source.as_str()).collect();
    assert_eq!(observations, ["binance", "kraken"]);
    let answers = feeds.request_prices_by_exchange(&[usd_pair("NOPE")]).await;
    assert!(answers.iter().all(|(_, answer)| matches!(answer, Err(FeedError::Rejected(_)))), "{answers:?}");
}

#[tokio::test]
async fn prices_received_before_a_rate_limit_are_used_and_the_exchange_is_paused() {
    let respond = |uri: &str| -> Response {
        if uri.contains("ETH") {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "30")], "").into_response()
        } else {
            respond_with_fixture(uri)
        }
    };
    let exchanges = start_fake_exchanges(respond).await;
    let feeds = build_feeds(&exchanges, &[ExchangeName::Coinbase], &Clock::manual(NOW));
    let mut answers = feeds.request_prices_by_exchange(&[usd_pair("BTC"), usd_pair("ETH"), usd_pair("BTC")]).await;
    let observations = answers.remove(0).1.unwrap();
    assert_eq!(observations.iter().map(|observation| &observation.pair).collect::<Vec<_>>(), [&usd_pair("BTC")]);
    let answer = feeds.request_prices_by_exchange(&[usd_pair("BTC")]).await.remove(0).1;
    assert_eq!(answer.unwrap_err(), FeedError::Paused);
}

#[tokio::test]
async fn a_rate_limited_exchange_is_paused_for_the_requested_time() {
    let respond_rate_limited =
        |_: &str| -> Response { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "30")], "").into_response() };
    let exchanges = start_fake_exchanges(respond_rate_limited).await;
    let clock = Clock::manual(NOW);
    let feeds = build_feeds(&exchanges, &[ExchangeName::Kraken], &clock);
    let request_one = async || feeds.request_prices_by_exchange(&[usd_pair("BTC")]).await.remove(0).1.unwrap_err();
    assert_eq!(request_one().await, FeedError::RateLimited { seconds: 30 });
    clock.advance_ms_unless_system(29_999);
    assert_eq!(request_one().await, FeedError::Paused);
    assert_eq!(exchanges.request_count.load(Ordering::SeqCst), 1);
    clock.advance_ms_unless_system(1);
    assert_eq!(request_one().await, FeedError::RateLimited { seconds: 30 });
}

#[tokio::test]
async fn each_kind_of_invalid_response_has_its_error() {
    let endless =
        || Body::from_stream(futures_util::stream::repeat(Ok::<_, std::convert::Infallible>(" ".repeat(65_536))));
    let respond_invalid = move |uri: &str| -> Response {
        match uri {
            uri if uri.contains("24hr") => endless().into_response(),
            uri if uri.contains("public") => (StatusCode::BAD_GATEWAY, "<html>").into_response(),
            uri if uri.contains("products") => "<html>\u{7}</html>".into_response(),
            _ => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")], "").into_response(),
        }
    };
    let exchanges = start_fake_exchanges(respond_invalid).await;
    let answers =
        build_feeds(&exchanges, &ALL, &Clock::manual(NOW)).request_prices_by_exchange(&[usd_pair("BTC")]).await;
    let answers: BTreeMap<ExchangeName, FeedError> =
        answers.into_iter().map(|(source, answer)| (source, answer.unwrap_err())).collect();
    assert_eq!(answers[&ExchangeName::Binance], FeedError::ResponseTooLarge);
    assert_eq!(answers[&ExchangeName::Kraken], FeedError::Status(502));
    assert!(matches!(&answers[&ExchangeName::Coinbase], FeedError::Malformed(_)));
    assert_eq!(answers[&ExchangeName::Okx], FeedError::Status(302), "redirects are not followed");
}

#[tokio::test]
async fn an_unreachable_exchange_fails_within_the_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let mut config = Config::default().rates;
    config.timeout = Duration::from_millis(200);
    config.sources = vec![ExchangeName::Kraken, ExchangeName::Okx];
    config.urls.insert(ExchangeName::Kraken, silent.parse().unwrap());
    config.urls.insert(ExchangeName::Okx, "http://127.0.0.1:1".parse().unwrap());
    let feeds = Feeds::new(&config, Clock::manual(NOW)).unwrap();
    let answers = feeds.request_prices_by_exchange(&[usd_pair("BTC")]).await;
    assert_eq!(answers[0], (ExchangeName::Kraken, Err(FeedError::TimedOut)));
    assert!(matches!(answers[1].1, Err(FeedError::Unreachable(_))));
    assert_eq!(feeds.request_prices_logging_failures(&[usd_pair("BTC")]).await, []);
}

#[test]
fn responses_with_one_invalid_field_are_rejected() {
    let btc = [usd_pair("BTC")];
    let parse = |source: ExchangeName, body: &str| exchanges::parse_ticker_response(source, &btc, body.as_bytes(), NOW);
    for (source, good, bad) in [
        (ExchangeName::Binance, "65010.20000000", "-1"),
        (ExchangeName::Binance, "65010.20000000", "0.00000000"),
        (ExchangeName::Binance, "\"65010.20000000\"", "65010.2"),
        (ExchangeName::Binance, "1770811199500", "null"),
        (ExchangeName::Kraken, "64999.90000", "NaN"),
        (ExchangeName::Kraken, "\"64999.90000\", ", ""),
        (ExchangeName::Kraken, "64999.90000", "65000.20000"),
        (ExchangeName::Coinbase, "65005.00", ""),
        (ExchangeName::Coinbase, "65005.00", "6.5e4"),
        (ExchangeName::Coinbase, "2026-02-11T11:59:58.250833Z", "yesterday"),
        (ExchangeName::Okx, "BTC-USDT", "BTC-EUR"),
        (ExchangeName::Okx, "1770811199000", "later"),
    ] {
        let body = read_fixture_response(source);
        assert_eq!(parse(source, &body).unwrap().len(), 1);
        assert!(body.contains(good), "{source}: {good}");
        let altered = parse(source, &body.replacen(good, bad, 1));
        assert!(matches!(altered, Err(FeedError::Malformed(_))), "{source}: {good} as {bad}: {altered:?}");
    }
    let rejected =
        parse(ExchangeName::Okx, &read_fixture_response(ExchangeName::Okx).replacen("\"0\"", "\"50011\"", 1));
    assert!(matches!(rejected, Err(FeedError::Rejected(_))));
    let future = read_fixture_response(ExchangeName::Okx).replace("1770811199000", "9770811199000");
    assert_eq!(
        parse(ExchangeName::Okx, &future).unwrap()[0].at,
        NOW,
        "the time of a price is never later than its receipt"
    );
    let other = exchanges::parse_ticker_response(
        ExchangeName::Kraken,
        &[usd_pair("ETH")],
        read_fixture_response(ExchangeName::Kraken).as_bytes(),
        NOW,
    );
    assert_eq!(other, Ok(Vec::new()), "pairs that were not requested are ignored");
}

proptest! {
    #[test]
    fn no_response_makes_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..1_000) {
        for source in ALL {
            let _ = exchanges::parse_ticker_response(source, &[usd_pair("BTC")], &body, NOW);
            let real = read_fixture_response(source);
            let _ = exchanges::parse_ticker_response(source, &[usd_pair("BTC")], &real.as_bytes()[..cut.min(real.len())], NOW);
        }
    }

       /// Three correct sources return prices within 1 % of each other, and one false source returns any price and
       /// time.
    #[test]
    fn one_false_source_moves_a_rate_only_within_the_range_of_the_correct_ones(
        correct in proptest::collection::vec(100_000_i64..=101_000, 3),
        false_price in 1_i64..=10_000_000,
        age in 0_i64..=300_000,
        false_source in 0_usize..4,
    ) {
        let mut observations: Vec<Observation> = Vec::new();
        let mut rest = correct.iter();
        for (number, source) in ALL.into_iter().enumerate() {
            let (units, at) = match number == false_source {
                true => (false_price, NOW.plus_ms(-age)),
                false => (*rest.next().unwrap(), NOW),
            };
            observations.push(Observation { source, pair: usd_pair("BTC"), price: Decimal::new(units, 2), at });
        }
        let outcome = new_consensus().decide_and_record_rates(NOW, &[usd_pair("BTC")], &observations).remove(0).1;
        let correct_least = Decimal::new(*correct.iter().min().unwrap(), 2);
        let correct_most = Decimal::new(*correct.iter().max().unwrap(), 2);
        let agreed = outcome.unwrap();
        prop_assert!(correct_least <= agreed.value && agreed.value <= correct_most);
    }
}

fn new_consensus() -> RateConsensus {
    RateConsensus::new(&Config::default().rates)
}

fn build_observation(source: ExchangeName, pair: (&str, &str), price: &str, age_seconds: i64) -> Observation {
    Observation {
        source,
        pair: Pair::new(pair.0, pair.1),
        price: parse_decimal(price),
        at: NOW.plus_seconds(-age_seconds),
    }
}

/// Returns the prices of one round as the exchanges quote them: Kraken and Coinbase in USD, Binance and OKX in USDT.
fn build_market_prices(base: &str, prices: [&str; 4], usdt: &str) -> Vec<Observation> {
    use ExchangeName::{Binance, Coinbase, Kraken, Okx};
    vec![
        build_observation(Kraken, (base, "USD"), prices[0], 1),
        build_observation(Coinbase, (base, "USD"), prices[1], 1),
        build_observation(Binance, (base, "USDT"), prices[2], 1),
        build_observation(Okx, (base, "USDT"), prices[3], 1),
        build_observation(Kraken, ("USDT", "USD"), usdt, 1),
        build_observation(Coinbase, ("USDT", "USD"), usdt, 1),
    ]
}

fn evaluate_btc(consensus: &mut RateConsensus, observations: &[Observation]) -> Result<AgreedRate, RateRejection> {
    consensus.decide_and_record_rates(NOW, &[usd_pair("BTC")], observations).remove(0).1
}

#[test]
fn a_rate_is_the_median_of_the_sources_that_agree() {
    let agreed =
        evaluate_btc(&mut new_consensus(), &build_market_prices("BTC", ["100", "101", "102", "101.5"], "0.999"))
            .unwrap();
    assert_eq!((agreed.value, agreed.at), (parse_decimal("101.25"), NOW));
    assert_eq!(agreed.to_string(), "median of binance, kraken, coinbase, okx");

    let agreed =
        evaluate_btc(&mut new_consensus(), &build_market_prices("BTC", ["100", "101", "150", "101.5"], "1")).unwrap();
    assert_eq!(agreed.value, parse_decimal("101"));
    assert_eq!(agreed.to_string(), "median of kraken, coinbase, okx", "the source far from the median is left out");
}

#[test]
fn without_enough_recent_prices_there_is_no_rate() {
    let mut observations = build_market_prices("BTC", ["100", "101", "102", "101"], "1");
    observations[0].at = NOW.plus_seconds(-120);
    assert!(
        evaluate_btc(&mut new_consensus(), &observations).is_ok_and(|agreed| agreed.sources.len() == 4),
        "a price at the age limit still counts"
    );
    observations[0].at = NOW.plus_ms(-120_001);
    assert!(evaluate_btc(&mut new_consensus(), &observations).is_ok_and(|agreed| agreed.sources.len() == 3));
    observations.remove(1);
    assert_eq!(evaluate_btc(&mut new_consensus(), &observations), Err(RateRejection::TooFew { found: 2, needed: 3 }));
    assert_eq!(evaluate_btc(&mut new_consensus(), &[]), Err(RateRejection::TooFew { found: 0, needed: 3 }));
    let twice = build_observation(ExchangeName::Okx, ("BTC", "USD"), "101", 0);
    assert_eq!(
        evaluate_btc(&mut new_consensus(), &[twice.clone(), twice.clone(), twice]),
        Err(RateRejection::TooFew { found: 1, needed: 3 })
    );
}

#[test]
fn sources_that_disagree_yield_no_rate() {
    let observations = build_market_prices("BTC", ["100", "110", "121", "133"], "1");
    let median = parse_decimal("115.5");
    assert_eq!(
        evaluate_btc(&mut new_consensus(), &observations),
        Err(RateRejection::Disagreement { found: 0, needed: 3, median })
    );
}

#[test]
fn usdt_counts_as_one_dollar_while_its_prices_are_near_one() {
    let mut consensus = new_consensus();
    let pairs = [usd_pair("USDT"), usd_pair("BTC")];
    let mut evaluate = |usdt: &str| {
        let outcomes = consensus.decide_and_record_rates(
            NOW,
            &pairs,
            &build_market_prices("BTC", ["100", "100", "100", "100"], usdt),
        );
        outcomes.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>()
    };
    for within in ["1", "0.98", "1.02", "0.9991"] {
        let outcomes = evaluate(within);
        assert_eq!(outcomes[0].as_ref().unwrap().value, Decimal::ONE, "{within}");
        assert!(outcomes[1].is_ok(), "{within}");
    }
    for beyond in ["0.9799", "1.0201", "0.5"] {
        let outcomes = evaluate(beyond);
        assert_eq!(outcomes[0], Err(RateRejection::Depegged(parse_decimal(beyond))));
        assert_eq!(outcomes[1], Err(RateRejection::TooFew { found: 2, needed: 3 }), "prices in USDT are ignored");
    }
}

#[test]
fn without_prices_of_usdt_no_price_in_usdt_counts() {
    let observations = build_market_prices("BTC", ["100", "100", "100", "100"], "1");
    let outcomes =
        new_consensus().decide_and_record_rates(NOW, &[usd_pair("USDT"), usd_pair("BTC")], &observations[..5]);
    assert_eq!(outcomes[0].1, Err(RateRejection::TooFew { found: 1, needed: 2 }));
    assert_eq!(outcomes[1].1, Err(RateRejection::TooFew { found: 2, needed: 3 }));
}

#[test]
fn a_jump_is_accepted_after_enough_rounds_in_a_row() {
    let stable = build_market_prices("BTC", ["100", "100", "100", "100"], "1");
    let jumped = build_market_prices("BTC", ["120", "120", "121", "121"], "1");
    let elsewhere = build_market_prices("BTC", ["80", "80", "80", "80"], "1");
    let jump = |to: &str, rounds| {
        Err(RateRejection::Jump { from: parse_decimal("100"), to: parse_decimal(to), rounds, needed: 3 })
    };
    let mut consensus = new_consensus();
    for (observations, expected) in [
        (&stable, Ok(parse_decimal("100"))),
        (&jumped, jump("120.5", 1)),
        (&stable, Ok(parse_decimal("100"))),
        (&jumped, jump("120.5", 1)),
        (&jumped, jump("120.5", 2)),
        (&elsewhere, jump("80", 1)),
        (&jumped, jump("120.5", 1)),
        (&jumped, jump("120.5", 2)),
        (&Vec::new(), Err(RateRejection::TooFew { found: 0, needed: 3 })),
        (&jumped, jump("120.5", 1)),
        (&jumped, jump("120.5", 2)),
        (&jumped, Ok(parse_decimal("120.5"))),
        (&jumped, Ok(parse_decimal("120.5"))),
    ] {
        assert_eq!(evaluate_btc(&mut consensus, observations).map(|agreed| agreed.value), expected);
    }
}

#[test]
fn a_change_within_the_limit_is_accepted_at_once() {
    let mut consensus = new_consensus();
    for price in ["100", "110", "99", "108.9"] {
        assert!(evaluate_btc(&mut consensus, &build_market_prices("BTC", [price; 4], "1")).is_ok(), "{price}");
    }
}

#[test]
fn the_first_round_is_compared_with_the_rate_before_the_restart() {
    let mut consensus = new_consensus();
    consensus.restore_accepted_rate(usd_pair("BTC"), parse_decimal("50"));
    let outcome = evaluate_btc(&mut consensus, &build_market_prices("BTC", ["100"; 4], "1"));
    assert!(matches!(outcome, Err(RateRejection::Jump { rounds: 1, .. })));
}
