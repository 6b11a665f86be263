//! Records whether nodes return call traces, which list the native coins that contracts send, and which blocks may lack
//! such transfers.
//!
//! A missing trace must never block the chain: the sender of a cheap transaction can make the traces of its block very
//! large, and after an outage nodes have pruned old states. Such a block is read without traces, and balances are
//! compared for the time of [`DEGRADED_FOR`].

use std::{collections::BTreeSet, sync::MutexGuard, time::Duration};

use tokio::time::Instant;
use tracing::warn;

use crate::{Evm, block::BlockBody};

/// The time for which the driver waits for the traces of a block while no endpoint answers.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// When the traces of this number of blocks in a row could not be read, no traces are requested for the time of
/// [`PAUSE`].
const FAILURES_MAX: u32 = 3;
/// Time for which no traces are requested after repeated failures.
const PAUSE: Duration = Duration::from_secs(60);
/// Time for which the daemon compares the balances of invoice addresses after a block was read without internal
/// transfers. A payment that this comparison misses is found when the invoice expires, because the balance is then
/// compared once more.
const DEGRADED_FOR: Duration = Duration::from_secs(3_600);

/// The recent successes and failures of trace requests.
#[derive(Debug, Default)]
pub struct TraceHealth {
    /// The time of the first unanswered request for traces since the last answer; `None` when the last request was
    /// answered.
    silent_since: Option<Instant>,
    /// The number of blocks in a row whose traces could not be read.
    failures: u32,
    /// The time until which no traces are requested.
    paused_until: Option<Instant>,
    /// The time until which balances are compared, because a block may lack transfers.
    degraded_until: Option<Instant>,
    /// The causes about which a warning was already logged.
    warned: BTreeSet<&'static str>,
}

impl TraceHealth {
    /// Returns false while trace requests are paused after repeated failures.
    pub fn may_request_traces(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
    }

    /// Records that an endpoint returned valid traces.
    pub fn record_success(&mut self) {
        (self.silent_since, self.failures, self.paused_until) = (None, 0, None);
    }

    /// Records that no endpoint answered a request for traces. Returns true during the first 20 seconds without an
    /// answer, in which the block waits for another try; after that, the block is read without traces.
    pub fn record_silence_and_may_wait(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(*self.silent_since.get_or_insert(now)) < SILENCE_MAX
    }

    /// Records that a block was read without its traces. After [`FAILURES_MAX`] such blocks in a row, trace requests
    /// are paused.
    pub fn record_failure_and_maybe_pause(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.paused_until = Some(now + PAUSE);
        }
    }

    /// Records that a block may lack transfers. Returns true the first time for each cause, so that each cause is
    /// logged once.
    pub fn record_incomplete_and_is_first(&mut self, now: Instant, cause: &'static str) -> bool {
        self.degraded_until = Some(now + DEGRADED_FOR);
        self.warned.insert(cause)
    }

    /// Returns true while balances must be compared, because a recent block may lack transfers.
    pub fn must_compare_balances(&self, now: Instant) -> bool {
        self.degraded_until.is_some_and(|until| until > now)
    }
}

impl Evm {
    /// Locks and returns the recent successes and failures of trace requests.
    pub(crate) fn lock_trace_health(&self) -> MutexGuard<'_, TraceHealth> {
        self.trace_health.lock().expect("no panic while the trace health is locked")
    }

    /// Records that the block may lack transfers, so that balances are compared for the time of [`DEGRADED_FOR`]. Logs
    /// a warning for the first block of each cause.
    pub(crate) fn mark_incomplete_and_warn_once(&self, body: &BlockBody, cause: &'static str, reason: &str) {
        if self.lock_trace_health().record_incomplete_and_is_first(Instant::now(), cause) {
            warn!(
                chain = %self.config.chain,
                "transfers may be missing from block {}, so balances are compared instead: {reason}",
                body.header.height
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_waits_for_a_silent_endpoint_for_a_limited_time() {
        let start = Instant::now();
        let mut health = TraceHealth::default();
        assert!(health.record_silence_and_may_wait(start));
        assert!(health.record_silence_and_may_wait(start + SILENCE_MAX / 2));
        assert!(!health.record_silence_and_may_wait(start + SILENCE_MAX));
        health.record_success();
        assert!(health.record_silence_and_may_wait(start + SILENCE_MAX), "an answer restarts the waiting time");
    }

    #[test]
    fn repeated_failures_pause_the_trace_requests() {
        let start = Instant::now();
        let mut health = TraceHealth::default();
        for _ in 1..FAILURES_MAX {
            health.record_failure_and_maybe_pause(start);
            assert!(health.may_request_traces(start));
        }
        health.record_failure_and_maybe_pause(start);
        assert!(!health.may_request_traces(start));
        assert!(health.may_request_traces(start + PAUSE));
        health.record_success();
        health.record_failure_and_maybe_pause(start + PAUSE);
        assert!(health.may_request_traces(start + PAUSE));
    }

    #[test]
    fn each_cause_is_reported_once_and_balances_are_compared_for_a_while() {
        let start = Instant::now();
        let mut health = TraceHealth::default();
        assert!(!health.must_compare_balances(start));
        assert!(
            health.record_incomplete_and_is_first(start, "too large")
                && !health.record_incomplete_and_is_first(start, "too large")
                && health.record_incomplete_and_is_first(start, "refused")
        );
        assert!(health.must_compare_balances(start + DEGRADED_FOR / 2));
        assert!(!health.must_compare_balances(start + DEGRADED_FOR));
    }
}
