//! Whether blocks show what contracts send. Pure: the time is a parameter.
//!
//! A trace must never hold up a block: whoever sends a cheap transaction decides how large the traces of its block are, and
//! after an outage nodes have forgotten old states. Such blocks are read without it, and for a while balances are compared.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

/// How long a node that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// So many failures in a row, and traces are not asked for during [`REST`].
const FAILURES_MAX: u32 = 3;
const REST: Duration = Duration::from_secs(60);
/// Balances are compared for so long after a block without its internal transfers. What comes to light later does when the
/// window of its invoice ends.
const BLIND_FOR: Duration = Duration::from_secs(3_600);

#[derive(Debug, Default)]
pub struct TraceHealth {
    silent_since: Option<Instant>,
    failures: u32,
    rests_until: Option<Instant>,
    blind_until: Option<Instant>,
    warned: BTreeSet<&'static str>,
}

impl TraceHealth {
    pub fn may_ask(&self, now: Instant) -> bool {
        self.rests_until.is_none_or(|until| until <= now)
    }

    pub fn succeeded(&mut self) {
        (self.silent_since, self.failures, self.rests_until) = (None, 0, None);
    }

    /// Nobody answered at all. Whether the block may wait for another try.
    pub fn may_wait(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(*self.silent_since.get_or_insert(now)) < PATIENCE
    }

    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.rests_until = Some(now + REST);
        }
    }

    /// A block is delivered without all that it may hold. Whether nobody was told of this cause yet.
    pub fn lost(&mut self, now: Instant, cause: &'static str) -> bool {
        self.blind_until = Some(now + BLIND_FOR);
        self.warned.insert(cause)
    }

    pub fn degraded(&self, now: Instant) -> bool {
        self.blind_until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_waited_for_and_not_for_ever() {
        let start = Instant::now();
        let mut sight = TraceHealth::default();
        assert!(sight.may_wait(start));
        assert!(sight.may_wait(start + PATIENCE / 2));
        assert!(!sight.may_wait(start + PATIENCE));
        sight.succeeded();
        assert!(sight.may_wait(start + PATIENCE), "an answer ends the silence");
    }

    #[test]
    fn traces_that_fail_again_and_again_rest() {
        let start = Instant::now();
        let mut sight = TraceHealth::default();
        for _ in 1..FAILURES_MAX {
            sight.failed(start);
            assert!(sight.may_ask(start));
        }
        sight.failed(start);
        assert!(!sight.may_ask(start));
        assert!(sight.may_ask(start + REST));
        sight.succeeded();
        sight.failed(start + REST);
        assert!(sight.may_ask(start + REST));
    }

    #[test]
    fn a_cause_is_told_once_and_balances_are_compared_for_a_while() {
        let start = Instant::now();
        let mut sight = TraceHealth::default();
        assert!(!sight.degraded(start));
        assert!(sight.lost(start, "too large") && !sight.lost(start, "too large") && sight.lost(start, "refused"));
        assert!(sight.degraded(start + BLIND_FOR / 2));
        assert!(!sight.degraded(start + BLIND_FOR));
    }
}
