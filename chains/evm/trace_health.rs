//! Tracks the availability of call traces, from which blocks get the transfers by contracts. This module does no I/O
//! and reads no clock: the time is a parameter.
//!
//! A missing trace must never block the chain: the sender of a cheap transaction can make the traces of its block very
//! large, and after an outage nodes have pruned old states. Such a block is read without traces, and balances are
//! compared for the time of [`DEGRADED_FOR`].

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

/// Time that a block waits for traces when no endpoint answers.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Number of failures in a row after which no traces are requested for the time of [`PAUSE`].
const FAILURES_MAX: u32 = 3;
/// Time without trace requests after repeated failures.
const PAUSE: Duration = Duration::from_secs(60);
/// Time for which the daemon compares balances after a block was read without internal transfers. When an invoice
/// expires, the daemon compares its balance once more, so it finds later payments too.
const DEGRADED_FOR: Duration = Duration::from_secs(3_600);

/// The recent successes and failures of trace requests.
#[derive(Debug, Default)]
pub struct TraceHealth {
    silent_since: Option<Instant>,
    failures: u32,
    paused_until: Option<Instant>,
    degraded_until: Option<Instant>,
    warned: BTreeSet<&'static str>,
}

impl TraceHealth {
    /// Returns false during the pause after repeated failures.
    pub fn may_request_traces(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
    }

    /// Records that an endpoint returned valid traces.
    pub fn record_traces(&mut self) {
        (self.silent_since, self.failures, self.paused_until) = (None, 0, None);
    }

    /// Records that no endpoint answered. Returns true while the block may wait for another try.
    pub fn record_silent_endpoints(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(*self.silent_since.get_or_insert(now)) < SILENCE_MAX
    }

    /// Records that a block went without traces; starts the pause after [`FAILURES_MAX`] in a row.
    pub fn record_failed_traces(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.paused_until = Some(now + PAUSE);
        }
    }

    /// Records that a block may lack transfers. Returns true the first time for each cause, so that it is logged once.
    pub fn record_incomplete_block(&mut self, now: Instant, cause: &'static str) -> bool {
        self.degraded_until = Some(now + DEGRADED_FOR);
        self.warned.insert(cause)
    }

    /// Returns true while balances must be compared, because a recent block may lack transfers.
    pub fn must_compare_balances(&self, now: Instant) -> bool {
        self.degraded_until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_waits_for_a_silent_endpoint_for_a_limited_time() {
        let start = Instant::now();
        let mut health = TraceHealth::default();
        assert!(health.record_silent_endpoints(start));
        assert!(health.record_silent_endpoints(start + SILENCE_MAX / 2));
        assert!(!health.record_silent_endpoints(start + SILENCE_MAX));
        health.record_traces();
        assert!(health.record_silent_endpoints(start + SILENCE_MAX), "an answer restarts the waiting time");
    }

    #[test]
    fn repeated_failures_pause_the_trace_requests() {
        let start = Instant::now();
        let mut health = TraceHealth::default();
        for _ in 1..FAILURES_MAX {
            health.record_failed_traces(start);
            assert!(health.may_request_traces(start));
        }
        health.record_failed_traces(start);
        assert!(!health.may_request_traces(start));
        assert!(health.may_request_traces(start + PAUSE));
        health.record_traces();
        health.record_failed_traces(start + PAUSE);
        assert!(health.may_request_traces(start + PAUSE));
    }

    #[test]
    fn each_cause_is_reported_once_and_balances_are_compared_for_a_while() {
        let start = Instant::now();
        let mut health = TraceHealth::default();
        assert!(!health.must_compare_balances(start));
        assert!(
            health.record_incomplete_block(start, "too large")
                && !health.record_incomplete_block(start, "too large")
                && health.record_incomplete_block(start, "refused")
        );
        assert!(health.must_compare_balances(start + DEGRADED_FOR / 2));
        assert!(!health.must_compare_balances(start + DEGRADED_FOR));
    }
}
