//! Rate limits in memory: exact sliding windows for few hits, token buckets for many. Both forget what no longer counts,
//! and neither grows past its bound. A key is a keyed hash: what a stranger sends cannot aim at one place of the table.

mod bucket;
mod window;

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

pub use bucket::Buckets;
pub use window::{Rule, Windows};

/// Who is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    pub fn of(subject: impl Hash) -> Key {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Key(HASHER.hash_one(subject))
    }

    /// An IPv6 client owns a whole /64 network and is counted by it; a mapped IPv4 address is that IPv4 address.
    pub fn ip(address: IpAddr) -> Key {
        match address.to_canonical() {
            IpAddr::V4(v4) => Key::of(v4),
            IpAddr::V6(v6) => Key::of(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        }
    }
}

/// Too many: the same call is admitted again after so many seconds, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit is exceeded for another {after_seconds} s")]
pub struct Limited {
    pub after_seconds: u64,
}

impl Limited {
    fn after_ms(ms: i64) -> Limited {
        Limited { after_seconds: u64::try_from(ms).unwrap_or(0).div_ceil(1000).max(1) }
    }
}
