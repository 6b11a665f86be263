//! Sends a request to one endpoint after another until one gives an accepted reply.

use tokio::time::Instant;

use super::{
    Pool,
    exchange_results::{Attempts, ExchangeResult},
    selection::{Selection, compute_endpoint_timeout},
};
use crate::{Rejection, Reply, Request, RpcError, Verdict, http::ErrorClass};

impl Pool {
    /// Sends a request to the endpoints that `request.target` allows, one after another, until `accept` accepts a reply
    /// or the deadline passes. Waits for rate limits and cool-downs that end before the deadline.
    pub(super) async fn send_with_failover<T, F>(&self, request: &Request, mut accept: F) -> Result<T, RpcError>
    where
        F: FnMut(&Reply<'_>) -> Result<Verdict<T>, Rejection>,
    {
        let (method, target) = (request.method.as_str(), request.target);
        let deadline = Instant::now() + self.config.deadline;
        let wait_until = self.latest_wait_end(deadline);
        let mut attempted: Vec<bool> =
            (0..self.endpoints.len()).map(|i| self.is_excluded_by_target(target, i)).collect();
        let mut attempts = Attempts::new();
        loop {
            let now = Instant::now();
            let (endpoint, others) = match self.select_endpoint_or_wait_time(
                method,
                target,
                &attempted,
                now,
                wait_until,
                !attempts.has_fallback_or_error(),
            ) {
                Selection::Send { endpoint, others } if now < deadline => {
                    if !self.endpoints[endpoint].lock_health().charge_requests_if_available(method, 1, now) {
                        continue;
                    }
                    (endpoint, others)
                }
                Selection::Wait(until) => {
                    tokio::time::sleep_until(until).await;
                    continue;
                }
                Selection::Send { .. } | Selection::None => break,
            };
            let timeout = compute_endpoint_timeout(deadline - now, others);
            // The endpoint gets the request only once, except when it rejects the request because of too many requests.
            // Then it has not processed the request and may get it again after its cool-down.
            attempted[endpoint] = true;
            if let Err((class, reason)) = self.check_chain_unless_already_verified(endpoint, timeout).await {
                attempted[endpoint] = class != ErrorClass::Throttled;
                attempts.add_failure(class, reason);
                continue;
            }
            let sent_at = Instant::now();
            let exchange = match self.count_and_send_http_request(endpoint, request, 1, timeout).await {
                Ok(exchange) => exchange,
                Err(error) => {
                    let class = self.record_transport_error_and_cool_down(endpoint, error, &mut attempts, sent_at);
                    attempted[endpoint] = class != Some(ErrorClass::Throttled);
                    continue;
                }
            };
            let verdict = accept(&Reply::new(endpoint, exchange.status, &exchange.body));
            let mut result = ExchangeResult::default();
            let value = self.record_verdict_and_take_value(endpoint, method, verdict, &mut attempts, &mut result);
            attempted[endpoint] = !result.is_throttled();
            self.start_or_end_cool_down_by_result(endpoint, result, sent_at);
            if let Some(value) = value {
                return Ok(value);
            }
        }
        attempts.failures.extend(self.list_reasons_not_attempted(method, &attempted));
        attempts.method_missing |= self.is_method_missing_everywhere(method, target);
        if attempts.failures.is_empty() && !attempts.has_fallback_or_error() {
            attempts.failures.push("there is no other endpoint of another provider with the role `read`".to_owned());
        }
        attempts.into_fallback_or_error(method)
    }
}
