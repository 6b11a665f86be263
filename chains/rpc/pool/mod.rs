//! The endpoints of one chain. When one endpoint fails, the pool sends the request to the next one.
//!
//! A request goes to each endpoint at most once. The exception is an endpoint that rejected the request without
//! processing it, because the endpoint got too many requests. If no endpoint is available, the pool waits for rate
//! limits and cool-downs that end before the deadline. An error with which a node replies does not count against the
//! health of the endpoint. Failed, slow, throttled and invalid replies do count, each once.

mod config;
mod endpoint_state;
mod selection;
mod second_source;
mod failover;
mod single_endpoint;
mod broadcast;
mod batch;
mod chain_check;
mod exchange_results;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use chain::Height;
use tokio::time::Instant;

use self::endpoint_state::EndpointState;
pub use self::{
    batch::CallResults,
    chain_check::ChainCheck,
    config::{Config, ConfigError},
};
use crate::{
    Endpoint, Rejection, Reply, Request, Role, RpcError, Target, Verdict,
    http::{Exchange, HttpClient, TransportError},
};

/// The endpoints of one chain.
pub struct Pool {
    client: HttpClient,
    endpoints: Vec<EndpointState>,
    config: Config,
    requests_sent: AtomicU64,
}

impl Pool {
    /// Returns a pool of the configured endpoints. Sends no request.
    ///
    /// # Errors
    /// Fails if no endpoint has the role `read`, or if the HTTP client cannot be built.
    pub fn new(config: Config) -> Result<Pool, ConfigError> {
        if !config.endpoints.iter().any(|endpoint| endpoint.has_role(Role::Read)) {
            return Err(ConfigError::NoReadEndpoint);
        }
        Ok(Pool {
            client: HttpClient::without_redirects_or_proxy()?,
            endpoints: config.endpoints.iter().map(|endpoint| EndpointState::new(endpoint, &config)).collect(),
            config,
            requests_sent: AtomicU64::new(0),
        })
    }

    /// Sends a request to the endpoints that its target allows, one after another, until `accept` accepts a reply, and
    /// returns the accepted value. Without an accepted reply, the first value marked as [`Verdict::Fallback`] is
    /// returned.
    ///
    /// # Errors
    /// Fails if no endpoint gave a usable reply before the deadline; see [`RpcError`].
    pub async fn send_request<T, F>(&self, request: Request, accept: F) -> Result<T, RpcError>
    where
        F: FnMut(&Reply<'_>) -> Result<Verdict<T>, Rejection>,
    {
        match request.target {
            Target::Any | Target::From(_) | Target::Excluding(_) => self.send_with_failover(&request, accept).await,
            Target::Only(endpoint) => self.send_to_single_endpoint_unchecked(endpoint, &request, accept).await,
            Target::Probe(endpoint) => self.probe_endpoint_ignoring_health(endpoint, &request, accept).await,
        }
    }

    /// Returns the number of requests sent since the start. Every call of a batch counts, because providers bill each
    /// call.
    pub fn requests_sent(&self) -> u64 {
        self.requests_sent.load(Ordering::Relaxed)
    }

    /// Returns the endpoints in the order in which the configuration lists them.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &Endpoint> {
        self.endpoints.iter().map(|state| &state.endpoint)
    }

    /// Records the height of an endpoint's newest block. If this block is too far behind those of the other endpoints,
    /// the pool uses the endpoint only after all others.
    pub fn record_head(&self, endpoint: usize, height: Height) {
        if let Some(state) = self.endpoints.get(endpoint) {
            state.lock_health().record_head(height, Instant::now());
        }
    }

    /// Returns the height of each endpoint's newest block. The element is `None` for an endpoint whose height was not
    /// recorded within the last minute.
    pub fn recent_heads(&self) -> Vec<Option<Height>> {
        let now = Instant::now();
        self.endpoints.iter().map(|state| state.lock_health().recent_head(now)).collect()
    }

    /// Returns a text of a node in which every secret from the endpoint's URL and headers is replaced by `…`.
    pub fn redact_secrets(&self, endpoint: usize, text: &str) -> String {
        self.endpoints.get(endpoint).map_or_else(String::new, |state| state.endpoint.redact_secrets(text))
    }

    /// Returns host and port of an endpoint, or `?` if there is no endpoint with this index.
    pub fn endpoint_label(&self, endpoint: usize) -> String {
        self.endpoints.get(endpoint).map_or_else(|| "?".to_owned(), |state| state.endpoint.host_and_port())
    }

    /// Sends one HTTP request to one endpoint and adds `requests`, its number of calls, to [`Pool::requests_sent`].
    async fn count_and_send_http_request(
        &self,
        endpoint: usize,
        request: &Request,
        requests: u32,
        timeout: Duration,
    ) -> Result<Exchange, TransportError> {
        self.requests_sent.fetch_add(u64::from(requests), Ordering::Relaxed);
        self.client
            .send_and_read_bounded_reply(
                &self.endpoints[endpoint].endpoint,
                request,
                timeout,
                self.config.body_bytes_max,
            )
            .await
    }

    /// Returns the latest time at which a wait before a request may end. A tenth of the configured time is then left
    /// for the reply.
    fn latest_wait_end(&self, deadline: Instant) -> Instant {
        deadline - self.config.deadline / 10
    }
}
