//! The chain check, which verifies that an endpoint is a node of the configured chain. Without this check, the replies
//! of a node of another chain would look valid and would be used.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::error;

use super::{Pool, exchange_results::EndpointFailure};
use crate::{
    NodeErrorKind, Rejection, Reply, Request, RpcError,
    health::Availability,
    http::{ErrorClass, TransportError},
};

/// A request with a known result that identifies the chain. The pool sends this request to each endpoint until the
/// endpoint has passed the check once, and uses the endpoint only if the result is the expected text.
#[derive(Debug, Clone)]
pub struct ChainCheck {
    request: Request,
    /// The text that only a node of the configured chain returns.
    expected: String,
    location: Location,
    /// The function that finds an error in a reply which reports the error without a JSON-RPC error object.
    find_error: fn(&Reply<'_>) -> Option<Rejection>,
}

/// The place in a reply where the expected text must be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Location {
    /// The result in the reply to a JSON-RPC call.
    Result,
    /// The whole body of the reply.
    Body,
    /// The end of the text in this field of a JSON object in the body.
    EndOfField(String),
}

impl ChainCheck {
    /// Returns a check that expects this text as the result of a JSON-RPC call.
    pub fn expect_result(request: Request, expected: &str) -> ChainCheck {
        ChainCheck::new(request, Location::Result, expected)
    }

    /// Returns a check that expects this text, and nothing else, as the body of the reply.
    pub fn expect_body(request: Request, expected: &str) -> ChainCheck {
        ChainCheck::new(request, Location::Body, expected)
    }

    /// Returns a check that expects a JSON object whose `field` is a text that ends with `expected`.
    pub fn expect_field_ending(request: Request, field: &str, expected: &str) -> ChainCheck {
        ChainCheck::new(request, Location::EndOfField(field.to_owned()), expected)
    }

    fn new(request: Request, location: Location, expected: &str) -> ChainCheck {
        ChainCheck { request, expected: expected.to_owned(), location, find_error: |_| None }
    }

    /// Sets a function that finds the error in a reply, for nodes that report errors with status 200 and without a
    /// JSON-RPC error object.
    pub fn with_error_finder(mut self, find_error: fn(&Reply<'_>) -> Option<Rejection>) -> ChainCheck {
        self.find_error = find_error;
        self
    }

    /// Returns the part of a reply that must equal the expected text, or the error that the reply contains.
    fn extract_text_to_compare(&self, reply: &Reply<'_>) -> Result<String, Rejection> {
        if let Some(rejection) = (self.find_error)(reply) {
            return Err(rejection);
        }
        match &self.location {
            Location::Result => reply.parse_result::<&str>().map(str::to_owned),
            Location::Body => reply.parse_text_of_status_200().map(str::to_owned),
            Location::EndOfField(field) => {
                let mut object: Map<String, Value> = reply.parse_json()?;
                let Some(Value::String(text)) = object.remove(field) else {
                    return Err(Rejection::Invalid(format!("the reply has no field `{field}`")));
                };
                let end = text.len().checked_sub(self.expected.len()).and_then(|start| text.get(start..));
                Ok(end.map_or(text.clone(), str::to_owned))
            }
        }
    }
}

impl Pool {
    /// Sends the chain check to an endpoint that has not passed it yet, and does nothing for an endpoint that has
    /// passed it. Fails with the error class and the reason if the endpoint cannot be used.
    pub(super) async fn check_chain_unless_already_verified(
        &self,
        endpoint: usize,
        timeout: Duration,
    ) -> Result<(), (ErrorClass, String)> {
        let Some(check) = &self.config.chain_check else { return Ok(()) };
        let state = &self.endpoints[endpoint];
        if state.chain_verified.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _guard = state.chain_check_lock.lock().await;
        if state.chain_verified.load(Ordering::Relaxed) {
            return Ok(());
        }
        let method = &check.request.method;
        let sent_at = Instant::now();
        let availability = state.lock_health().availability_for_method(method, sent_at);
        if matches!(availability, Availability::CoolingDown(_)) {
            // Another request sent the chain check while this request waited for the lock, and the check failed. The
            // error class is `Throttled`, because this request was not sent and may be sent after the cool-down of the
            // endpoint.
            return Err((ErrorClass::Throttled, self.explain_unavailability(endpoint, method, sent_at)));
        }
        state.lock_health().charge_requests(1, sent_at);
        let failure = match self.count_and_send_http_request(endpoint, &check.request, 1, timeout).await {
            Ok(exchange) => match check.extract_text_to_compare(&Reply::new(endpoint, exchange.status, &exchange.body))
            {
                Ok(found) if found == check.expected => {
                    state.chain_verified.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(found) => {
                    let reason =
                        format!("{method} returns {found}, expected {}: a node of another chain", check.expected);
                    error!(endpoint = %self.endpoint_label(endpoint), "the endpoint is not used: {reason}");
                    EndpointFailure::new(ErrorClass::Broken, reason)
                }
                Err(Rejection::NodeError(error)) if error.kind == NodeErrorKind::RateLimited => {
                    EndpointFailure::new(ErrorClass::Throttled, error.message)
                }
                Err(Rejection::NodeError(error)) => EndpointFailure::new(ErrorClass::Broken, error.message),
                Err(Rejection::Invalid(reason)) => EndpointFailure::new(ErrorClass::Broken, reason),
            },
            Err(TransportError::Failed { class, reason, retry_after }) => {
                EndpointFailure { class, reason, retry_after }
            }
            Err(TransportError::TooLarge { bytes_max }) => {
                EndpointFailure::new(ErrorClass::Broken, RpcError::reply_too_large(bytes_max).to_string())
            }
        };
        let class = failure.class;
        let failure = EndpointFailure { reason: self.redact_secrets(endpoint, &failure.reason), ..failure };
        Err((class, self.cool_down_and_describe_failure(endpoint, failure, sent_at)))
    }
}
