//! The results of one request at several endpoints, and the result of one HTTP exchange for the health of its endpoint.
//! This module does no I/O.

use std::time::Duration;

use crate::{NodeError, RpcError, http::ErrorClass};

/// A failure that counts against the health of an endpoint.
pub struct HealthEvent {
    /// Kind of the failure, which decides about further attempts.
    pub class: ErrorClass,
    /// Text of the failure, without the secrets of the endpoint.
    pub reason: String,
    /// Time for which the node rejects further requests; `None` if it named none.
    pub retry_after: Option<Duration>,
}

impl HealthEvent {
    /// Returns a failure for which the node named no time to wait.
    pub fn new(class: ErrorClass, reason: String) -> HealthEvent {
        HealthEvent { class, reason, retry_after: None }
    }
}

/// The effect of one HTTP exchange on the health of its endpoint. A batch is one exchange with several replies.
#[derive(Default)]
pub struct ExchangeResult {
    /// At least one reply was accepted.
    pub accepted: bool,
    /// The failure of the exchange or of one of its replies; `None` if none counts against the endpoint.
    pub failure: Option<HealthEvent>,
}

impl ExchangeResult {
    /// Returns true if the node rejected the exchange because it got too many requests.
    pub fn is_throttled(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.class == ErrorClass::Throttled)
    }
}

/// The results of one request so far, from all endpoints that it was sent to.
pub struct Attempts<T> {
    /// First value that a closure marked as [`crate::Verdict::Fallback`].
    pub fallback: Option<T>,
    /// Message of a node, or of the pool, that the reply would be too large.
    pub too_large: Option<String>,
    /// Error that a node replied with, unless another field of this struct describes it.
    pub node_error: Option<NodeError>,
    /// Reason for which a reply was rejected as invalid.
    pub invalid: Option<String>,
    /// True if an endpoint does not offer the method.
    pub method_missing: bool,
    timed_out: bool,
    /// Reasons of the endpoints without a usable reply; each names its endpoint.
    pub failures: Vec<String>,
}

impl<T> Attempts<T> {
    /// Returns the attempts of a request that was not sent to any endpoint yet.
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

    /// Returns true if at least one reply is a result of the request. Another endpoint may still return a better
    /// result.
    pub fn has_result(&self) -> bool {
        self.fallback.is_some() || self.too_large.is_some() || self.node_error.is_some()
    }

    /// Returns the fallback value if there is one, otherwise the most informative of the errors.
    pub fn into_result(self, method: &str) -> Result<T, RpcError> {
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
