//! The rate limits of endpoints: requests per second and per day. This module does no I/O and reads no clock: the time
//! is a parameter.

use std::time::Duration;

use tokio::time::Instant;

/// The rate limits of an endpoint; `None` means that there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Maximum number of requests per second.
    pub per_second: Option<u32>,
    /// Maximum number of requests in 24 hours.
    pub per_day: Option<u32>,
}

/// A rate limit that spaces requests evenly in time, but allows some requests at once (a burst). A batch may be sent as
/// soon as its first request is allowed; all its requests then delay later requests.
#[derive(Debug)]
pub struct Quota {
    /// The time between two requests at an even pace.
    interval: Duration,
    /// The length of the burst: requests may be sent earlier than the even pace by at most this time.
    burst: Duration,
    /// The time at which the next request is due at an even pace; `None` before the first request.
    charged_until: Option<Instant>,
}

impl Quota {
    /// Returns a limit of `allowed` requests per second. The requests of a quarter of a second may be sent at once.
    pub fn per_second(allowed: u32) -> Quota {
        let interval = Duration::from_secs(1) / allowed.max(1);
        Quota { interval, burst: interval.saturating_mul((allowed / 4).max(1) - 1), charged_until: None }
    }

    /// Returns a limit of `allowed` requests per day. A quarter of the requests may be sent at once, to catch up with
    /// the chain. The others are spread over the day, so that some are left in its last hour. The requests of one
    /// process in any 24 hours stay within the limit.
    pub fn per_day(allowed: u32) -> Quota {
        let at_once = (allowed / 4).max(1);
        let interval = Duration::from_secs(86_400) / allowed.saturating_sub(at_once).max(1);
        Quota { interval, burst: interval.saturating_mul(at_once - 1), charged_until: None }
    }

    /// Returns the time from which the next request is allowed, which may be in the past.
    pub fn next_free_time(&self, now: Instant) -> Instant {
        self.charged_until.and_then(|until| until.checked_sub(self.burst)).unwrap_or(now)
    }

    /// Subtracts requests from the limit, even if the limit is used up.
    pub fn charge_requests(&mut self, requests: u32, now: Instant) {
        let start = self.charged_until.map_or(now, |until| until.max(now));
        self.charged_until = Some(start + self.interval.saturating_mul(requests));
    }
}
