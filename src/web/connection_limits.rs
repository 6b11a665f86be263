//! Limits the number of open connections, in total and per client, so that one client cannot use all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use access::limits::Key;
use config::{IpNetwork, Server};

/// The limits of open connections, and the connections that are open now.
pub struct ConnectionLimits {
    /// Maximum number of open connections of all clients.
    total: u32,
    free: Arc<Semaphore>,
    /// Maximum number of open connections of one client.
    per_client: u32,
    /// The trusted proxies. The limit for each client does not apply to them, because each proxy forwards the
    /// connections of many clients.
    trusted_proxies: Vec<IpNetwork>,
    open: OpenConnections,
}

/// The number of open connections of each client.
type OpenConnections = Arc<Mutex<HashMap<Key, u32>>>;

/// The permission for one connection. The connection counts as open until the permit is dropped.
pub struct ConnectionPermit {
    _total: OwnedSemaphorePermit,
    client: Option<(Key, OpenConnections)>,
}

impl ConnectionLimits {
    /// Takes the limits from the configuration, and raises the process's limit of open descriptors to the hard limit.
    /// At most half of the descriptors are used for connections; a higher configured number is reduced with a warning.
    pub fn new(server: &Server) -> ConnectionLimits {
        let total = server.connections_max.min(raise_descriptor_limit() / 2);
        if total < server.connections_max {
            warn!(
                "server.connections_max is reduced from {} to {total}, because the process may not open more descriptors; \
                 raise LimitNOFILE in the unit, or `ulimit -n`",
                server.connections_max
            );
        }
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        ConnectionLimits {
            total,
            free: Arc::new(Semaphore::new(usize::try_from(total).unwrap_or(Semaphore::MAX_PERMITS))),
            per_client: server.connections_per_client,
            trusted_proxies: server.trusted_proxies.clone(),
            open: Arc::default(),
        }
    }

    /// Waits until fewer connections are open than the limit for all clients together, and reserves one of the free
    /// ones. Dropping the permit frees it.
    pub async fn wait_and_reserve_connection(&self) -> OwnedSemaphorePermit {
        self.free.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Waits until no connection is open, and no free one is reserved.
    pub async fn wait_until_all_closed(&self) {
        let all = self.free.acquire_many(self.total).await;
        drop(all.expect("the semaphore is never closed"));
    }

    /// Counts a connection of this client as open, and returns the permit that ends the count when it is dropped;
    /// `None` when the client has reached its limit. Trusted proxies have no such limit.
    pub fn admit_connection_within_client_limit(
        &self,
        free: OwnedSemaphorePermit,
        peer: IpAddr,
    ) -> Option<ConnectionPermit> {
        let peer = peer.to_canonical();
        if self.trusted_proxies.iter().any(|network| network.contains_address(peer)) {
            return Some(ConnectionPermit { _total: free, client: None });
        }
        let key = Key::from_ipv4_or_ipv6_network(peer);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = open.entry(key).or_default();
        if *of_client >= self.per_client {
            return None;
        }
        *of_client += 1;
        Some(ConnectionPermit { _total: free, client: Some((key, self.open.clone())) })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Some((key, open)) = &self.client else { return };
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_client) = open.get_mut(key) {
            *of_client -= 1;
            if *of_client == 0 {
                open.remove(key);
            }
        }
    }
}

/// Raises the process's limit of open files and sockets to the hard limit, and returns the new limit. The soft limit is
/// low by default to protect programs that use `select(2)`; the daemon does not use `select(2)`.
fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.and_then(|current| usize::try_from(current).ok()).unwrap_or(usize::MAX)
}
