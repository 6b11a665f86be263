//! Decides which exchange rates are accepted, without network, clock and database.
//!
//! A rate is accepted when enough recent prices are near their median, and the median is near the last accepted rate. A
//! median far from the last rate is a jump, which is accepted after several rounds in a row with about the same median.
//! Until then the pair has no rate: a wrong price in a single round changes no quote, and after a market crash no
//! invoice is quoted at the old price. The operator can set the rate of a pair in `[rates.fixed]`.
//!
//! USDT counts as one US dollar, both as quote currency and as a rate, while its own prices are near one dollar.
//! Otherwise USDT has no rate, and prices quoted in USDT are ignored.

use std::{collections::BTreeMap, fmt};

use rust_decimal::Decimal;

use super::{
    Observation,
    price_math::{compute_median, is_within_percent},
};
use clock::Instant;
use config::{ExchangeName, Pair, Rates};

/// The stablecoin that counts as one unit of [`PEG_CURRENCY`].
const PEGGED_ASSET: &str = "USDT";
/// The currency to which the stablecoin is pegged.
const PEG_CURRENCY: &str = "USD";

/// A rate that enough sources agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgreedRate {
    /// The price of one unit of the base asset, in units of the quote currency.
    pub value: Decimal,
    /// The sources whose prices are near the median, each once.
    pub sources: Vec<ExchangeName>,
    /// The time at which the rate was accepted. A rate becomes stale some time after it.
    pub at: Instant,
}

/// Formats the text that is stored as the source of the rate, such as `median of binance, kraken, okx`.
impl fmt::Display for AgreedRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.sources.iter().map(|source| source.as_str()).collect();
        write!(f, "median of {}", names.join(", "))
    }
}

/// The reason why a round of requests gives no new rate. After [`RateRejection::TooFew`], the previous rate is used
/// until it is stale; after every other reason, the previous rate is withdrawn at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateRejection {
    /// Too few exchanges have a recent price.
    #[error("{found} of {needed} required sources have a recent price")]
    TooFew { found: usize, needed: usize },
    /// Too few exchanges have a price near the median.
    #[error("only {found} of {needed} required sources are near the median {median}")]
    Disagreement { found: usize, needed: usize, median: Decimal },
    /// The median is far from the last accepted rate (a jump), and too few rounds in a row have had this median.
    #[error("the rate jumps from {from} to {to}, confirmed by {rounds} of {needed} required rounds in a row")]
    Jump { from: Decimal, to: Decimal, rounds: u32, needed: u32 },
    /// The price of USDT in US dollars is too far from one.
    #[error("USDT is at {0} USD, too far from its peg")]
    Depegged(Decimal),
}

/// The last accepted rate of every pair, and the jumps that are not accepted yet.
pub struct RateConsensus {
    limits: Limits,
    states: BTreeMap<Pair, PairState>,
}

/// The limits from the configuration that decide whether the prices of a round give a rate.
struct Limits {
    min_sources: usize,
    staleness_ms: i64,
    max_deviation_percent: u32,
    max_jump_percent: u32,
    jump_rounds: u32,
    depeg_percent: u32,
    depeg_min_sources: usize,
}

/// The last accepted rate of one pair, and a jump of this pair that is not accepted yet.
#[derive(Default)]
struct PairState {
    /// The last accepted rate; `None` when no rate was accepted yet.
    accepted: Option<Decimal>,
    /// The median of a jump that is not accepted yet, and the number of rounds in a row with this median; `None`
    /// without a jump.
    jump: Option<(Decimal, u32)>,
}

impl RateConsensus {
    /// Creates a consensus without accepted rates, with the limits of the configuration.
    pub fn new(config: &Rates) -> RateConsensus {
        let limits = Limits {
            min_sources: config.min_sources,
            staleness_ms: i64::try_from(config.staleness.as_millis()).unwrap_or(i64::MAX),
            max_deviation_percent: config.max_deviation_percent,
            max_jump_percent: config.max_jump_percent,
            jump_rounds: config.jump_rounds,
            depeg_percent: config.depeg_percent,
            depeg_min_sources: config.depeg_min_sources,
        };
        RateConsensus { limits, states: BTreeMap::new() }
    }

    /// Sets the rate that an earlier process accepted last, so that the first round can detect a jump. Forgets a jump
    /// of this pair that is not accepted yet.
    pub fn restore_accepted_rate(&mut self, pair: Pair, accepted: Decimal) {
        self.states.insert(pair, PairState { accepted: Some(accepted), jump: None });
    }

    /// Decides the rates of these pairs from the prices of one round of requests, and keeps accepted rates and jumps
    /// for the next round. All pairs are quoted in USD; a fixed rate of one is returned for USDT while it is pegged.
    pub fn decide_and_record_rates(
        &mut self,
        now: Instant,
        pairs: &[Pair],
        observations: &[Observation],
    ) -> Vec<(Pair, Result<AgreedRate, RateRejection>)> {
        let peg = self.limits.find_rate_of_one_if_usdt_pegged(now, observations);
        let evaluate = |pair: &Pair| {
            let state = self.states.entry(pair.clone()).or_default();
            let outcome = if *pair == Pair::new(PEGGED_ASSET, PEG_CURRENCY) {
                peg.clone()
            } else {
                let agreed = self.limits.find_agreed_rate(now, pair, observations, peg.is_ok());
                state.record_rate_or_delay_jump(agreed, &self.limits)
            };
            (pair.clone(), outcome)
        };
        pairs.iter().map(evaluate).collect()
    }
}

impl Limits {
    /// Returns the rate of a pair that enough sources agree on. Prices in USDT are used only when `peg_holds` is true,
    /// so that one USDT is worth about one US dollar.
    fn find_agreed_rate(
        &self,
        now: Instant,
        pair: &Pair,
        observations: &[Observation],
        peg_holds: bool,
    ) -> Result<AgreedRate, RateRejection> {
        let counts =
            |quote: &str| quote == pair.quote || (peg_holds && pair.quote == PEG_CURRENCY && quote == PEGGED_ASSET);
        let matching = observations
            .iter()
            .filter(|observation| observation.pair.base == pair.base && counts(&observation.pair.quote));
        self.find_agreed_median(now, matching, self.min_sources)
    }

    /// Returns a rate of one for USDT while its prices are near one US dollar, or [`RateRejection::Depegged`] while
    /// they are not.
    fn find_rate_of_one_if_usdt_pegged(
        &self,
        now: Instant,
        observations: &[Observation],
    ) -> Result<AgreedRate, RateRejection> {
        let tickers = observations
            .iter()
            .filter(|observation| observation.pair.base == PEGGED_ASSET && observation.pair.quote == PEG_CURRENCY);
        let agreed = self.find_agreed_median(now, tickers, self.depeg_min_sources)?;
        if is_within_percent(agreed.value, Decimal::ONE, self.depeg_percent) {
            Ok(AgreedRate { value: Decimal::ONE, ..agreed })
        } else {
            Err(RateRejection::Depegged(agreed.value))
        }
    }

    /// Returns the median of those recent prices that are near the median of all recent prices. Fails when fewer than
    /// `needed` sources have a recent price, or when fewer than `needed` prices are near the median.
    fn find_agreed_median<'a>(
        &self,
        now: Instant,
        observations: impl Iterator<Item = &'a Observation>,
        needed: usize,
    ) -> Result<AgreedRate, RateRejection> {
        // Each exchange counts once, with its newest price.
        let mut newest_by_source: BTreeMap<ExchangeName, &Observation> = BTreeMap::new();
        for observation in observations.filter(|observation| now.since(observation.at) <= self.staleness_ms) {
            let newest = newest_by_source.entry(observation.source).or_insert(observation);
            if newest.at < observation.at {
                *newest = observation;
            }
        }
        let too_few = || RateRejection::TooFew { found: newest_by_source.len(), needed };
        let median =
            compute_median_price(&newest_by_source).filter(|_| newest_by_source.len() >= needed).ok_or_else(too_few)?;
        let is_far =
            |observation: &Observation| !is_within_percent(observation.price, median, self.max_deviation_percent);
        let mut near = newest_by_source.clone();
        near.retain(|_, observation| !is_far(observation));
        let value = compute_median_price(&near).filter(|_| near.len() >= needed);
        let value = value.ok_or(RateRejection::Disagreement { found: near.len(), needed, median })?;
        Ok(AgreedRate { value, sources: near.into_keys().collect(), at: now })
    }
}

/// Returns the median of the prices of these exchanges; `None` when there are no prices.
fn compute_median_price(newest_by_source: &BTreeMap<ExchangeName, &Observation>) -> Option<Decimal> {
    compute_median(&newest_by_source.values().map(|observation| observation.price).collect::<Vec<Decimal>>())
}

impl PairState {
    /// Records the rate of a round as the last accepted one and returns it. A rate far from the last accepted one is a
    /// jump: it is returned as [`RateRejection::Jump`] until `jump_rounds` rounds in a row have had it.
    fn record_rate_or_delay_jump(
        &mut self,
        agreed: Result<AgreedRate, RateRejection>,
        limits: &Limits,
    ) -> Result<AgreedRate, RateRejection> {
        let jump = self.jump.take();
        let agreed = agreed?;
        let to = agreed.value;
        if let Some(from) = self.accepted.filter(|from| !is_within_percent(to, *from, limits.max_jump_percent)) {
            let previous = jump.filter(|(seen, _)| is_within_percent(to, *seen, limits.max_jump_percent));
            let rounds = previous.map_or(1, |(_, rounds)| rounds + 1);
            if rounds < limits.jump_rounds {
                self.jump = Some((to, rounds));
                return Err(RateRejection::Jump { from, to, rounds, needed: limits.jump_rounds });
            }
        }
        self.accepted = Some(to);
        Ok(agreed)
    }
}
