//! Stories of exchange rates, from the exchanges' prices to the quoted amount. One server plays all exchanges, each
//! with its own response format; workers, database, quotes and surface are the daemon's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use clock::Clock;
use config::{Config, ExchangeName, RatesMode};
use db::Backend;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

use crate::world::World;

const SOURCES: [ExchangeName; 4] =
    [ExchangeName::Binance, ExchangeName::Kraken, ExchangeName::Coinbase, ExchangeName::Okx];
const BASES: [&str; 2] = ["ETH", "USDT"];
/// The polling interval and the maximum age of a rate: the defaults of the configuration.
const ROUND_SECONDS: i64 = 30;
const STALE_SECONDS: i64 = 120;
/// Ten items cost 5 CNY, and one dollar costs 7.24 CNY.
const QUANTITY: u32 = 10;

/// The prices that the exchanges report, in dollars.
#[derive(Default)]
struct Market {
    prices: BTreeMap<&'static str, String>,
    /// The exchange reports this price, in dollars, for every asset.
    odd: Option<(ExchangeName, String)>,
    /// All exchanges answer with HTTP 503.
    silent: bool,
}

/// A world whose rates come from played exchanges. USD/CNY is configured, because no exchange quotes it.
struct Trading {
    world: World,
    market: Arc<Mutex<Market>>,
    task: JoinHandle<()>,
}

impl Trading {
    async fn start(backend: Backend) -> Trading {
        let market = Arc::new(Mutex::new(Market::default()));
        let clock = Arc::new(Mutex::new(Clock::manual(crate::world::START)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let root = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let app = Router::new().fallback(answer).with_state((market.clone(), clock.clone()));
        #[expect(clippy::disallowed_methods, reason = "a stand-in ends with its test, not with the daemon's tasks")]
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("the listener lives") });
        market.lock().unwrap().prices = [("ETH", "3200".to_owned()), ("USDT", "1.0001".to_owned())].into();
        let world = World::with(backend, |config: &mut Config| {
            config.rates.mode = RatesMode::Feeds;
            // The played exchanges are fast, but the machine may be busy.
            config.rates.timeout = Duration::from_secs(60);
            config.rates.fixed.retain(|pair, _| !BASES.contains(&pair.base.as_str()));
            let of = |source: ExchangeName| format!("{root}/{}", source.as_str()).parse::<Url>().expect("an address");
            config.rates.urls = SOURCES.map(|source| (source, of(source))).into();
        })
        .await;
        *clock.lock().unwrap() = world.clock.clone();
        Trading { world, market, task }
    }

    fn set(&self, base: &'static str, dollars: &str) {
        self.market.lock().unwrap().prices.insert(base, dollars.to_owned());
    }

    /// Advances the clock by one interval and lets the worker poll the exchanges.
    async fn round(&self) {
        self.world.advance_seconds(ROUND_SECONDS);
        self.world.run_until_idle().await;
    }

    /// Returns the quoted amount, in whole coins.
    async fn due(&self, coin: &'static str) -> String {
        self.world.order(QUANTITY, coin).await.text_at("payment.expected_amount")
    }

    async fn is_refused(&self, coin: &'static str) -> bool {
        let wish = json!({
            "productId": self.world.product.id, "quantity": QUANTITY, "contactEmail": "buyer@example.com",
            "paymentMethod": "crypto", "coin": coin,
        });
        let answer = self.world.post("/api/orders", &wish).await;
        match answer.status {
            201 => false,
            400 if answer.text_at("error") == "payment_method_unavailable" => true,
            _ => panic!("{}", answer.text),
        }
    }
}

impl Drop for Trading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = (Arc<Mutex<Market>>, Arc<Mutex<Clock>>);

async fn answer(State((market, clock)): State<Shared>, uri: Uri) -> Response {
    let (market, now) = (market.lock().unwrap(), clock.lock().unwrap().now());
    if market.silent {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let source = SOURCES.into_iter().find(|source| path.starts_with(&format!("/{}/", source.as_str())));
    let source = source.unwrap_or_else(|| panic!("{uri} is no exchange"));
    let asked = |base: &&&str| path.contains(**base) || query.contains(**base);
    // Exchanges that quote in USDT have USDT in every symbol.
    let quoted_in_usdt = matches!(source, ExchangeName::Binance | ExchangeName::Okx);
    let asked = BASES.iter().filter(|base| !(quoted_in_usdt && **base == "USDT")).filter(asked);
    let price = |base: &str| match &market.odd {
        Some((odd, price)) if *odd == source => price.clone(),
        Some(_) | None => market.prices[base].clone(),
    };
    let tickers = asked.map(|base| (*base, price(base)));
    let said: Value = match source {
        ExchangeName::Binance => tickers
            .map(|(base, price)| json!({ "symbol": format!("{base}USDT"), "lastPrice": price, "closeTime": now.0 }))
            .collect(),
        ExchangeName::Kraken => {
            let ticker = |(base, price): (&str, String)| {
                (format!("{base}USD"), json!({ "a": [price, "1", "1"], "b": [price, "1", "1"] }))
            };
            json!({ "error": [], "result": tickers.map(ticker).collect::<Map<_, _>>() })
        }
        ExchangeName::Coinbase => {
            tickers.map(|(_, price)| json!({ "price": price, "time": now.to_string() })).next().unwrap_or_default()
        }
        ExchangeName::Okx => {
            let ticker = |(base, price): (&str, String)| json!({ "instId": format!("{base}-USDT"), "last": price, "ts": now.0.to_string() });
            json!({ "code": "0", "msg": "", "data": tickers.map(ticker).collect::<Vec<_>>() })
        }
    };
    said.to_string().into_response()
}

both! {
    async fn quotes_use_the_rate_that_exchanges_agree_on(trading: Trading) {
        assert_eq!(trading.due("eth").await, "0.00021582", "5 / 7.24 / 3200, rounded up");
        assert_eq!(trading.due("trc20_usdt").await, "0.69061", "USDT counts as a dollar while it is near one");
        trading.set("ETH", "3360");
        assert_eq!(trading.due("eth").await, "0.00021582", "until they are asked again");
        trading.round().await;
        assert_eq!(trading.due("eth").await, "0.00020554");
        // A single exchange with a wrong price is outvoted.
        for odd in ["32", "999999"] {
            trading.market.lock().unwrap().odd = Some((ExchangeName::Okx, odd.to_owned()));
            trading.round().await;
            assert_eq!(trading.due("eth").await, "0.00020554");
        }
    }

    async fn nobody_pays_by_the_old_price_after_a_jump(trading: Trading) {
        trading.set("ETH", "4200");
        for _ in 0..2 {
            trading.round().await;
            assert!(trading.is_refused("eth").await, "the market has left the old price");
            assert!(!trading.is_refused("trc20_usdt").await);
        }
        trading.round().await;
        assert_eq!(trading.due("eth").await, "0.00016444");
        // A jump that does not last is over at once.
        trading.set("ETH", "3200");
        trading.round().await;
        assert!(trading.is_refused("eth").await);
        trading.set("ETH", "4200");
        trading.round().await;
        assert_eq!(trading.due("eth").await, "0.00016444");
    }

    async fn a_clock_that_is_set_back_does_not_keep_old_rates_fresh(trading: Trading) {
        trading.market.lock().unwrap().silent = true;
        trading.world.clock.advance_ms_unless_system(-3_600_000);
        trading.world.run_until_idle().await;
        assert!(trading.is_refused("eth").await, "the age of the rate is unknown");
        assert!(!trading.is_refused("btc").await, "its rate is configured");
        trading.market.lock().unwrap().silent = false;
        trading.set("ETH", "3360");
        trading.round().await;
        assert_eq!(trading.due("eth").await, "0.00020554", "the exchanges are asked again, and not an hour later");
    }

    async fn a_small_step_of_the_clock_keeps_the_rates(trading: Trading) {
        trading.market.lock().unwrap().silent = true;
        trading.world.clock.advance_ms_unless_system(-4_000);
        assert_eq!(trading.due("eth").await, "0.00021582");
    }

    async fn the_last_rate_is_used_for_two_minutes_without_exchanges(trading: Trading) {
        let open = trading.world.order(QUANTITY, "eth").await;
        trading.market.lock().unwrap().silent = true;
        for _ in 0..STALE_SECONDS / ROUND_SECONDS {
            trading.round().await;
            assert_eq!(trading.due("eth").await, "0.00021582");
        }
        trading.round().await;
        assert!(trading.is_refused("eth").await);
        assert!(!trading.is_refused("btc").await, "its rate is configured");
        let status = trading.world.status(&open.text_at("order.id")).await;
        assert_eq!(status.text_at("payment.expected_amount"), "0.00021582", "a quote that was given stands");
        trading.market.lock().unwrap().silent = false;
        trading.set("ETH", "3360");
        trading.round().await;
        assert_eq!(trading.due("eth").await, "0.00020554");
    }

    async fn a_depegged_stablecoin_is_not_offered(trading: Trading) {
        trading.set("USDT", "0.95");
        trading.round().await;
        assert!(trading.is_refused("trc20_usdt").await, "at once, however young its rate");
        // Two exchanges quote in USDT and are ignored. The other two exchanges are fewer than required.
        assert!(!trading.is_refused("eth").await);
        for _ in 0..=STALE_SECONDS / ROUND_SECONDS {
            trading.round().await;
        }
        assert!(trading.is_refused("eth").await);
        trading.set("USDT", "0.999");
        trading.round().await;
        assert_eq!(trading.due("trc20_usdt").await, "0.69061");
        assert_eq!(trading.due("eth").await, "0.00021582");
    }

    async fn a_restart_does_not_reset_the_jump_limit(trading: Trading) {
        trading.set("ETH", "320");
        trading.world.advance_seconds(3_600);
        trading.world.crash_and_boot().await;
        assert!(trading.is_refused("eth").await, "the rate of an hour ago is what it is compared with");
        trading.round().await;
        assert!(trading.is_refused("eth").await);
        trading.round().await;
        assert_eq!(trading.due("eth").await, "0.0021582");
    }
}
