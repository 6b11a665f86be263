//! Verifies that an endpoint is a node of the configured chain. A node of another chain would answer every request
//! consistently, and its answers would be wrong.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;
use tracing::error;

use super::{Pool, attempts::HealthEvent, reply_too_large_error};
use crate::{
    NodeErrorKind, Rejection, Reply,
    health::Availability,
    http::{ErrorClass, TransportError},
};

impl Pool {
    /// Sends the chain check to an endpoint that has not passed it yet. Fails with the error class and the reason if
    /// the endpoint cannot be used.
    pub(super) async fn verify_endpoint_chain(
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
            // Another request sent the check while this one waited for the lock, and the check failed; this request was
            // not sent.
            return Err((ErrorClass::Throttled, self.explain_unavailability(endpoint, method, sent_at)));
        }
        state.lock_health().charge_requests(1, sent_at);
        let event = match self.send_http_request(endpoint, &check.request, 1, timeout).await {
            Ok(exchange) => match check.extract_checked_text(&Reply::new(endpoint, exchange.status, &exchange.body)) {
                Ok(found) if found == check.expected => {
                    state.chain_verified.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(found) => {
                    let reason =
                        format!("{method} returns {found}, expected {}: a node of another chain", check.expected);
                    error!(endpoint = %self.endpoint_label(endpoint), "the endpoint is not used: {reason}");
                    HealthEvent::new(ErrorClass::Broken, reason)
                }
                Err(Rejection::NodeError(error)) if error.kind == NodeErrorKind::RateLimited => {
                    HealthEvent::new(ErrorClass::Throttled, error.message)
                }
                Err(Rejection::NodeError(error)) => HealthEvent::new(ErrorClass::Broken, error.message),
                Err(Rejection::Invalid(reason)) => HealthEvent::new(ErrorClass::Broken, reason),
            },
            Err(TransportError::Failed { class, reason, retry_after }) => HealthEvent { class, reason, retry_after },
            Err(TransportError::TooLarge { bytes_max }) => {
                HealthEvent::new(ErrorClass::Broken, reply_too_large_error(bytes_max).to_string())
            }
        };
        let class = event.class;
        let event = HealthEvent { reason: self.redact_secrets(endpoint, &event.reason), ..event };
        Err((class, self.record_failure(endpoint, event, sent_at)))
    }
}
