//! Requests the prices of pairs from all configured exchanges.

use std::{collections::BTreeMap, sync::Mutex};

use futures_util::future::join_all;
use tracing::{debug, warn};
use url::Url;

use super::{FeedError, Observation, exchanges, http};
use clock::{Clock, Instant};
use config::{ExchangeName, Pair, Rates};

/// The configured exchanges. When an exchange replies that it got too many requests, it gets no requests for the time
/// in its `Retry-After` header.
pub struct Feeds {
    client: reqwest::Client,
    sources: Vec<(ExchangeName, Url)>,
    clock: Clock,
    paused_until: Mutex<BTreeMap<ExchangeName, Instant>>,
}

impl Feeds {
    /// Creates the feeds for the configured exchanges that have a URL. Sends no request.
    ///
    /// # Errors
    /// Fails when the HTTP client cannot be built.
    pub fn new(config: &Rates, clock: Clock) -> Result<Feeds, FeedError> {
        let with_url = |source: &ExchangeName| Some((*source, config.urls.get(source)?.clone()));
        let sources = config.sources.iter().filter_map(with_url).collect();
        Ok(Feeds {
            client: http::build_http_client_without_redirects(config.timeout)?,
            sources,
            clock,
            paused_until: Mutex::default(),
        })
    }

    /// Requests the prices of these pairs from every exchange. A failure of an exchange is logged, and its prices are
    /// left out.
    pub async fn request_prices_logging_failures(&self, pairs: &[Pair]) -> Vec<Observation> {
        let mut observations = Vec::new();
        for (source, result) in self.request_prices_by_exchange(pairs).await {
            match result {
                Ok(observed) => observations.extend(observed),
                Err(FeedError::Paused) => debug!(%source, "{source} is paused after it limited the request rate"),
                Err(error) => warn!(%source, "no rates from {source}: {error}"),
            }
        }
        observations
    }

    /// Requests the prices of these pairs from every exchange, and returns the prices or the error of each exchange by
    /// its name.
    pub async fn request_prices_by_exchange(
        &self,
        pairs: &[Pair],
    ) -> Vec<(ExchangeName, Result<Vec<Observation>, FeedError>)> {
        let requests = self.sources.iter().map(async |(source, root)| {
            (*source, self.request_prices_pausing_when_limited(*source, root, pairs).await)
        });
        join_all(requests).await
    }

    /// Requests prices from one exchange, unless the exchange is paused. Pairs that the exchange cannot have are not
    /// requested. When the exchange rejects all pairs together, they are requested one by one. When it limits the
    /// request rate, it is paused.
    async fn request_prices_pausing_when_limited(
        &self,
        source: ExchangeName,
        root: &Url,
        pairs: &[Pair],
    ) -> Result<Vec<Observation>, FeedError> {
        if self.is_exchange_paused(source) {
            return Err(FeedError::Paused);
        }
        let available: Vec<Pair> =
            pairs.iter().filter(|pair| exchanges::may_have_market(source, pair)).cloned().collect();
        let result = match self.request_pairs_together_if_accepted(source, root, &available).await {
            // An exchange that does not know one of the pairs rejects the whole request.
            Err(FeedError::Rejected(_))
                if available.len() > 1 && exchanges::accepts_several_pairs_per_request(source) =>
            {
                self.request_pairs_one_by_one_until_failure(source, root, &available).await
            }
            result => result,
        };
        if let Err(FeedError::RateLimited { seconds }) = &result {
            self.pause_exchange(source, *seconds);
        }
        result
    }

    /// Requests these pairs from one exchange: in a single request when the exchange accepts several pairs, otherwise
    /// one by one.
    async fn request_pairs_together_if_accepted(
        &self,
        source: ExchangeName,
        root: &Url,
        pairs: &[Pair],
    ) -> Result<Vec<Observation>, FeedError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        if !exchanges::accepts_several_pairs_per_request(source) {
            return self.request_pairs_one_by_one_until_failure(source, root, pairs).await;
        }
        let body = http::fetch_successful_response_body(&self.client, exchanges::build_ticker_url(source, root, pairs))
            .await?;
        exchanges::parse_ticker_response(source, pairs, &body, self.clock.now())
    }

    /// Sends one request per pair. Pairs that the exchange does not know are left out. When a request fails for another
    /// reason, no further request is sent and the prices that were already received are returned. Fails when no price
    /// was received.
    async fn request_pairs_one_by_one_until_failure(
        &self,
        source: ExchangeName,
        root: &Url,
        pairs: &[Pair],
    ) -> Result<Vec<Observation>, FeedError> {
        let (mut observations, mut failure) = (Vec::new(), None);
        for pair in pairs.chunks(1) {
            let body =
                http::fetch_successful_response_body(&self.client, exchanges::build_ticker_url(source, root, pair))
                    .await;
            match body.and_then(|body| exchanges::parse_ticker_response(source, pair, &body, self.clock.now())) {
                Ok(observed) => observations.extend(observed),
                Err(error @ FeedError::Rejected(_)) => failure = Some(error),
                Err(error) => {
                    if let FeedError::RateLimited { seconds } = &error {
                        self.pause_exchange(source, *seconds);
                    }
                    failure = Some(error);
                    break;
                }
            }
        }
        match failure {
            Some(error) if observations.is_empty() => Err(error),
            Some(_) | None => Ok(observations),
        }
    }

    /// Returns true while no request may be sent to this exchange, because it limited the request rate.
    fn is_exchange_paused(&self, source: ExchangeName) -> bool {
        let paused_until = self.paused_until.lock().expect("no panic while the pauses are locked");
        paused_until.get(&source).is_some_and(|until| self.clock.monotonic_now() < *until)
    }

    /// Sends no requests to this exchange for the given number of seconds.
    fn pause_exchange(&self, source: ExchangeName, seconds: u32) {
        let until = self.clock.monotonic_now().plus_seconds(seconds.into());
        self.paused_until.lock().expect("no panic while the pauses are locked").insert(source, until);
    }
}
