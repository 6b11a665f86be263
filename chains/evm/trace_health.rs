//! Whether blocks show what contracts send. Pure: the time is a parameter.
//!
//! A trace must never hold up a block: whoever sends a cheap transaction decides how large the traces of its block are, and
//! after an outage nodes have forgotten old states. Such blocks are read without it, and for a while balances are compared.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

/// How long a node that does not answer is waited for.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// So many failures in a row, and traces are not asked for during [`PAUSE`].
const FAILURES_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_secs(60);
/// Balances are compared for so long after a block without its internal transfers. What comes to light later does when the
/// window of its invoice ends.
const DEGRADED_FOR: Duration = Duration::from_secs(3_600);

#[derive(Debug, Default)]
pub struct TraceHealth {
    silent_since: Option<Instant>,
    failures: u32,
    paused_until: Option<Instant>,
    degraded_until: Option<Instant>,
    warned: BTreeSet<&'static str>,
}

impl TraceHealth {
    pub fn may_request(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
    }

    pub fn record_success(&mut self) {
        (self.silent_since, self.failures, self.paused_until) = (None, 0, None);
    }

    /// Nobody answered at all. Whether the block may wait for another try.
    pub fn may_wait_for_answer(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(*self.silent_since.get_or_insert(now)) < SILENCE_MAX
    }

    pub fn record_failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.paused_until = Some(now + PAUSE);
        }
    }

    /// A block is delivered without all that it may hold. Whether nobody was told of this cause yet.
    pub fn record_incomplete_block(&mut self, now: Instant, cause: &'static str) -> bool {
        self.degraded_until = Some(now + DEGRADED_FOR);
        self.warned.insert(cause)
    }

    pub fn is_degraded(&self, now: Instant) -> bool {
        self.degraded_until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_waited_for_and_not_for_ever() {
        let start = Instant::now();
        let mut health = TraceHealth::default();
        assert!(health.may_wait_for_answer(start));
        assert!(health.may_wait_for_answer(start + SILENCE_MAX / 2));
        assert!(!health.may_wait_for_answer(start + SILENCE_MAX));
        health.record_success();
        assert!(health.may_wait_for_answer(start + SILENCE_MAX), "an answer ends the silence");
    }

    #[test]
    fn traces_that_fail_again_and_again_rest() {
        let start = Instant::now();
        let mut health = TraceHealth::default();
        for _ in 1..FAILURES_MAX {
            health.record_failure(start);
            assert!(health.may_request(start));
        }
        health.record_failure(start);
        assert!(!health.may_request(start));
        assert!(health.may_request(start + PAUSE));
        health.record_success();
        health.record_failure(start + PAUSE);
        assert!(health.may_request(start + PAUSE));
    }

    #[test]
    fn a_cause_is_told_once_and_balances_are_compared_for_a_while() {
        let start = Instant::now();
        let mut health = TraceHealth::default();
        assert!(!health.is_degraded(start));
        assert!(
            health.record_incomplete_block(start, "too large")
                && !health.record_incomplete_block(start, "too large")
                && health.record_incomplete_block(start, "refused")
        );
        assert!(health.is_degraded(start + DEGRADED_FOR / 2));
        assert!(!health.is_degraded(start + DEGRADED_FOR));
    }
}
