//! Selects the endpoint that gets a request next.

use std::time::Duration;

use chain::Height;
use tokio::time::Instant;

use super::Pool;
use crate::{Role, Target, health::Availability};

/// The decision where a request is sent next.
pub enum Selection {
    /// Send the request to this endpoint.
    Send {
        endpoint: usize,
        /// The number of other endpoints that are available now.
        others: u32,
    },
    /// Wait until this time. Before that, no endpoint is available, or only an endpoint whose newest block is too old.
    Wait(Instant),
    /// Give up, because no endpoint will be available in time.
    None,
}

impl Pool {
    /// Returns the endpoint that gets a request next, or the time until which the request must wait. The endpoints are
    /// tried in the order of the configuration, starting with the one that the target names, if any. Without such an
    /// endpoint, those whose newest block is too far behind come last. A wait ends at `wait_until` at the latest. The
    /// request waits for the end of a cool-down only if `waits_for_cool_downs` is true.
    pub(super) fn select_endpoint_or_wait_time(
        &self,
        method: &str,
        target: Target,
        attempted: &[bool],
        now: Instant,
        wait_until: Instant,
        waits_for_cool_downs: bool,
    ) -> Selection {
        let heads: Vec<Option<Height>> =
            self.endpoints.iter().map(|state| state.lock_health().recent_head(now)).collect();
        let best = heads.iter().flatten().max().copied().unwrap_or(0);
        let first = self.find_start_index_for_target(target);
        let lag_max = self.config.head_lag_blocks_max;
        let lags = |i: usize| first.is_none() && heads[i].is_some_and(|head| best - head > lag_max);

        let count = self.endpoints.len();
        let start = first.unwrap_or(0) % count;
        let mut available = Vec::with_capacity(count);
        let (mut rate_limited, mut cooling_down) = (Vec::new(), Vec::new());
        for i in (0..count).map(|i| (start + i) % count).filter(|i| !attempted[*i]) {
            if !self.endpoints[i].endpoint.has_role(Role::Read) {
                continue;
            }
            match self.endpoints[i].lock_health().availability_for_method(method, now) {
                Availability::Now => available.push(i),
                Availability::RateLimited(until) if until <= wait_until => rate_limited.push((lags(i), until)),
                Availability::CoolingDown(until) if waits_for_cool_downs && until <= wait_until => {
                    cooling_down.push(until);
                }
                Availability::RateLimited(_) | Availability::CoolingDown(_) | Availability::MethodMissing => {}
            }
        }
        available.sort_by_key(|i| lags(*i));
        let others = u32::try_from(available.len().saturating_sub(1)).unwrap_or(u32::MAX - 1);
        let better_at = rate_limited.iter().filter(|(lags, _)| !lags).map(|(_, until)| *until).min();
        match (available.first(), better_at) {
            (Some(endpoint), Some(until)) if lags(*endpoint) => Selection::Wait(until),
            (Some(endpoint), _) => Selection::Send { endpoint: *endpoint, others },
            (None, _) => {
                let soonest = rate_limited.into_iter().map(|(_, until)| until).chain(cooling_down).min();
                soonest.map_or(Selection::None, Selection::Wait)
            }
        }
    }

    /// Returns one text for each endpoint that did not get the request: the name of the endpoint and the reason why.
    pub(super) fn list_reasons_not_attempted(&self, method: &str, attempted: &[bool]) -> Vec<String> {
        let now = Instant::now();
        let remaining = (0..self.endpoints.len()).filter(|i| !attempted[*i]);
        let readable = remaining.filter(|i| self.endpoints[*i].endpoint.has_role(Role::Read));
        readable.map(|endpoint| self.explain_unavailability(endpoint, method, now)).collect()
    }

    /// Returns a text with the name of an endpoint and the reason why the pool sends it no request of this method now.
    pub(super) fn explain_unavailability(&self, endpoint: usize, method: &str, now: Instant) -> String {
        let state = &self.endpoints[endpoint];
        let health = state.lock_health();
        let reason = match health.availability_for_method(method, now) {
            Availability::CoolingDown(_) => format!("cools down after `{}`", health.last_failure()),
            Availability::MethodMissing => format!("does not offer {method}"),
            Availability::RateLimited(_) => "its rate limit is used up".to_owned(),
            Availability::Now => "no time was left".to_owned(),
        };
        format!("{}: {reason}", state.endpoint)
    }

    /// Returns true if the target allows at least one endpoint with the role `read`, and none of these endpoints offers
    /// the method.
    pub(super) fn is_method_missing_everywhere(&self, method: &str, target: Target) -> bool {
        let now = Instant::now();
        let is_readable =
            |i: &usize| !self.is_excluded_by_target(target, *i) && self.endpoints[*i].endpoint.has_role(Role::Read);
        let mut readable = (0..self.endpoints.len()).filter(is_readable).peekable();
        let lacks = |i: usize| {
            self.endpoints[i].lock_health().availability_for_method(method, now) == Availability::MethodMissing
        };
        readable.peek().is_some() && readable.all(lacks)
    }
}

/// Returns the timeout of a request at one endpoint: all the time that is left, or half of the time if other endpoints
/// can get the request afterwards. A shorter timeout would abort requests that are only slow. An endpoint that does not
/// reply cools down, so the next requests do not lose time on it again.
pub fn compute_endpoint_timeout(time_left: Duration, others: u32) -> Duration {
    if others == 0 { time_left } else { time_left / 2 }
}
