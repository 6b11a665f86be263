//! The results of HTTP exchanges. Each result is recorded twice: in the attempts of its request, and in the health of
//! its endpoint. This module does no I/O.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Pool;
use crate::{
    NodeError, NodeErrorKind, Rejection, RpcError, Verdict,
    http::{ErrorClass, TransportError},
    reply,
};

/// A failure that makes the health of an endpoint worse: the endpoint gets no requests for some time.
pub struct EndpointFailure {
    /// The kind of the failure, which decides whether the request is sent again to the same endpoint.
    pub class: ErrorClass,
    /// The reason of the failure as text. The keys in the URL and headers of the endpoint are hidden.
    pub reason: String,
    /// Time for which the node rejects further requests; `None` if the node named no time.
    pub retry_after: Option<Duration>,
}

impl EndpointFailure {
    /// Returns a failure for which the node named no time to wait.
    pub fn new(class: ErrorClass, reason: String) -> EndpointFailure {
        EndpointFailure { class, reason, retry_after: None }
    }
}

/// The effect of one HTTP exchange on the health of its endpoint. For a batch, one exchange contains several replies.
#[derive(Default)]
pub struct ExchangeResult {
    /// True if at least one reply of the exchange was accepted.
    pub accepted: bool,
    /// The failure of the exchange or of one of its replies; `None` if there is no failure that makes the health of the
    /// endpoint worse.
    pub failure: Option<EndpointFailure>,
}

impl ExchangeResult {
    /// Returns true if the node rejected the exchange because it got too many requests.
    pub fn is_throttled(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.class == ErrorClass::Throttled)
    }
}

/// The failures and the fallback value of one request so far, from all endpoints to which the request was sent.
pub struct Attempts<T> {
    /// First value that the caller's closure marked as [`crate::Verdict::Fallback`].
    pub fallback: Option<T>,
    /// The message, from a node or from the pool, that says that the reply is too large.
    pub too_large: Option<String>,
    /// An error with which a node replied and which no other field of this struct describes.
    pub node_error: Option<NodeError>,
    /// Reason why the caller's closure rejected a reply as invalid.
    pub invalid: Option<String>,
    /// True if at least one endpoint does not offer the method.
    pub method_missing: bool,
    /// True if at least one endpoint did not reply in time.
    timed_out: bool,
    /// The reasons why endpoints gave no usable reply. Each text names its endpoint.
    pub failures: Vec<String>,
}

impl<T> Attempts<T> {
    /// Returns the results of a request that was not sent to any endpoint yet.
    pub fn new() -> Attempts<T> {
        Attempts {
            fallback: None,
            too_large: None,
            node_error: None,
            invalid: None,
            method_missing: false,
            timed_out: false,
            failures: Vec::new(),
        }
    }

    /// Adds the failure of one endpoint; `reason` names the endpoint.
    pub fn add_failure(&mut self, class: ErrorClass, reason: String) {
        self.timed_out |= class == ErrorClass::Timeout;
        self.failures.push(reason);
    }

    /// Returns true if at least one endpoint gave a fallback value or an error that can be returned to the caller.
    /// Another endpoint may still give a better reply.
    pub fn has_fallback_or_error(&self) -> bool {
        self.fallback.is_some() || self.too_large.is_some() || self.node_error.is_some()
    }

    /// Returns the fallback value if there is one. Otherwise returns the first of these errors that occurred at any
    /// endpoint: too large, node error, invalid, method missing, timeout; and `Unavailable` if none of these did.
    pub fn into_fallback_or_error(self, method: &str) -> Result<T, RpcError> {
        Err(match self {
            Attempts { fallback: Some(value), .. } => return Ok(value),
            Attempts { too_large: Some(message), .. } => RpcError::TooLarge(message),
            Attempts { node_error: Some(error), .. } => RpcError::NodeError(error),
            Attempts { invalid: Some(reason), .. } => RpcError::Invalid(reason),
            Attempts { method_missing: true, .. } => RpcError::MethodMissing(method.to_owned()),
            Attempts { timed_out: true, failures, .. } => RpcError::Timeout(failures.join("; ")),
            Attempts { failures, .. } => RpcError::Unavailable(failures.join("; ")),
        })
    }
}

impl Pool {
    /// Records what the caller's closure decided about a reply: in the attempts of the request, and in the result of
    /// the HTTP exchange. Returns the value if the closure accepted it, which ends the request. Logs invalid replies
    /// and missing methods.
    pub(super) fn record_verdict_and_take_value<T>(
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
                let reason = self.redact_secrets(endpoint, &reason);
                error!(endpoint = %label, method, "an invalid reply of the endpoint was rejected: {reason}");
                attempts.invalid = Some(format!("{label}: {reason}"));
                result.failure.get_or_insert(EndpointFailure::new(ErrorClass::Broken, reason));
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
                        self.endpoints[endpoint]
                            .lock_health()
                            .record_method_missing_for_ten_minutes(method, Instant::now());
                        attempts.method_missing = true;
                    }
                    NodeErrorKind::RateLimited => {
                        attempts.failures.push(format!("{label}: {message}"));
                        result.failure = Some(EndpointFailure::new(ErrorClass::Throttled, message));
                    }
                    NodeErrorKind::NotFound | NodeErrorKind::Pruned | NodeErrorKind::Other => {
                        attempts.node_error = Some(NodeError { message: format!("{label}: {message}"), ..error });
                    }
                }
            }
        }
        None
    }

    /// Records the result of an exchange in the health of its endpoint. A success ends a cool-down that began before
    /// the request was sent, and a failure starts a new one.
    pub(super) fn start_or_end_cool_down_by_result(&self, endpoint: usize, result: ExchangeResult, sent_at: Instant) {
        match result {
            ExchangeResult { failure: Some(failure), .. } => {
                drop(self.cool_down_and_describe_failure(endpoint, failure, sent_at))
            }
            ExchangeResult { accepted: true, failure: None } => {
                self.endpoints[endpoint].lock_health().end_earlier_cool_down(sent_at);
            }
            ExchangeResult { accepted: false, failure: None } => {}
        }
    }

    /// Records an exchange without a usable reply, in the attempts of its request and in the health of its endpoint.
    /// Returns the error class, or `None` if the reply was too large. A reply that is too large does not make the
    /// health of the endpoint worse.
    pub(super) fn record_transport_error_and_cool_down<T>(
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
                let failure = EndpointFailure { class, reason, retry_after };
                attempts.add_failure(class, self.cool_down_and_describe_failure(endpoint, failure, sent_at));
                Some(class)
            }
        }
    }

    /// Starts or extends the cool-down of an endpoint after a failure. Logs the reason if it differs from the reason of
    /// the endpoint's previous failure. Returns the reason with the name of the endpoint.
    pub(super) fn cool_down_and_describe_failure(
        &self,
        endpoint: usize,
        failure: EndpointFailure,
        sent_at: Instant,
    ) -> String {
        let label = self.endpoint_label(endpoint);
        let EndpointFailure { reason, retry_after, .. } = failure;
        let retry_after = retry_after.or_else(|| reply::parse_suspension_duration(&reason));
        let named_reason = format!("{label}: {reason}");
        let mut health = self.endpoints[endpoint].lock_health();
        if health.last_failure() != reason {
            warn!(endpoint = %label, "the endpoint failed and gets no requests for a while: {reason}");
        }
        health.start_or_extend_cool_down(reason, retry_after, sent_at, Instant::now());
        named_reason
    }
}
