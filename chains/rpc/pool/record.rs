//! Records the result of an exchange, both in the attempts of its request and in the health of its endpoint.

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    Pool,
    attempts::{Attempts, ExchangeResult, HealthEvent},
};
use crate::{
    NodeError, NodeErrorKind, Rejection, Verdict,
    http::{ErrorClass, TransportError},
    reply,
};

impl Pool {
    /// Adds the verdict on a reply to the attempts of its request and to the result of its exchange. Returns the value
    /// if it was accepted, which ends the request.
    pub(super) fn record_verdict<T>(
        &self,
        endpoint: usize,
        method: &str,
        verdict: Result<Verdict<T>, Rejection>,
        attempts: &mut Attempts<T>,
        result: &mut ExchangeResult,
    ) -> Option<T> {
        match verdict {
            Ok(Verdict::Accept(value)) => {
                result.accepted = true;
                return Some(value);
            }
            Ok(Verdict::Fallback(value)) => {
                result.accepted = true;
                attempts.fallback.get_or_insert(value);
            }
            Err(Rejection::Invalid(reason)) => {
                let label = self.endpoint_label(endpoint);
                error!(endpoint = %label, method, "an invalid reply of the endpoint was rejected: {reason}");
                let reason = self.redact_secrets(endpoint, &reason);
                attempts.invalid = Some(format!("{label}: {reason}"));
                result.failure.get_or_insert(HealthEvent::new(ErrorClass::Broken, reason));
            }
            Err(Rejection::NodeError(error)) => {
                let label = self.endpoint_label(endpoint);
                let message = self.redact_secrets(endpoint, &error.message);
                match error.kind {
                    NodeErrorKind::TooLarge => {
                        attempts.too_large.get_or_insert(message);
                    }
                    NodeErrorKind::MethodMissing => {
                        info!(endpoint = %label, method, "the endpoint does not offer {method}: {message}");
                        self.endpoints[endpoint].lock_health().record_method_missing(method, Instant::now());
                        attempts.method_missing = true;
                    }
                    NodeErrorKind::RateLimited => {
                        attempts.failures.push(format!("{label}: {message}"));
                        result.failure = Some(HealthEvent::new(ErrorClass::Throttled, message));
                    }
                    NodeErrorKind::NotFound | NodeErrorKind::Pruned | NodeErrorKind::Other => {
                        attempts.node_error = Some(NodeError { message: format!("{label}: {message}"), ..error });
                    }
                }
            }
        }
        None
    }

    /// Records the result of an exchange in the health of its endpoint.
    pub(super) fn record_exchange(&self, endpoint: usize, result: ExchangeResult, sent_at: Instant) {
        match result {
            ExchangeResult { failure: Some(event), .. } => drop(self.record_failure(endpoint, event, sent_at)),
            ExchangeResult { accepted: true, failure: None } => {
                self.endpoints[endpoint].lock_health().record_success(sent_at);
            }
            ExchangeResult { accepted: false, failure: None } => {}
        }
    }

    /// Records an exchange without a reply and returns its error class, or `None` if the reply was too large, which
    /// does not count against the health of the endpoint.
    pub(super) fn record_transport_error<T>(
        &self,
        endpoint: usize,
        error: TransportError,
        attempts: &mut Attempts<T>,
        sent_at: Instant,
    ) -> Option<ErrorClass> {
        match error {
            TransportError::TooLarge { bytes_max } => {
                let message = format!("more than {bytes_max} bytes from {}", self.endpoint_label(endpoint));
                attempts.too_large.get_or_insert(message);
                None
            }
            TransportError::Failed { class, reason, retry_after } => {
                let reason = self.redact_secrets(endpoint, &reason);
                let event = HealthEvent { class, reason, retry_after };
                attempts.add_failure(class, self.record_failure(endpoint, event, sent_at));
                Some(class)
            }
        }
    }

    /// Records a failure in the health of the endpoint and returns the reason with the name of the endpoint.
    pub(super) fn record_failure(&self, endpoint: usize, event: HealthEvent, sent_at: Instant) -> String {
        let label = self.endpoint_label(endpoint);
        let HealthEvent { reason, retry_after, .. } = event;
        let retry_after = retry_after.or_else(|| reply::parse_suspension(&reason));
        let named_reason = format!("{label}: {reason}");
        let mut health = self.endpoints[endpoint].lock_health();
        if health.last_failure() != reason {
            warn!(endpoint = %label, "the endpoint failed and gets no requests for a while: {reason}");
        }
        health.record_failure(reason, retry_after, sent_at, Instant::now());
        named_reason
    }
}
