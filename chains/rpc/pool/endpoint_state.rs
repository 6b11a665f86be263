//! What the pool knows about one endpoint.

use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};

use crate::{AdaptiveSize, Endpoint, health::Health, pool::Config};

/// One endpoint with its health and what the pool learnt about it.
pub struct EndpointState {
    pub endpoint: Endpoint,
    health: Mutex<Health>,
    batch_size: Mutex<AdaptiveSize>,
    /// The endpoint has passed [`Config::chain_check`], or there is none.
    pub chain_verified: AtomicBool,
    /// Held during the chain check, so that it is sent once.
    pub chain_check_lock: tokio::sync::Mutex<()>,
}

impl EndpointState {
    pub fn new(endpoint: &Endpoint, config: &Config) -> EndpointState {
        EndpointState {
            endpoint: endpoint.clone(),
            health: Mutex::new(Health::new(endpoint.limits())),
            batch_size: Mutex::new(AdaptiveSize::new(u64::MAX, u64::MAX)),
            chain_verified: AtomicBool::new(config.chain_check.is_none()),
            chain_check_lock: tokio::sync::Mutex::new(()),
        }
    }

    pub fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("no panic while health is locked")
    }

    /// The number of calls that the endpoint accepts in one batch, as learnt so far.
    pub fn batch_size(&self) -> MutexGuard<'_, AdaptiveSize> {
        self.batch_size.lock().expect("no panic while the batch size is locked")
    }

    /// Returns the maximum number of calls in one batch, at most the endpoint's limit per second. Below 2 no batch is sent.
    pub fn batch_max(&self, config: &Config) -> usize {
        let per_second = self.endpoint.limits().per_second.unwrap_or(u32::MAX);
        config.batch_max.min(usize::try_from(per_second).unwrap_or(usize::MAX))
    }
}
