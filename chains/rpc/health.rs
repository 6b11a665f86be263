//! Whether an endpoint may be asked now. Pure: the time is a parameter.

use std::{collections::HashMap, time::Duration};

use chain::Height;
use tokio::time::Instant;

const COOL_DOWN_FIRST: Duration = Duration::from_millis(500);
const COOL_DOWN_MAX: Duration = Duration::from_secs(60);
/// A provider may ask for more patience than this; it is asked again anyway, because quotas are often reset by hand.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// How long a missing method is believed to be missing.
const MISSING_FOR: Duration = Duration::from_secs(600);
/// A head seen longer ago says nothing.
const HEAD_FRESH_FOR: Duration = Duration::from_secs(60);
/// Bound of the table of missing methods; drivers know a dozen.
const MISSING_MAX: usize = 64;

#[derive(Debug)]
pub struct Health {
    failures: u32,
    rest: Option<Rest>,
    last_trouble: String,
    missing: HashMap<String, Instant>,
    head: Option<(Height, Instant)>,
    quotas: Vec<Quota>,
}

/// A time in which an endpoint is left alone.
#[derive(Debug, Clone, Copy)]
struct Rest {
    began: Instant,
    until: Instant,
}

/// When an endpoint may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    Now,
    /// The quota is used up until then.
    At(Instant),
    /// It failed lately and rests.
    Cooling(Instant),
    /// It does not know the method.
    Missing,
}

impl Health {
    pub fn new(limits: Limits) -> Health {
        let (second, day) = (limits.per_second.map(Quota::per_second), limits.per_day.map(Quota::per_day));
        Health {
            failures: 0,
            rest: None,
            last_trouble: String::new(),
            missing: HashMap::new(),
            head: None,
            quotas: second.into_iter().chain(day).collect(),
        }
    }

    pub fn ready(&self, method: &str, now: Instant) -> Availability {
        if self.missing.get(method).is_some_and(|until| *until > now) {
            return Availability::Missing;
        }
        if let Some(rest) = self.rest.filter(|rest| rest.until > now) {
            return Availability::Cooling(rest.until);
        }
        match self.quotas.iter().map(|quota| quota.free_at(now)).max().filter(|at| *at > now) {
            Some(at) => Availability::At(at),
            None => Availability::Now,
        }
    }

    /// Takes its turn if it may be asked now.
    pub fn claim(&mut self, method: &str, requests: u32, now: Instant) -> bool {
        let free = self.ready(method, now) == Availability::Now;
        if free {
            self.take(requests, now);
        }
        free
    }

    /// Counts requests that are sent in any case.
    pub fn take(&mut self, requests: u32, now: Instant) {
        for quota in &mut self.quotas {
            quota.take(requests, now);
        }
    }

    /// Answered well what was sent at `sent`. A rest that began since then goes on: the node asked for it later.
    pub fn succeeded(&mut self, sent: Instant) {
        if !self.rests_since(sent) {
            self.failures = 0;
            self.rest = None;
        }
    }

    /// Rests twice as long after each failure in a row, or as long as the node itself asks for. Questions that were under
    /// way together and failed together are one failure, and none of them makes a rest shorter.
    pub fn failed(&mut self, trouble: String, retry_after: Option<Duration>, sent: Instant, now: Instant) {
        self.last_trouble = trouble;
        let known = self.rest.filter(|_| self.rests_since(sent));
        if known.is_none() {
            self.failures = self.failures.saturating_add(1);
        }
        let doublings = self.failures.saturating_sub(1).min(10);
        let backed_off = COOL_DOWN_FIRST.saturating_mul(1 << doublings).min(COOL_DOWN_MAX);
        let rest = retry_after.map_or(backed_off, |asked| asked.min(RETRY_AFTER_MAX).max(COOL_DOWN_FIRST));
        let until = known.map_or(now + rest, |known| known.until.max(now + rest));
        self.rest = Some(Rest { began: now, until });
    }

    /// Whether the last rest began after something was sent that was not answered yet.
    fn rests_since(&self, sent: Instant) -> bool {
        self.rest.is_some_and(|rest| rest.began >= sent)
    }

    pub fn last_trouble(&self) -> &str {
        &self.last_trouble
    }

    pub fn lacks(&mut self, method: &str, now: Instant) {
        self.missing.retain(|_, until| *until > now);
        if self.missing.len() < MISSING_MAX {
            self.missing.insert(method.to_owned(), now + MISSING_FOR);
        }
    }

    pub fn saw_head(&mut self, height: Height, now: Instant) {
        self.head = Some((height, now));
    }

    /// The last head, while it is fresh.
    pub fn head(&self, now: Instant) -> Option<Height> {
        self.head.filter(|(_, seen)| now.saturating_duration_since(*seen) < HEAD_FRESH_FOR).map(|(height, _)| height)
    }
}

/// What a provider allows, as far as it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    pub per_second: Option<u32>,
    pub per_day: Option<u32>,
}

/// Requests spaced evenly, with a burst. A batch goes when its first request may, and is paid for afterwards.
#[derive(Debug)]
struct Quota {
    interval: Duration,
    burst: Duration,
    /// When everything taken so far would have been sent at an even pace.
    paid_until: Option<Instant>,
}

impl Quota {
    /// With a burst of a quarter of a second's worth.
    fn per_second(allowed: u32) -> Quota {
        let interval = Duration::from_secs(1) / allowed.max(1);
        Quota { interval, burst: interval.saturating_mul((allowed / 4).max(1) - 1), paid_until: None }
    }

    /// A quarter of the day's requests may be used at once, to catch up; the others are spread over the day, so that
    /// following goes on in its last hour too. Any 24 hours of one process stay within what is allowed.
    fn per_day(allowed: u32) -> Quota {
        let at_once = (allowed / 4).max(1);
        let interval = Duration::from_secs(86_400) / allowed.saturating_sub(at_once).max(1);
        Quota { interval, burst: interval.saturating_mul(at_once - 1), paid_until: None }
    }

    fn free_at(&self, now: Instant) -> Instant {
        self.paid_until.and_then(|paid| paid.checked_sub(self.burst)).unwrap_or(now)
    }

    fn take(&mut self, requests: u32, now: Instant) {
        let from = self.paid_until.map_or(now, |paid| paid.max(now));
        self.paid_until = Some(from + self.interval.saturating_mul(requests));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_failing_endpoint_rests_longer_each_time() {
        let start = Instant::now();
        let mut health = Health::new(Limits::default());
        let mut now = start;
        let rests: Vec<Duration> = (0..9)
            .map(|_| {
                health.failed("refused".into(), None, now, now + seconds(1));
                let Availability::Cooling(until) = health.ready("m", now + seconds(1)) else { panic!("it rests") };
                let rest = until - now - seconds(1);
                now = until;
                rest
            })
            .collect();
        assert_eq!(rests[0], COOL_DOWN_FIRST);
        assert!(rests.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(COOL_DOWN_MAX)));
        assert_eq!(health.ready("m", now), Availability::Now);
        health.succeeded(now);
        health.failed("refused".into(), None, now, now);
        assert_eq!(health.ready("m", now), Availability::Cooling(now + COOL_DOWN_FIRST), "it begins anew");
    }

    #[test]
    fn what_was_sent_before_a_rest_neither_ends_nor_doubles_it() {
        let start = Instant::now();
        let mut health = Health::new(Limits::default());
        health.failed("429".into(), Some(seconds(30)), start, start + seconds(1));
        health.succeeded(start);
        assert_eq!(health.ready("m", start + seconds(2)), Availability::Cooling(start + seconds(31)));
        for late in [2, 3] {
            health.failed("429".into(), None, start, start + seconds(late));
            assert_eq!(
                health.ready("m", start + seconds(late)),
                Availability::Cooling(start + seconds(31)),
                "not shorter"
            );
        }
        health.failed("429".into(), Some(seconds(60)), start, start + seconds(4));
        assert_eq!(health.ready("m", start + seconds(5)), Availability::Cooling(start + seconds(64)), "but longer");
        health.succeeded(start + seconds(5));
        assert_eq!(health.ready("m", start + seconds(5)), Availability::Now, "it was asked since and answered");
        health.failed("429".into(), None, start + seconds(5), start + seconds(5));
        assert_eq!(health.ready("m", start + seconds(5)), Availability::Cooling(start + seconds(5) + COOL_DOWN_FIRST));
    }

    #[test]
    fn retry_after_is_respected_within_reason() {
        let start = Instant::now();
        let mut health = Health::new(Limits::default());
        health.failed("429".into(), Some(seconds(7)), start, start);
        assert_eq!(health.ready("m", start), Availability::Cooling(start + seconds(7)));
        health.failed("429".into(), Some(seconds(86_400)), start, start);
        assert_eq!(health.ready("m", start), Availability::Cooling(start + RETRY_AFTER_MAX));
    }

    #[test]
    fn a_missing_method_does_not_close_the_others() {
        let start = Instant::now();
        let mut health = Health::new(Limits::default());
        health.lacks("eth_getBlockReceipts", start);
        assert_eq!(health.ready("eth_getBlockReceipts", start), Availability::Missing);
        assert_eq!(health.ready("eth_getLogs", start), Availability::Now);
        assert_eq!(health.ready("eth_getBlockReceipts", start + MISSING_FOR), Availability::Now);
    }

    #[test]
    fn the_quota_is_kept_over_any_time() {
        let start = Instant::now();
        let mut health = Health::new(Limits { per_second: Some(15), per_day: None });
        let mut now = start;
        let mut sent = 0u32;
        while now < start + seconds(20) {
            if let Availability::At(at) = health.ready("m", now) {
                now = at;
            }
            assert!(health.claim("m", 1, now));
            sent += 1;
        }
        assert!((300..=304).contains(&sent), "{sent} requests in 20 s at 15 per second");
    }

    #[test]
    fn a_day_has_its_budget_and_its_last_hour_too() {
        let start = Instant::now();
        let mut health = Health::new(Limits { per_second: Some(15), per_day: Some(100_000) });
        let mut now = start;
        let (mut sent, mut last_hour) = (0u32, 0u32);
        while now < start + seconds(86_400) {
            if let Availability::At(at) = health.ready("m", now) {
                now = at;
            }
            assert!(health.claim("m", 1, now));
            sent += 1;
            last_hour += u32::from(now >= start + seconds(82_800));
        }
        assert!((99_990..=100_001).contains(&sent), "{sent} requests in a day");
        assert!(last_hour > 3_000, "{last_hour} requests in the last hour");
    }

    #[test]
    fn a_batch_is_paid_for() {
        let start = Instant::now();
        let mut health = Health::new(Limits { per_second: Some(10), per_day: None });
        health.take(20, start);
        assert_eq!(
            health.ready("m", start + seconds(1)),
            Availability::At(start + seconds(2) - Duration::from_millis(100))
        );
    }

    #[test]
    fn an_old_head_says_nothing() {
        let start = Instant::now();
        let mut health = Health::new(Limits::default());
        health.saw_head(7, start);
        assert_eq!(health.head(start), Some(7));
        assert_eq!(health.head(start + HEAD_FRESH_FOR), None);
    }
}
