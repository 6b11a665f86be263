//! The state that the pool keeps for one endpoint.

use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};

use crate::{AdaptiveSize, Endpoint, Provider, health::EndpointHealth, pool::Config};

/// One endpoint with its health, its batch size and the result of its chain check.
pub struct EndpointState {
    /// URL, roles, rate limits and credentials, as configured.
    pub endpoint: Endpoint,
    /// The provider of the endpoint.
    pub provider: Provider,
    health: Mutex<EndpointHealth>,
    /// The number of calls that the endpoint accepts in one batch, as far as its replies have shown.
    batch_size: Mutex<AdaptiveSize>,
    /// True if the endpoint has passed [`Config::chain_check`] or no check is configured.
    pub chain_verified: AtomicBool,
    /// The lock that a request holds while it sends the chain check, so that concurrent requests do not send the check
    /// twice.
    pub chain_check_lock: tokio::sync::Mutex<()>,
}

impl EndpointState {
    /// Returns the state of an endpoint that has not received any request yet.
    pub fn new(endpoint: &Endpoint, config: &Config) -> EndpointState {
        EndpointState {
            endpoint: endpoint.clone(),
            provider: endpoint.provider(),
            health: Mutex::new(EndpointHealth::new(endpoint.limits())),
            batch_size: Mutex::new(AdaptiveSize::new(u64::MAX, u64::MAX)),
            chain_verified: AtomicBool::new(config.chain_check.is_none()),
            chain_check_lock: tokio::sync::Mutex::new(()),
        }
    }

    /// Locks and returns the health of the endpoint.
    pub fn lock_health(&self) -> MutexGuard<'_, EndpointHealth> {
        self.health.lock().expect("no panic while health is locked")
    }

    /// Locks and returns the number of calls that the endpoint accepts in one batch, as far as its replies have shown.
    pub fn lock_batch_size(&self) -> MutexGuard<'_, AdaptiveSize> {
        self.batch_size.lock().expect("no panic while the batch size is locked")
    }

    /// Returns the maximum number of calls in one batch: the configured maximum or the endpoint's limit of requests per
    /// second, whichever is lower. The pool sends no batch if the number is below 2.
    pub fn batch_max(&self, config: &Config) -> usize {
        let per_second = self.endpoint.limits().per_second.unwrap_or(u32::MAX);
        config.batch_max.min(usize::try_from(per_second).unwrap_or(usize::MAX))
    }
}
