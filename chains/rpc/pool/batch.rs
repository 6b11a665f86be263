//! Sends many calls of one method, in JSON-RPC batches of the size that each endpoint accepts.

use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::time::Instant;
use tracing::info;

use super::{
    Pool,
    exchange_results::{Attempts, ExchangeResult},
    selection::{Selection, compute_endpoint_timeout},
};
use crate::{
    NodeErrorKind, Rejection, Reply, Request, RpcError, Target, Verdict, health::Availability, http::ErrorClass, reply,
};

/// The method name under which the health of an endpoint records that the endpoint does not accept batches.
const BATCH_METHOD: &str = "(batch)";

/// The results of many calls, in the order of the calls.
#[derive(Debug)]
pub struct CallResults<T> {
    /// The results of the calls before the first failed call.
    results: Vec<T>,
    /// The error of the first failed call; `None` if all calls succeeded.
    error: Option<RpcError>,
}

impl<T> CallResults<T> {
    /// Returns the results of all calls.
    ///
    /// # Errors
    /// Returns the error of the first failed call.
    pub fn into_all_results(self) -> Result<Vec<T>, RpcError> {
        self.error.map_or(Ok(self.results), Err)
    }

    /// Returns the results of the calls before the first failed call.
    ///
    /// # Errors
    /// Returns the error of the first call if that call failed.
    pub fn into_results_before_failure(self) -> Result<Vec<T>, RpcError> {
        match self.error {
            Some(error) if self.results.is_empty() => Err(error),
            Some(_) | None => Ok(self.results),
        }
    }
}

impl Pool {
    /// Sends one call for each element of `params`, in batches of at most `batch_max` calls if the endpoints accept
    /// batches. Calls without an accepted reply are sent again one by one; each of them goes to one endpoint after
    /// another until a reply is accepted. The first argument of `accept` is the index of the call. Stops after the
    /// first call that fails.
    pub async fn send_calls_batched_or_one_by_one<T, P, F>(
        &self,
        method: &str,
        params: &[P],
        batch_max: usize,
        accept: F,
    ) -> CallResults<T>
    where
        T: Send,
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Verdict<T>, Rejection> + Sync,
    {
        self.send_calls_batched_or_one_by_one_to(Target::Any, method, params, batch_max, accept).await
    }

    /// Sends calls as [`Pool::send_calls_batched_or_one_by_one`] does, but only to the endpoints of `target`.
    pub async fn send_calls_batched_or_one_by_one_to<T, P, F>(
        &self,
        target: Target,
        method: &str,
        params: &[P],
        batch_max: usize,
        accept: F,
    ) -> CallResults<T>
    where
        T: Send,
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Verdict<T>, Rejection> + Sync,
    {
        let size = batch_max.min(self.config.batch_max).max(1);
        let mut chunks = Vec::with_capacity(params.len().div_ceil(size));
        for (n, chunk) in params.chunks(size).enumerate() {
            chunks.push(self.send_chunk_batched_or_one_by_one(target, method, n * size, chunk, &accept));
        }
        let mut chunks = stream::iter(chunks).buffered(self.config.concurrency.max(1));
        let mut all = CallResults { results: Vec::with_capacity(params.len()), error: None };
        while let Some(chunk) = chunks.next().await {
            all.results.extend(chunk.results);
            all.error = chunk.error;
            if all.error.is_some() {
                break;
            }
        }
        all
    }

    /// Sends the calls of one chunk, which begins at index `offset`, in batches of the size that the endpoints accept.
    /// Sends the calls without an accepted reply again one by one, and stops after the first call that fails.
    async fn send_chunk_batched_or_one_by_one<T, P, F>(
        &self,
        target: Target,
        method: &str,
        offset: usize,
        params: &[P],
        accept: &F,
    ) -> CallResults<T>
    where
        T: Send,
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Verdict<T>, Rejection> + Sync,
    {
        let mut values: Vec<Option<T>> = params.iter().map(|_| None).collect();
        let mut sent = 0;
        while params.len() - sent > 1 {
            let (remaining, values) = (&params[sent..], &mut values[sent..]);
            let Some(count) = self
                .send_leading_batch_and_store_values(target, method, offset + sent, remaining, accept, values)
                .await
            else {
                break;
            };
            sent += count;
        }
        let mut results = Vec::with_capacity(params.len());
        for (i, value) in values.into_iter().enumerate() {
            let result = match value {
                Some(value) => Ok(value),
                None => {
                    let request = Request::json_rpc_call(method, &params[i]).with_target(target);
                    self.send_request(request, |reply: &Reply<'_>| accept(offset + i, reply)).await
                }
            };
            match result {
                Ok(value) => results.push(value),
                Err(error) => return CallResults { results, error: Some(error) },
            }
        }
        CallResults { results, error: None }
    }

    /// Sends as many of the first calls as the endpoint accepts, in one batch, and stores the accepted results in
    /// `values`. Returns the number of calls sent, or `None` if no reply was accepted; the caller then sends these
    /// calls one by one.
    async fn send_leading_batch_and_store_values<T, P, F>(
        &self,
        target: Target,
        method: &str,
        offset: usize,
        params: &[P],
        accept: &F,
        values: &mut [Option<T>],
    ) -> Option<usize>
    where
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Verdict<T>, Rejection> + Sync,
    {
        let attempted: Vec<bool> = (0..self.endpoints.len()).map(|i| self.is_excluded_by_target(target, i)).collect();
        let deadline = Instant::now() + self.config.deadline;
        let wait_until = self.latest_wait_end(deadline);
        let (endpoint, params, timeout) = loop {
            let now = Instant::now();
            match self.select_endpoint_or_wait_time(BATCH_METHOD, target, &attempted, now, wait_until, true) {
                Selection::Send { endpoint, others } => {
                    let state = &self.endpoints[endpoint];
                    let learnt = usize::try_from(state.lock_batch_size().size()).unwrap_or(usize::MAX);
                    let size = learnt.max(2).min(state.batch_max(&self.config)).min(params.len());
                    let mut health = state.lock_health();
                    if size < 2 || health.availability_for_method(method, now) == Availability::MethodMissing {
                        return None;
                    }
                    if health.charge_requests_if_available(BATCH_METHOD, to_request_count(size), now) {
                        let timeout = compute_endpoint_timeout(deadline.saturating_duration_since(now), others);
                        break (endpoint, &params[..size], timeout);
                    }
                }
                Selection::Wait(until) => tokio::time::sleep_until(until).await,
                Selection::None => return None,
            }
        };
        self.check_chain_unless_already_verified(endpoint, timeout).await.ok()?;
        let state = &self.endpoints[endpoint];
        let size = u64::try_from(params.len()).unwrap_or(u64::MAX);
        let mut attempts = Attempts::new();
        let sent_at = Instant::now();
        let request = Request::json_rpc_batch(method, params);
        let exchange =
            match self.count_and_send_http_request(endpoint, &request, to_request_count(params.len()), timeout).await {
                Ok(exchange) => exchange,
                Err(error) => {
                    let class = self.record_transport_error_and_cool_down(endpoint, error, &mut attempts, sent_at);
                    if class != Some(ErrorClass::Broken) {
                        state.lock_batch_size().shrink_after_too_large(size, "");
                    }
                    return None;
                }
            };
        let mut result = ExchangeResult::default();
        match reply::split_batch_reply(endpoint, exchange.status, &exchange.body) {
            Ok(items) => {
                for (id, reply) in items {
                    let Some(slot) = usize::try_from(id).ok().filter(|i| *i < params.len()) else { continue };
                    let verdict = accept(offset + slot, &reply);
                    if let Some(value) =
                        self.record_verdict_and_take_value(endpoint, method, verdict, &mut attempts, &mut result)
                    {
                        values[slot] = Some(value);
                    }
                }
            }
            Err(Rejection::NodeError(error))
                if matches!(error.kind, NodeErrorKind::RateLimited | NodeErrorKind::TooLarge) =>
            {
                let verdict = Err(Rejection::NodeError(error));
                drop(self.record_verdict_and_take_value(endpoint, method, verdict, &mut attempts, &mut result));
            }
            Err(_) => {
                let label = self.endpoint_label(endpoint);
                info!(endpoint = %label, "the endpoint does not accept batches; its calls are sent one by one");
                state.lock_health().record_method_missing_for_ten_minutes(BATCH_METHOD, Instant::now());
                return None;
            }
        }
        let accepted = result.accepted;
        if result.is_throttled() || attempts.too_large.is_some() {
            state.lock_batch_size().shrink_after_too_large(size, "");
        } else {
            state.lock_batch_size().grow_after_ten_full_size_successes(size);
        }
        self.start_or_end_cool_down_by_result(endpoint, result, sent_at);
        accepted.then_some(params.len())
    }
}

/// Converts a number of calls to the number of requests that are subtracted from the rate limits.
fn to_request_count(calls: usize) -> u32 {
    u32::try_from(calls).unwrap_or(u32::MAX)
}
