//! Refreshes the exchange rates: requests tickers, accepts the rates that enough exchanges agree on, and withdraws
//! those of assets that lost their peg.

use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;
use tokio::sync::Mutex;
use tracing::warn;

use crate::feeds::{Feeds, RateConsensus, RateRefusal};
use crate::workers::{Ran, Worker};
use clock::{Clock, Instant};
use config::{self, Pair};
use db::Db;
use money::assets::Assets;
use money::pricing::{self, Rate, RateBook};

/// The currency of all requested pairs; rates in other currencies are computed from it.
const USD: &str = "USD";

/// A rate book with the configured fixed rates, which never become stale.
pub fn configured_rate_book(settings: &config::Rates) -> RateBook {
    let stale_after_ms = i64::try_from(settings.staleness.as_millis()).unwrap_or(i64::MAX);
    let book = RateBook::new(stale_after_ms, settings.spread_basis_points);
    for (pair, value) in &settings.fixed {
        let rate = Rate { value: *value, source: "configured".into(), observed_at: Instant(i64::MAX) };
        book.set_rate(&pair.base, &pair.quote, rate);
    }
    book
}

/// Refreshes the rates that are not configured.
pub struct RateWorker {
    db: Db,
    clock: Clock,
    feeds: Feeds,
    book: RateBook,
    /// The pairs to request: those of all assets without a configured rate.
    pairs: Vec<Pair>,
    refresh: Duration,
    state: Mutex<RefreshState>,
}

struct RefreshState {
    consensus: RateConsensus,
    /// The start of the last refresh.
    last_at: Option<Instant>,
    /// True after the stored rates were loaded.
    resumed: bool,
}

impl RateWorker {
    /// A worker that refreshes the pairs of all assets without a configured rate.
    pub fn new(
        db: Db,
        clock: Clock,
        settings: &config::Rates,
        assets: &Assets,
        feeds: Feeds,
        book: RateBook,
    ) -> RateWorker {
        let mut pairs: Vec<Pair> = assets.list_all_payment_assets().map(|asset| Pair::new(&asset.rate_symbol, USD)).collect();
        pairs.sort();
        pairs.dedup();
        pairs.retain(|pair| !settings.fixed.contains_key(pair));
        let state = Mutex::new(RefreshState { consensus: RateConsensus::new(settings), last_at: None, resumed: false });
        RateWorker { db, clock, feeds, book, pairs, refresh: settings.refresh, state }
    }

    /// Loads the last accepted rates, from which jumps of the first new rates are measured.
    async fn resume(&self, consensus: &mut RateConsensus) -> anyhow::Result<()> {
        for pair in &self.pairs {
            let wanted = pair.clone();
            let last = self
                .db
                .read("find_rate", move |tx| {
                    Box::pin(async move { pricing::find_accepted_rate(tx, &wanted.base, &wanted.quote).await })
                })
                .await?;
            if let Some(last) = last {
                consensus.restore(pair.clone(), last.value);
            }
        }
        Ok(())
    }

    async fn accept(&self, pair: Pair, value: Decimal, source: String, at: Instant) -> anyhow::Result<()> {
        let rate = Rate { value, source, observed_at: at };
        let (accepted, accepted_pair) = (rate.clone(), pair.clone());
        self.db
            .write("accept_rate", move |tx| {
                Box::pin(async move { pricing::store_accepted_rate(tx, &accepted_pair.base, &accepted_pair.quote, &accepted).await })
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

    fn pause(&self) -> Duration {
        self.refresh
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        let refresh_ms = i64::try_from(self.refresh.as_millis()).unwrap_or(i64::MAX);
        if self.pairs.is_empty() || state.last_at.is_some_and(|last_at| now.since(last_at) < refresh_ms) {
            return Ok(Ran::Idle);
        }
        if !state.resumed {
            self.resume(&mut state.consensus).await?;
            state.resumed = true;
        }
        state.last_at = Some(now);
        let tickers = self.feeds.observe(&self.pairs).await;
        for (pair, outcome) in state.consensus.evaluate_round(self.clock.now(), &self.pairs, &tickers) {
            match outcome {
                Ok(agreed) => self.accept(pair, agreed.value, agreed.to_string(), agreed.at).await?,
                Err(refused) => {
                    warn!(%pair, "no new rate for {pair}: {refused}");
                    match refused {
                        RateRefusal::Depegged(_) => self.book.remove_rate(&pair.base, &pair.quote),
                        // The last rate is used until it is stale.
                        RateRefusal::TooFew { .. } | RateRefusal::Disagreement { .. } | RateRefusal::Jump { .. } => {}
                    }
                }
            }
        }
        Ok(Ran::Idle)
    }
}
