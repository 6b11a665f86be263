//! The results of one request at several endpoints, and of one HTTP exchange for the health of its endpoint. Pure.

use std::time::Duration;

use crate::{NodeError, RpcError, http::ErrorClass};

/// A failure that counts against the health of an endpoint.
pub struct HealthEvent {
    pub class: ErrorClass,
    /// Reason without secrets of the endpoint.
    pub reason: String,
    /// Time for which the node does not want further requests.
    pub retry_after: Option<Duration>,
}

impl HealthEvent {
    pub fn new(class: ErrorClass, reason: String) -> HealthEvent {
        HealthEvent { class, reason, retry_after: None }
    }
}

/// The result of one HTTP exchange for the health of its endpoint, even if it carried a batch of replies.
#[derive(Default)]
pub struct ExchangeResult {
    /// At least one reply was accepted.
    pub accepted: bool,
    pub failure: Option<HealthEvent>,
}

impl ExchangeResult {
    pub fn is_throttled(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.class == ErrorClass::Throttled)
    }
}

/// The results of one request at the endpoints that it was sent to so far.
pub struct Attempts<T> {
    pub fallback: Option<T>,
    pub too_large: Option<String>,
    pub node_error: Option<NodeError>,
    pub invalid: Option<String>,
    pub method_missing: bool,
    timed_out: bool,
    /// Reasons of endpoints without a usable reply, each with the name of its endpoint.
    pub failures: Vec<String>,
}

impl<T> Attempts<T> {
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

    pub fn add_failure(&mut self, class: ErrorClass, reason: String) {
        self.timed_out |= class == ErrorClass::Timeout;
        self.failures.push(reason);
    }

    /// Returns true if a reply so far is a result of the request unless another endpoint has a better one.
    pub fn has_result(&self) -> bool {
        self.fallback.is_some() || self.too_large.is_some() || self.node_error.is_some()
    }

    /// Returns the fallback value, or else the most informative of the errors.
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
