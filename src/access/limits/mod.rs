//! Rate limits in memory: exact sliding windows for small limits, token buckets for large limits. A hit is one request
//! that a limit counts, and hits are counted for each key. Both kinds of limits remove entries that they no longer
//! need, and both store a bounded number of entries. A key is a hash with a secret seed, so a client cannot choose
//! inputs whose keys collide.

mod bucket;
mod window;

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

pub use bucket::Buckets;
pub use window::{Rule, Windows};

/// The key under which hits are counted: a hash of the client's IP address or of another subject, such as an order
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// Returns the key of a subject, such as an IP address, or a pair of order number and e-mail address.
    pub fn from_subject(subject: impl Hash) -> Key {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Key(HASHER.hash_one(subject))
    }

    /// Returns the key of a client's IP address. An IPv6 client is counted by its /64 network, because the client can
    /// use every address of this network. An IPv4 address that is mapped to IPv6 counts as an IPv4 address.
    pub fn from_ipv4_or_ipv6_network(address: IpAddr) -> Key {
        match address.to_canonical() {
            IpAddr::V4(v4) => Key::from_subject(v4),
            IpAddr::V6(v6) => Key::from_subject(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        }
    }
}

/// The error of a hit that exceeds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit is exceeded for another {after_seconds} s")]
pub struct Limited {
    /// The number of seconds until the limit admits the next hit of the same key; at least 1.
    pub after_seconds: u64,
}

impl Limited {
    /// Returns the error for a hit that must wait `ms` milliseconds. The wait is rounded up to seconds.
    fn from_wait_ms(ms: i64) -> Limited {
        Limited { after_seconds: u64::try_from(ms).unwrap_or(0).div_ceil(1000).max(1) }
    }
}
