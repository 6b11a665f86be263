//! Sends requests to one endpoint, without fail-over.

use tokio::time::Instant;

use super::{
    Pool,
    attempts::{Attempts, ExchangeResult},
    too_many_bytes,
};
use crate::{
    NodeError, NodeErrorKind, Rejection, Reply, Request, RpcError, Verdict,
    health::Availability,
    http::{ErrorClass, TransportError},
};

impl Pool {
    /// Sends a request to one endpoint as [`crate::Target::Only`] describes.
    pub(super) async fn send_to_one<T, F>(
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
            let availability = self.endpoints[endpoint].health().availability(method, now);
            match availability {
                Availability::Now if self.endpoints[endpoint].health().try_charge(method, 1, now) => break now,
                Availability::Now => {}
                Availability::RateLimited(until) if until < self.wait_ends_at(deadline) => {
                    tokio::time::sleep_until(until).await;
                }
                Availability::MethodMissing => return Err(RpcError::MethodMissing(method.to_owned())),
                Availability::RateLimited(_) | Availability::CoolingDown(_) => {
                    return Err(RpcError::Unavailable(self.reason_unavailable(endpoint, method, now)));
                }
            }
        };
        let mut attempts = Attempts::new();
        match self.exchange(endpoint, request, 1, deadline - sent_at).await {
            Ok(exchange) => {
                let verdict = accept(&Reply::new(endpoint, exchange.status, &exchange.body));
                let mut result = ExchangeResult::default();
                let value = self.record_verdict(endpoint, method, verdict, &mut attempts, &mut result);
                self.record_exchange(endpoint, result, sent_at);
                if let Some(value) = value {
                    return Ok(value);
                }
            }
            Err(error) => drop(self.record_transport_error(endpoint, error, &mut attempts, sent_at)),
        }
        attempts.into_result(method)
    }

    /// Sends a request to one endpoint as [`crate::Target::Probe`] describes.
    pub(super) async fn probe<T, F>(&self, endpoint: usize, request: &Request, mut accept: F) -> Result<T, RpcError>
    where
        F: FnMut(&Reply<'_>) -> Result<Verdict<T>, Rejection>,
    {
        self.endpoints[endpoint].health().charge(1, Instant::now());
        let exchange = match self.exchange(endpoint, request, 1, self.config.deadline).await {
            Ok(exchange) => exchange,
            Err(TransportError::Failed { class: ErrorClass::Timeout, reason, .. }) => {
                return Err(RpcError::Timeout(reason));
            }
            Err(TransportError::Failed { class: ErrorClass::Broken | ErrorClass::Throttled, reason, .. }) => {
                return Err(RpcError::Unavailable(reason));
            }
            Err(TransportError::TooLarge { bytes_max }) => return Err(too_many_bytes(bytes_max)),
        };
        match accept(&Reply::new(endpoint, exchange.status, &exchange.body)) {
            Ok(Verdict::Accept(value) | Verdict::Fallback(value)) => Ok(value),
            Err(Rejection::Invalid(reason)) => Err(RpcError::Invalid(reason)),
            Err(Rejection::NodeError(error)) => Err(match error.kind {
                NodeErrorKind::MethodMissing => RpcError::MethodMissing(request.method.clone()),
                NodeErrorKind::TooLarge => RpcError::TooLarge(error.message),
                NodeErrorKind::RateLimited | NodeErrorKind::NotFound | NodeErrorKind::Pruned | NodeErrorKind::Other => {
                    RpcError::NodeError(NodeError { message: self.redact(endpoint, &error.message), ..error })
                }
            }),
        }
    }
}
