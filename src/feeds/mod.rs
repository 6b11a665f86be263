//! Exchange rates over HTTP: what exchanges say, and what may be believed of it.
//!
//! [`Feeds`] asks and believes nothing; [`RateConsensus`] decides and asks nothing. Without enough sources that agree there is
//! no rate: everything here fails closed, and running quotes keep the rate they were given.

mod ask;
mod consensus;
mod median;
mod vendors;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Mutex};

use futures_util::future::join_all;
use rust_decimal::Decimal;
use tracing::{debug, warn};
use url::Url;

pub use ask::FeedError;
pub use consensus::{Agreed, RateConsensus, Refused};

use clock::{Clock, Instant};
use config::{Pair, Rates, SourceName};

/// What one source said: units of the pair's second for one of its first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub source: SourceName,
    /// As the source quotes it, such as BTC/USDT where BTC/USD was wanted.
    pub pair: Pair,
    /// Above zero.
    pub price: Decimal,
    /// When it was true, by the source if it says so; never after it was received.
    pub at: Instant,
}

/// The exchanges, with a rest for those that asked for one.
pub struct Feeds {
    client: reqwest::Client,
    sources: Vec<(SourceName, Url)>,
    clock: Clock,
    resting: Mutex<BTreeMap<SourceName, Instant>>,
}

impl Feeds {
    pub fn new(config: &Rates, clock: Clock) -> Result<Feeds, FeedError> {
        let located = |source: &SourceName| Some((*source, config.urls.get(source)?.clone()));
        let sources = config.sources.iter().filter_map(located).collect();
        Ok(Feeds { client: ask::client(config.timeout)?, sources, clock, resting: Mutex::default() })
    }

    /// Asks every source for what it quotes of these pairs. Sources that fail are logged and left out.
    pub async fn observe(&self, pairs: &[Pair]) -> Vec<Observation> {
        let mut observations = Vec::new();
        for (source, answer) in self.ask(pairs).await {
            match answer {
                Ok(said) => observations.extend(said),
                Err(FeedError::Resting) => debug!(%source, "{source} is given a rest"),
                Err(error) => warn!(%source, "no rates from {source}: {error}"),
            }
        }
        observations
    }

    /// The same with the failures: for `settled check`.
    pub async fn ask(&self, pairs: &[Pair]) -> Vec<(SourceName, Result<Vec<Observation>, FeedError>)> {
        let answers =
            self.sources.iter().map(async |(source, root)| (*source, self.ask_one(*source, root, pairs).await));
        join_all(answers).await
    }

    async fn ask_one(&self, source: SourceName, root: &Url, pairs: &[Pair]) -> Result<Vec<Observation>, FeedError> {
        if self.is_resting(source) {
            return Err(FeedError::Resting);
        }
        let quoted: Vec<Pair> = pairs.iter().filter(|pair| vendors::quotes(source, pair)).cloned().collect();
        let answer = match self.ask_for(source, root, &quoted).await {
            // One pair that it does not know spoils the whole question.
            Err(FeedError::Refused(_)) if quoted.len() > 1 && vendors::takes_several(source) => {
                self.ask_singly(source, root, &quoted).await
            }
            answer => answer,
        };
        if let Err(FeedError::Limited { seconds }) = &answer {
            self.rest(source, *seconds);
        }
        answer
    }

    async fn ask_for(&self, source: SourceName, root: &Url, pairs: &[Pair]) -> Result<Vec<Observation>, FeedError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        if !vendors::takes_several(source) {
            return self.ask_singly(source, root, pairs).await;
        }
        let body = ask::get(&self.client, vendors::url(source, root, pairs)).await?;
        vendors::read(source, pairs, &body, self.clock.now())
    }

    /// One question for each pair; pairs that the source does not have are no failure, unless it has none.
    async fn ask_singly(&self, source: SourceName, root: &Url, pairs: &[Pair]) -> Result<Vec<Observation>, FeedError> {
        let (mut said, mut refused) = (Vec::new(), None);
        for pair in pairs.chunks(1) {
            let body = ask::get(&self.client, vendors::url(source, root, pair)).await;
            match body.and_then(|body| vendors::read(source, pair, &body, self.clock.now())) {
                Ok(observations) => said.extend(observations),
                Err(error @ FeedError::Refused(_)) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) if said.is_empty() => Err(error),
            Some(_) | None => Ok(said),
        }
    }

    fn is_resting(&self, source: SourceName) -> bool {
        let resting = self.resting.lock().expect("no holder of the rests panics");
        resting.get(&source).is_some_and(|until| self.clock.now() < *until)
    }

    fn rest(&self, source: SourceName, seconds: u32) {
        let until = self.clock.now().plus_seconds(seconds.into());
        self.resting.lock().expect("no holder of the rests panics").insert(source, until);
    }
}
