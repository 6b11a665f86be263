//! Which rates are accepted. No network, no clock, no database.
//!
//! A round is accepted when enough sources are fresh and near their median, and the median is near the last accepted
//! rate. One that is far from it is a jump: it is accepted when so many rounds in a row agree on it. A crash of the market
//! costs a minute without quotes, a mistake of one round costs nothing. Who knows better sets the pair in [rates.fixed].
//!
//! USDT counts as one dollar, in quotes and as a rate, while its own tickers say so within the guard. Beyond it USDT has
//! no rate, and what is quoted in USDT is not heard.

use std::{collections::BTreeMap, fmt};

use rust_decimal::Decimal;

use super::{
    Observation,
    median::{is_near, median},
};
use clock::Instant;
use config::{Pair, Rates, SourceName};

const PEGGED: &str = "USDT";
const PEG: &str = "USD";

/// A rate that may be used from `at` on, until it is too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Units of the pair's second for one of its first.
    pub value: Decimal,
    /// Those that agree on it, each once.
    pub sources: Vec<SourceName>,
    /// When they agreed.
    pub at: Instant,
}

/// As it is stored with the rate: `median of binance, kraken, okx`.
impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.sources.iter().map(|source| source.as_str()).collect();
        write!(f, "median of {}", names.join(", "))
    }
}

/// Why there is no new rate. The one before stays in force until it is too old, except after a [`Refused::Depegged`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{found} of {needed} sources have a fresh price")]
    TooFew { found: usize, needed: usize },
    #[error("only {found} of {needed} sources are near the median {median}")]
    Disagreement { found: usize, needed: usize, median: Decimal },
    #[error("from {from} to {to} is a jump, seen in {rounds} of {needed} rounds in a row")]
    Jump { from: Decimal, to: Decimal, rounds: u32, needed: u32 },
    #[error("USDT stands at {0} USD, outside the guard of its peg")]
    Depegged(Decimal),
}

/// The last accepted rate of every pair, and the jumps that wait for more rounds.
pub struct RateConsensus {
    limits: Limits,
    tracks: BTreeMap<Pair, PairState>,
}

struct Limits {
    min_sources: usize,
    staleness_ms: i64,
    max_deviation_percent: u32,
    max_jump_percent: u32,
    jump_rounds: u32,
    depeg_percent: u32,
    depeg_min_sources: usize,
}

#[derive(Default)]
struct PairState {
    accepted: Option<Decimal>,
    /// Where it seems to have jumped to, and in how many rounds in a row.
    jump: Option<(Decimal, u32)>,
}

impl RateConsensus {
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
        RateConsensus { limits, tracks: BTreeMap::new() }
    }

    /// Takes up what was accepted before a restart, however long ago: the first round is compared with it.
    pub fn resume(&mut self, pair: Pair, accepted: Decimal) {
        self.tracks.insert(pair, PairState { accepted: Some(accepted), jump: None });
    }

    /// What one round of questions says of these pairs, which are all in USD.
    pub fn round(
        &mut self,
        now: Instant,
        pairs: &[Pair],
        observations: &[Observation],
    ) -> Vec<(Pair, Result<Agreed, Refused>)> {
        let peg = self.limits.peg(now, observations);
        let judge = |pair: &Pair| {
            let track = self.tracks.entry(pair.clone()).or_default();
            let outcome = if *pair == Pair::new(PEGGED, PEG) {
                peg.clone()
            } else {
                let agreed = self.limits.agree(now, pair, observations, peg.is_ok());
                track.follow(agreed, &self.limits)
            };
            (pair.clone(), outcome)
        };
        pairs.iter().map(judge).collect()
    }
}

impl Limits {
    /// The median of the fresh and near ones. What is quoted in USDT counts only while the peg holds.
    fn agree(&self, now: Instant, pair: &Pair, heard: &[Observation], peg_holds: bool) -> Result<Agreed, Refused> {
        let counts = |quote: &str| quote == pair.quote || (peg_holds && pair.quote == PEG && quote == PEGGED);
        let fitting = heard.iter().filter(|heard| heard.pair.base == pair.base && counts(&heard.pair.quote));
        self.median_of(now, fitting, self.min_sources)
    }

    fn peg(&self, now: Instant, heard: &[Observation]) -> Result<Agreed, Refused> {
        let tickers = heard.iter().filter(|heard| heard.pair.base == PEGGED && heard.pair.quote == PEG);
        let agreed = self.median_of(now, tickers, self.depeg_min_sources)?;
        if is_near(agreed.value, Decimal::ONE, self.depeg_percent) {
            Ok(Agreed { value: Decimal::ONE, ..agreed })
        } else {
            Err(Refused::Depegged(agreed.value))
        }
    }

    fn median_of<'a>(
        &self,
        now: Instant,
        heard: impl Iterator<Item = &'a Observation>,
        needed: usize,
    ) -> Result<Agreed, Refused> {
        // One voice for each source, its newest.
        let mut independent_endpoints: BTreeMap<SourceName, &Observation> = BTreeMap::new();
        for observation in heard.filter(|heard| now.since(heard.at) <= self.staleness_ms) {
            let voice = independent_endpoints.entry(observation.source).or_insert(observation);
            if voice.at < observation.at {
                *voice = observation;
            }
        }
        let too_few = || Refused::TooFew { found: independent_endpoints.len(), needed };
        let middle = median_price(&independent_endpoints)
            .filter(|_| independent_endpoints.len() >= needed)
            .ok_or_else(too_few)?;
        let is_far = |voice: &Observation| !is_near(voice.price, middle, self.max_deviation_percent);
        let mut near = independent_endpoints.clone();
        near.retain(|_, voice| !is_far(voice));
        let value = median_price(&near).filter(|_| near.len() >= needed);
        let value = value.ok_or(Refused::Disagreement { found: near.len(), needed, median: middle })?;
        Ok(Agreed { value, sources: near.into_keys().collect(), at: now })
    }
}

fn median_price(independent_endpoints: &BTreeMap<SourceName, &Observation>) -> Option<Decimal> {
    median(&independent_endpoints.values().map(|voice| voice.price).collect::<Vec<Decimal>>())
}

impl PairState {
    fn follow(&mut self, agreed: Result<Agreed, Refused>, limits: &Limits) -> Result<Agreed, Refused> {
        let jump = self.jump.take();
        let agreed = agreed?;
        let to = agreed.value;
        if let Some(from) = self.accepted.filter(|from| !is_near(to, *from, limits.max_jump_percent)) {
            let before = jump.filter(|(seen, _)| is_near(to, *seen, limits.max_jump_percent));
            let rounds = before.map_or(1, |(_, rounds)| rounds + 1);
            if rounds < limits.jump_rounds {
                self.jump = Some((to, rounds));
                return Err(Refused::Jump { from, to, rounds, needed: limits.jump_rounds });
            }
        }
        self.accepted = Some(to);
        Ok(agreed)
    }
}
