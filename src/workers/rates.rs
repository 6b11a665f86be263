//! Refreshes the exchange rates: requests prices, accepts a rate when enough exchanges agree on it, and withdraws a
//! rate when the market has moved far from it, when the exchanges disagree, or when USDT has lost its peg.

use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;
use tokio::sync::Mutex;
use tracing::warn;

use crate::feeds::{Feeds, RateConsensus, RateRejection};
use crate::workers::{Ran, Worker};
use clock::{Clock, Instant};
use config::{self, Pair};
use db::Db;
use money::assets::Assets;
use money::pricing::{self, Rate, RateBook};

/// The quote currency of all requested pairs. Rates in other currencies are computed from the rates in USD.
const USD: &str = "USD";

/// Returns a rate book with the fixed rates of the configuration, which never become stale.
pub fn build_fixed_rate_book(settings: &config::Rates) -> RateBook {
    let stale_after_ms = i64::try_from(settings.staleness.as_millis()).unwrap_or(i64::MAX);
    let book = RateBook::new(stale_after_ms, settings.spread_basis_points);
    for (pair, value) in &settings.fixed {
        let rate = Rate { value: *value, source: "configured".into(), observed_at: Rate::CONFIGURED };
        book.set_rate(&pair.base, &pair.quote, rate);
    }
    book
}

/// The worker that refreshes the rates of all pairs without a fixed rate in the configuration.
pub struct RateWorker {
    db: Db,
    clock: Clock,
    feeds: Feeds,
    book: RateBook,
    /// The pairs to request: one for each asset without a fixed rate.
    pairs: Vec<Pair>,
    refresh: Duration,
    state: Mutex<RefreshState>,
}

struct RefreshState {
    consensus: RateConsensus,
    /// The time at which the last refresh started; `None` before the first refresh.
    last_at: Option<Instant>,
    /// True after the last accepted rates of an earlier process were loaded from the database.
    last_rates_loaded: bool,
}

impl RateWorker {
    /// Creates a worker that refreshes the pairs of all assets without a fixed rate.
    pub fn new(
        db: Db,
        clock: Clock,
        settings: &config::Rates,
        assets: &Assets,
        feeds: Feeds,
        book: RateBook,
    ) -> RateWorker {
        let mut pairs: Vec<Pair> =
            assets.list_all_payment_assets().map(|asset| Pair::new(&asset.rate_symbol, USD)).collect();
        pairs.sort();
        pairs.dedup();
        pairs.retain(|pair| !settings.fixed.contains_key(pair));
        let state = Mutex::new(RefreshState {
            consensus: RateConsensus::new(settings),
            last_at: None,
            last_rates_loaded: false,
        });
        RateWorker { db, clock, feeds, book, pairs, refresh: settings.refresh, state }
    }

    /// Loads the last accepted rates from the database into `consensus`, which compares the first new rates with them
    /// to detect jumps.
    async fn restore_last_accepted_rates(&self, consensus: &mut RateConsensus) -> anyhow::Result<()> {
        for pair in &self.pairs {
            let wanted = pair.clone();
            let last = self
                .db
                .read("find_newest_accepted_rate", move |tx| {
                    Box::pin(async move { pricing::find_newest_accepted_rate(tx, &wanted.base, &wanted.quote).await })
                })
                .await?;
            if let Some(last) = last {
                consensus.restore_accepted_rate(pair.clone(), last.value);
            }
        }
        Ok(())
    }

    /// Stores an accepted rate in the database, and then puts it into the rate book, from which prices are computed.
    async fn store_accepted_rate(&self, pair: Pair, value: Decimal, source: String, at: Instant) -> anyhow::Result<()> {
        let rate = Rate { value, source, observed_at: at };
        let (accepted, accepted_pair) = (rate.clone(), pair.clone());
        self.db
            .write("store_accepted_rate", move |tx| {
                Box::pin(async move {
                    pricing::store_accepted_rate(tx, &accepted_pair.base, &accepted_pair.quote, &accepted).await
                })
            })
            .await?;
        self.book.set_rate(&pair.base, &pair.quote, rate);
        Ok(())
    }
}

#[async_trait]
impl Worker for RateWorker {
    fn name(&self) -> String {
        "rates".into()
    }

    fn idle_pause(&self) -> Duration {
        self.refresh
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        let refresh_ms = i64::try_from(self.refresh.as_millis()).unwrap_or(i64::MAX);
        // When the last refresh lies in the future, the clock was set back, so the rates are requested again.
        let is_recent = |last_at: Instant| (0..refresh_ms).contains(&now.since(last_at));
        if self.pairs.is_empty() || state.last_at.is_some_and(is_recent) {
            return Ok(Ran::Idle);
        }
        if !state.last_rates_loaded {
            self.restore_last_accepted_rates(&mut state.consensus).await?;
            state.last_rates_loaded = true;
        }
        state.last_at = Some(now);
        let tickers = self.feeds.request_prices_logging_failures(&self.pairs).await;
        for (pair, outcome) in state.consensus.decide_and_record_rates(self.clock.now(), &self.pairs, &tickers) {
            match outcome {
                Ok(agreed) => self.store_accepted_rate(pair, agreed.value, agreed.to_string(), agreed.at).await?,
                Err(refused) => {
                    warn!(%pair, "no new rate for {pair}: {refused}");
                    match refused {
                        // The last rate is probably wrong now, so nothing is quoted with it until a later round gives a
                        // new rate.
                        RateRejection::Depegged(_)
                        | RateRejection::Disagreement { .. }
                        | RateRejection::Jump { .. } => self.book.remove_rate(&pair.base, &pair.quote),
                        // The last rate is used until it is stale.
                        RateRejection::TooFew { .. } => {}
                    }
                }
            }
        }
        Ok(Ran::Idle)
    }
}
