//! Keeps the exchange rates fresh: requests prices from the exchanges, stores the rates on which enough exchanges
//! agree, and withdraws the rate of USDT when its peg is lost.

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

/// The currency in which all assets are quoted; rates in other currencies are computed from it.
const USD: &str = "USD";

/// Returns a rate book with the fixed rates of the configuration. A fixed rate never becomes stale.
pub fn book(settings: &config::Rates) -> RateBook {
    let stale_after_ms = i64::try_from(settings.staleness.as_millis()).unwrap_or(i64::MAX);
    let book = RateBook::new(stale_after_ms, settings.spread_basis_points);
    for (pair, value) in &settings.fixed {
        let rate = Rate { value: *value, source: "configured".into(), observed_at: Instant(i64::MAX) };
        book.set(&pair.base, &pair.quote, rate);
    }
    book
}

/// Refreshes the exchange rates of all assets without a configured rate.
pub struct Rates {
    db: Db,
    clock: Clock,
    feeds: Feeds,
    book: RateBook,
    /// The pairs to request: one for each asset without a fixed rate.
    pairs: Vec<Pair>,
    refresh: Duration,
    round: Mutex<Round>,
}

struct Round {
    consensus: RateConsensus,
    last: Option<Instant>,
    resumed: bool,
}

impl Rates {
    /// Creates the worker. Accepted rates are written to `book` and to the database.
    pub fn new(db: Db, clock: Clock, settings: &config::Rates, coins: &Assets, feeds: Feeds, book: RateBook) -> Rates {
        let mut pairs: Vec<Pair> = coins.all().map(|coin| Pair::new(&coin.rate_symbol, USD)).collect();
        pairs.sort();
        pairs.dedup();
        pairs.retain(|pair| !settings.fixed.contains_key(pair));
        let round = Mutex::new(Round { consensus: RateConsensus::new(settings), last: None, resumed: false });
        Rates { db, clock, feeds, book, pairs, refresh: settings.refresh, round }
    }

    /// Loads the last accepted rates, so that the first round is compared with them and a jump is noticed.
    async fn resume(&self, consensus: &mut RateConsensus) -> anyhow::Result<()> {
        for pair in &self.pairs {
            let wanted = pair.clone();
            let last = self
                .db
                .read("find_rate", move |tx| {
                    Box::pin(async move { pricing::find_accepted(tx, &wanted.base, &wanted.quote).await })
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
        let (stored, of) = (rate.clone(), pair.clone());
        self.db
            .write("accept_rate", move |tx| {
                Box::pin(async move { pricing::accept(tx, &of.base, &of.quote, &stored).await })
            })
            .await?;
        self.book.set(&pair.base, &pair.quote, rate);
        Ok(())
    }
}

#[async_trait]
impl Worker for Rates {
    fn name(&self) -> String {
        "rates".into()
    }

    fn pause(&self) -> Duration {
        self.refresh
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        let mut round = self.round.lock().await;
        let now = self.clock.now();
        let refresh_ms = i64::try_from(self.refresh.as_millis()).unwrap_or(i64::MAX);
        if self.pairs.is_empty() || round.last.is_some_and(|last| now.since(last) < refresh_ms) {
            return Ok(Ran::Idle);
        }
        if !round.resumed {
            self.resume(&mut round.consensus).await?;
            round.resumed = true;
        }
        round.last = Some(now);
        let heard = self.feeds.observe(&self.pairs).await;
        for (pair, outcome) in round.consensus.evaluate_round(self.clock.now(), &self.pairs, &heard) {
            match outcome {
                Ok(agreed) => self.accept(pair, agreed.value, agreed.to_string(), agreed.at).await?,
                Err(refused) => {
                    warn!(%pair, "no new rate for {pair}: {refused}");
                    match refused {
                        RateRefusal::Depegged(_) => self.book.withdraw(&pair.base, &pair.quote),
                        // The last rate stays in use until it is too old.
                        RateRefusal::TooFew { .. } | RateRefusal::Disagreement { .. } | RateRefusal::Jump { .. } => {}
                    }
                }
            }
        }
        Ok(Ran::Idle)
    }
}
