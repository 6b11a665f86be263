//! The configuration of a pool.

use std::time::Duration;

use crate::{ChainCheck, Endpoint};

/// Time by which the head of an endpoint may be behind the best one before it gets requests last; one block in any case.
const HEAD_LAG_MAX: Duration = Duration::from_secs(30);

/// The endpoints of a chain and the limits for requests to them.
#[derive(Debug, Clone)]
pub struct Config {
    /// Endpoints in order of preference: a later one gets a request when the earlier ones fail, cool down or have used up
    /// their rate limits.
    pub endpoints: Vec<Endpoint>,
    /// Maximum time for one request over all endpoints.
    pub deadline: Duration,
    /// Maximum size of one reply.
    pub body_bytes_max: usize,
    /// Maximum number of calls in one JSON-RPC batch, whatever a driver asks for; 1 sends no batches.
    pub batch_max: usize,
    /// Maximum number of batches under way at once.
    pub concurrency: usize,
    /// Number of blocks by which the head of an endpoint may be behind the best one before it gets requests last.
    pub head_lag_blocks_max: u64,
    /// Request that every endpoint must answer as expected before any other reply of it is accepted.
    pub chain_check: Option<ChainCheck>,
}

impl Config {
    /// The default limits: 10 seconds, replies of 64 MiB, three batches of 100 calls at once, and a lag of three blocks.
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

    /// Sets the maximum lag of heads to the number of blocks in half a minute, at least one.
    pub fn with_block_time(mut self, block_time: Duration) -> Config {
        let blocks = HEAD_LAG_MAX.as_millis().div_ceil(block_time.as_millis().max(1));
        self.head_lag_blocks_max = u64::try_from(blocks).unwrap_or(u64::MAX);
        self
    }
}

/// Why a pool cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no endpoint with the role `read` is configured")]
    NoReadEndpoint,
    #[error("the HTTP client cannot be built: {0}")]
    Client(#[from] reqwest::Error),
}
