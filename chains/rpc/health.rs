//! The health of one endpoint: cool-downs after failures, used rate limits, missing methods and the height of its
//! newest block. This module does no I/O and reads no clock: the time is a parameter.

use std::{collections::HashMap, time::Duration};

use chain::Height;
use tokio::time::Instant;

use crate::rate_limits::{Quota, RateLimits};

/// Duration of the cool-down after the first failure; each further failure in a row doubles it.
const COOL_DOWN_FIRST: Duration = Duration::from_millis(500);
/// The maximum duration of a cool-down, unless the node itself names a longer time to wait.
const COOL_DOWN_MAX: Duration = Duration::from_secs(60);
/// The maximum duration of a cool-down when the node itself names the time to wait. After this time the endpoint gets
/// requests again, because the operator may have raised its rate limit.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// The time for which the endpoint gets no more requests of a method, after the endpoint has replied that it does not
/// offer this method.
const METHOD_MISSING_FOR: Duration = Duration::from_secs(600);
/// The recorded height of an endpoint's newest block is ignored when it is older than this.
const HEAD_AGE_MAX: Duration = Duration::from_secs(60);
/// The maximum number of methods that are recorded as missing for one endpoint. Drivers use about a dozen methods.
const METHODS_MISSING_MAX: usize = 64;

/// The health of one endpoint: how its recent requests ended, and when it may get the next one.
#[derive(Debug)]
pub struct EndpointHealth {
    failures_in_a_row: u32,
    /// The last cool-down, which may be over already; `None` after a successful request.
    cool_down: Option<CoolDown>,
    /// The reason of the last failure; empty before the first failure.
    last_failure: String,
    /// The methods that the endpoint does not offer. Until the time of the entry, no request of the method is sent.
    methods_missing: HashMap<String, Instant>,
    /// Height of the endpoint's newest block and the time at which the height was recorded; `None` before the first
    /// record.
    head: Option<(Height, Instant)>,
    quotas: Vec<Quota>,
}

/// A period in which an endpoint gets no requests, because requests to the endpoint have failed.
#[derive(Debug, Clone, Copy)]
struct CoolDown {
    began_at: Instant,
    ends_at: Instant,
}

/// The availability of an endpoint for a request of one method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// A request may be sent now.
    Now,
    /// The allowed requests of a rate limit are used up until this time.
    RateLimited(Instant),
    /// Requests to the endpoint failed, so it gets no requests until this time.
    CoolingDown(Instant),
    /// The endpoint does not offer the method.
    MethodMissing,
}

impl EndpointHealth {
    /// Returns the health of an endpoint that has not received any request yet.
    pub fn new(limits: RateLimits) -> EndpointHealth {
        let (second, day) = (limits.per_second.map(Quota::per_second), limits.per_day.map(Quota::per_day));
        EndpointHealth {
            failures_in_a_row: 0,
            cool_down: None,
            last_failure: String::new(),
            methods_missing: HashMap::new(),
            head: None,
            quotas: second.into_iter().chain(day).collect(),
        }
    }

    /// Returns whether a request of this method can be sent to the endpoint now and, if not, the reason.
    pub fn availability_for_method(&self, method: &str, now: Instant) -> Availability {
        if self.methods_missing.get(method).is_some_and(|until| *until > now) {
            return Availability::MethodMissing;
        }
        if let Some(cool_down) = self.cool_down.filter(|cool_down| cool_down.ends_at > now) {
            return Availability::CoolingDown(cool_down.ends_at);
        }
        match self.quotas.iter().map(|quota| quota.next_free_time(now)).max().filter(|free_at| *free_at > now) {
            Some(free_at) => Availability::RateLimited(free_at),
            None => Availability::Now,
        }
    }

    /// Returns true if the endpoint is available now, and then subtracts the requests from its rate limits. Otherwise
    /// returns false and subtracts nothing.
    pub fn charge_requests_if_available(&mut self, method: &str, requests: u32, now: Instant) -> bool {
        let available = self.availability_for_method(method, now) == Availability::Now;
        if available {
            self.charge_requests(requests, now);
        }
        available
    }

    /// Subtracts requests from the rate limits, even if the limits are used up.
    pub fn charge_requests(&mut self, requests: u32, now: Instant) {
        for quota in &mut self.quotas {
            quota.charge_requests(requests, now);
        }
    }

    /// Ends the cool-down, because a request that was sent at `sent_at` succeeded. A cool-down that began after
    /// `sent_at` continues, because its reason is newer than this success.
    pub fn end_earlier_cool_down(&mut self, sent_at: Instant) {
        if !self.cool_down_began_since(sent_at) {
            self.failures_in_a_row = 0;
            self.cool_down = None;
        }
    }

    /// Starts or extends the cool-down, because a request that was sent at `sent_at` failed. The cool-down lasts half a
    /// second after the first failure, and each failure in a row doubles it, up to a minute. If the node names a
    /// duration, that duration is used, up to five minutes. Concurrent requests that fail together count as one
    /// failure, and none of these shortens the cool-down.
    pub fn start_or_extend_cool_down(
        &mut self,
        reason: String,
        retry_after: Option<Duration>,
        sent_at: Instant,
        now: Instant,
    ) {
        self.last_failure = reason;
        let current = self.cool_down.filter(|_| self.cool_down_began_since(sent_at));
        if current.is_none() {
            self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        }
        let doublings = self.failures_in_a_row.saturating_sub(1).min(10);
        let back_off = COOL_DOWN_FIRST.saturating_mul(1 << doublings).min(COOL_DOWN_MAX);
        let duration = retry_after.map_or(back_off, |wanted| wanted.min(RETRY_AFTER_MAX).max(COOL_DOWN_FIRST));
        let ends_at = current.map_or(now + duration, |current| current.ends_at.max(now + duration));
        self.cool_down = Some(CoolDown { began_at: now, ends_at });
    }

    /// Returns true if the last cool-down began at `sent_at` or later, so after the request of that time was sent.
    fn cool_down_began_since(&self, sent_at: Instant) -> bool {
        self.cool_down.is_some_and(|cool_down| cool_down.began_at >= sent_at)
    }

    /// Returns the reason of the last failure, or an empty text if there was none.
    pub fn last_failure(&self) -> &str {
        &self.last_failure
    }

    /// Records that the endpoint does not offer a method; the record ends after ten minutes. At most 64 methods are
    /// recorded at a time; further ones are ignored.
    pub fn record_method_missing_for_ten_minutes(&mut self, method: &str, now: Instant) {
        self.methods_missing.retain(|_, until| *until > now);
        if self.methods_missing.len() < METHODS_MISSING_MAX {
            self.methods_missing.insert(method.to_owned(), now + METHOD_MISSING_FOR);
        }
    }

    /// Records the height of the endpoint's newest block.
    pub fn record_head(&mut self, height: Height, now: Instant) {
        self.head = Some((height, now));
    }

    /// Returns the height of the endpoint's newest block if it was recorded within the last minute.
    pub fn recent_head(&self, now: Instant) -> Option<Height> {
        let is_recent = |recorded_at: Instant| now.saturating_duration_since(recorded_at) < HEAD_AGE_MAX;
        self.head.filter(|(_, recorded_at)| is_recent(*recorded_at)).map(|(height, _)| height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_cool_down_doubles_with_each_failure() {
        let start = Instant::now();
        let mut health = EndpointHealth::new(RateLimits::default());
        let mut now = start;
        let cool_downs: Vec<Duration> = (0..9)
            .map(|_| {
                health.start_or_extend_cool_down("refused".into(), None, now, now + seconds(1));
                let Availability::CoolingDown(until) = health.availability_for_method("m", now + seconds(1)) else {
                    panic!("it cools down")
                };
                let duration = until - now - seconds(1);
                now = until;
                duration
            })
            .collect();
        assert_eq!(cool_downs[0], COOL_DOWN_FIRST);
        assert!(cool_downs.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(COOL_DOWN_MAX)));
        assert_eq!(health.availability_for_method("m", now), Availability::Now);
        health.end_earlier_cool_down(now);
        health.start_or_extend_cool_down("refused".into(), None, now, now);
        assert_eq!(
            health.availability_for_method("m", now),
            Availability::CoolingDown(now + COOL_DOWN_FIRST),
            "a success resets the cool-down"
        );
    }

    #[test]
    fn a_request_sent_before_a_cool_down_neither_ends_nor_doubles_it() {
        let start = Instant::now();
        let mut health = EndpointHealth::new(RateLimits::default());
        health.start_or_extend_cool_down("429".into(), Some(seconds(30)), start, start + seconds(1));
        health.end_earlier_cool_down(start);
        assert_eq!(
            health.availability_for_method("m", start + seconds(2)),
            Availability::CoolingDown(start + seconds(31))
        );
        for late in [2, 3] {
            health.start_or_extend_cool_down("429".into(), None, start, start + seconds(late));
            assert_eq!(
                health.availability_for_method("m", start + seconds(late)),
                Availability::CoolingDown(start + seconds(31)),
                "not shorter"
            );
        }
        health.start_or_extend_cool_down("429".into(), Some(seconds(60)), start, start + seconds(4));
        assert_eq!(
            health.availability_for_method("m", start + seconds(5)),
            Availability::CoolingDown(start + seconds(64)),
            "but longer"
        );
        health.end_earlier_cool_down(start + seconds(5));
        assert_eq!(
            health.availability_for_method("m", start + seconds(5)),
            Availability::Now,
            "a request sent during the cool-down succeeded"
        );
        health.start_or_extend_cool_down("429".into(), None, start + seconds(5), start + seconds(5));
        assert_eq!(
            health.availability_for_method("m", start + seconds(5)),
            Availability::CoolingDown(start + seconds(5) + COOL_DOWN_FIRST)
        );
    }

    #[test]
    fn retry_after_is_respected_up_to_a_maximum() {
        let start = Instant::now();
        let mut health = EndpointHealth::new(RateLimits::default());
        health.start_or_extend_cool_down("429".into(), Some(seconds(7)), start, start);
        assert_eq!(health.availability_for_method("m", start), Availability::CoolingDown(start + seconds(7)));
        health.start_or_extend_cool_down("429".into(), Some(seconds(86_400)), start, start);
        assert_eq!(health.availability_for_method("m", start), Availability::CoolingDown(start + RETRY_AFTER_MAX));
    }

    #[test]
    fn a_missing_method_leaves_the_others_available() {
        let start = Instant::now();
        let mut health = EndpointHealth::new(RateLimits::default());
        health.record_method_missing_for_ten_minutes("eth_getBlockReceipts", start);
        assert_eq!(health.availability_for_method("eth_getBlockReceipts", start), Availability::MethodMissing);
        assert_eq!(health.availability_for_method("eth_getLogs", start), Availability::Now);
        assert_eq!(
            health.availability_for_method("eth_getBlockReceipts", start + METHOD_MISSING_FOR),
            Availability::Now
        );
    }

    #[test]
    fn the_limit_per_second_is_kept() {
        let start = Instant::now();
        let mut health = EndpointHealth::new(RateLimits { per_second: Some(15), per_day: None });
        let mut now = start;
        let mut sent = 0u32;
        while now < start + seconds(20) {
            if let Availability::RateLimited(free_at) = health.availability_for_method("m", now) {
                now = free_at;
            }
            assert!(health.charge_requests_if_available("m", 1, now));
            sent += 1;
        }
        assert!((300..=304).contains(&sent), "{sent} requests in 20 s at 15 per second");
    }

    #[test]
    fn the_limit_per_day_is_kept_and_leaves_requests_for_the_last_hour() {
        let start = Instant::now();
        let mut health = EndpointHealth::new(RateLimits { per_second: Some(15), per_day: Some(100_000) });
        let mut now = start;
        let (mut sent, mut last_hour) = (0u32, 0u32);
        while now < start + seconds(86_400) {
            if let Availability::RateLimited(free_at) = health.availability_for_method("m", now) {
                now = free_at;
            }
            assert!(health.charge_requests_if_available("m", 1, now));
            sent += 1;
            last_hour += u32::from(now >= start + seconds(82_800));
        }
        assert!((99_990..=100_001).contains(&sent), "{sent} requests in a day");
        assert!(last_hour > 3_000, "{last_hour} requests in the last hour");
    }

    #[test]
    fn a_batch_delays_the_requests_after_it() {
        let start = Instant::now();
        let mut health = EndpointHealth::new(RateLimits { per_second: Some(10), per_day: None });
        health.charge_requests(20, start);
        assert_eq!(
            health.availability_for_method("m", start + seconds(1)),
            Availability::RateLimited(start + seconds(2) - Duration::from_millis(100))
        );
    }

    #[test]
    fn an_old_head_is_ignored() {
        let start = Instant::now();
        let mut health = EndpointHealth::new(RateLimits::default());
        health.record_head(7, start);
        assert_eq!(health.recent_head(start), Some(7));
        assert_eq!(health.recent_head(start + HEAD_AGE_MAX), None);
    }
}
