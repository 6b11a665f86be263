//! Sends requests to exactly one endpoint. After a failure, no other endpoint gets the request.

use tokio::time::Instant;

use super::{
    Pool,
    exchange_results::{Attempts, ExchangeResult},
};
use crate::{
    NodeError, NodeErrorKind, Rejection, Reply, Request, RpcError, Verdict,
    health::Availability,
    http::{ErrorClass, TransportError},
};

impl Pool {
    /// Sends a request to exactly one endpoint, without the chain check. Waits for the rate limits of the endpoint,
    /// fails while it cools down, and records the result in its health; see [`crate::Target::Only`].
    pub(super) async fn send_to_single_endpoint_unchecked<T, F>(
        &self,
        endpoint: usize,
        request: &Request,
        mut accept: F,
    ) -> Result<T, RpcError>
    where
        F: FnMut(&Reply<'_>) -> Result<Verdict<T>, Rejection>,
    {
        let method = request.method.as_str();
        let deadline = Instant::now() + self.config.deadline;
        let sent_at = loop {
            let now = Instant::now();
            let availability = self.endpoints[endpoint].lock_health().availability_for_method(method, now);
            match availability {
                Availability::Now
                    if self.endpoints[endpoint].lock_health().charge_requests_if_available(method, 1, now) =>
                {
                    break now;
                }
                Availability::Now => {}
                Availability::RateLimited(until) if until < self.latest_wait_end(deadline) => {
                    tokio::time::sleep_until(until).await;
                }
                Availability::MethodMissing => return Err(RpcError::MethodMissing(method.to_owned())),
                Availability::RateLimited(_) | Availability::CoolingDown(_) => {
                    return Err(RpcError::Unavailable(self.explain_unavailability(endpoint, method, now)));
                }
            }
        };
        let mut attempts = Attempts::new();
        match self.count_and_send_http_request(endpoint, request, 1, deadline - sent_at).await {
            Ok(exchange) => {
                let verdict = accept(&Reply::new(endpoint, exchange.status, &exchange.body));
                let mut result = ExchangeResult::default();
                let value = self.record_verdict_and_take_value(endpoint, method, verdict, &mut attempts, &mut result);
                self.start_or_end_cool_down_by_result(endpoint, result, sent_at);
                if let Some(value) = value {
                    return Ok(value);
                }
            }
            Err(error) => drop(self.record_transport_error_and_cool_down(endpoint, error, &mut attempts, sent_at)),
        }
        attempts.into_fallback_or_error(method)
    }

    /// Sends a request to one endpoint at once, even while the endpoint cools down, and does not record the result in
    /// its health; see [`crate::Target::Probe`].
    pub(super) async fn probe_endpoint_ignoring_health<T, F>(
        &self,
        endpoint: usize,
        request: &Request,
        mut accept: F,
    ) -> Result<T, RpcError>
    where
        F: FnMut(&Reply<'_>) -> Result<Verdict<T>, Rejection>,
    {
        self.endpoints[endpoint].lock_health().charge_requests(1, Instant::now());
        let exchange = match self.count_and_send_http_request(endpoint, request, 1, self.config.deadline).await {
            Ok(exchange) => exchange,
            Err(TransportError::Failed { class: ErrorClass::Timeout, reason, .. }) => {
                return Err(RpcError::Timeout(reason));
            }
            Err(TransportError::Failed { class: ErrorClass::Broken | ErrorClass::Throttled, reason, .. }) => {
                return Err(RpcError::Unavailable(reason));
            }
            Err(TransportError::TooLarge { bytes_max }) => return Err(RpcError::reply_too_large(bytes_max)),
        };
        match accept(&Reply::new(endpoint, exchange.status, &exchange.body)) {
            Ok(Verdict::Accept(value) | Verdict::Fallback(value)) => Ok(value),
            Err(Rejection::Invalid(reason)) => Err(RpcError::Invalid(self.redact_secrets(endpoint, &reason))),
            Err(Rejection::NodeError(error)) => Err(match error.kind {
                NodeErrorKind::MethodMissing => RpcError::MethodMissing(request.method.clone()),
                NodeErrorKind::TooLarge => RpcError::TooLarge(self.redact_secrets(endpoint, &error.message)),
                NodeErrorKind::RateLimited | NodeErrorKind::NotFound | NodeErrorKind::Pruned | NodeErrorKind::Other => {
                    RpcError::NodeError(NodeError { message: self.redact_secrets(endpoint, &error.message), ..error })
                }
            }),
        }
    }
}
