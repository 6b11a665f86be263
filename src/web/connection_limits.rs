//! Places for connections: so many in all, and so many of each client, so that nobody takes all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use access::limits::Key;
use config::{IpNetwork, Server};

pub struct ConnectionLimits {
    all: u32,
    free: Arc<Semaphore>,
    per_client: u32,
    /// They bring the connections of many clients.
    trusted: Vec<IpNetwork>,
    of_client: Taken,
}

/// How many places each client has.
type Taken = Arc<Mutex<HashMap<Key, u32>>>;

/// A place that is taken until this is dropped.
pub struct ConnectionPermit {
    _place: OwnedSemaphorePermit,
    client: Option<(Key, Taken)>,
}

impl ConnectionLimits {
    pub fn new(server: &Server) -> ConnectionLimits {
        let all = server.connections_max.min(descriptors() / 2);
        if all < server.connections_max {
            warn!("{all} connections at once instead of {}: the process may open no more", server.connections_max);
        }
        let all = u32::try_from(all).unwrap_or(u32::MAX);
        ConnectionLimits {
            all,
            free: Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(Semaphore::MAX_PERMITS))),
            per_client: server.connections_per_client,
            trusted: server.trusted_proxies.clone(),
            of_client: Arc::default(),
        }
    }

    /// Waits until one is free.
    pub async fn place(&self) -> OwnedSemaphorePermit {
        self.free.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Waits until all are.
    pub async fn all(&self) {
        let all = self.free.acquire_many(self.all).await;
        drop(all.expect("the semaphore is never closed"));
    }

    /// `None` for a client that has as many as one may have.
    pub fn admit(&self, place: OwnedSemaphorePermit, peer: IpAddr) -> Option<ConnectionPermit> {
        let peer = peer.to_canonical();
        if self.trusted.iter().any(|network| network.contains(peer)) {
            return Some(ConnectionPermit { _place: place, client: None });
        }
        let key = Key::ip(peer);
        let mut of_client = self.of_client.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = of_client.entry(key).or_default();
        if *taken >= self.per_client {
            return None;
        }
        *taken += 1;
        Some(ConnectionPermit { _place: place, client: Some((key, self.of_client.clone())) })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Some((key, of_client)) = &self.client else { return };
        let mut of_client = of_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = of_client.get_mut(key) {
            *taken -= 1;
            if *taken == 0 {
                of_client.remove(key);
            }
        }
    }
}

/// How many files and sockets the process may open. The usual limit of a shell is low for the sake of programs that use
/// `select`, which this one does not: it is raised as far as it may be. Nodes and databases need some as well.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.and_then(|current| usize::try_from(current).ok()).unwrap_or(usize::MAX)
}
