//! The configuration of a pool.

use std::time::Duration;

use crate::{ChainCheck, Endpoint};

/// The maximum time by which the newest block of an endpoint may be behind the newest block of all endpoints. The pool
/// uses an endpoint that is further behind only after all others. One block behind is always allowed.
const HEAD_LAG_MAX: Duration = Duration::from_secs(30);

/// The endpoints of a chain and the limits for requests to them.
#[derive(Debug, Clone)]
pub struct Config {
    /// Endpoints in order of preference. A later endpoint gets a request only when all earlier endpoints fail, cool
    /// down or have exhausted their rate limits.
    pub endpoints: Vec<Endpoint>,
    /// Maximum time for one request, for all endpoints together.
    pub deadline: Duration,
    /// Maximum size of one reply, in bytes.
    pub body_bytes_max: usize,
    /// Maximum number of calls in one JSON-RPC batch, even if a driver requests more. With 1, the pool sends no
    /// batches.
    pub batch_max: usize,
    /// Maximum number of concurrent batches.
    pub concurrency: usize,
    /// The maximum number of blocks by which the newest block of an endpoint may be below the highest newest block of
    /// all endpoints. The pool uses an endpoint that is further behind only after all others.
    pub head_lag_blocks_max: u64,
    /// Check of the chain that every endpoint must pass before the pool uses it; `None` disables the check.
    pub chain_check: Option<ChainCheck>,
}

impl Config {
    /// Returns a configuration with the default limits: a deadline of 10 seconds, replies of 64 MiB, three concurrent
    /// batches of 100 calls, and endpoints that are at most three blocks behind the highest endpoint.
    pub fn new(endpoints: Vec<Endpoint>) -> Config {
        Config {
            endpoints,
            deadline: Duration::from_secs(10),
            body_bytes_max: 64 << 20,
            batch_max: 100,
            concurrency: 3,
            head_lag_blocks_max: 3,
            chain_check: None,
        }
    }

    /// Sets `head_lag_blocks_max` to the number of blocks that the chain produces in 30 seconds, at least one.
    /// `block_time` is the time between two blocks.
    pub fn with_head_lag_for_block_time(mut self, block_time: Duration) -> Config {
        let blocks = HEAD_LAG_MAX.as_millis().div_ceil(block_time.as_millis().max(1));
        self.head_lag_blocks_max = u64::try_from(blocks).unwrap_or(u64::MAX);
        self
    }
}

/// The reason why a pool cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No configured endpoint has the role `read`.
    #[error("no endpoint with the role `read` is configured")]
    NoReadEndpoint,
    /// The HTTP client cannot be built, for example because its TLS backend cannot be initialised.
    #[error("the HTTP client cannot be built: {0}")]
    Client(#[from] reqwest::Error),
}
