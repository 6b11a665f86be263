//! Questions to one endpoint, without fail-over.

use serde::Serialize;
use tokio::time::Instant;

use super::{
    Pool,
    attempts::{Attempts, Outcome},
    too_many_bytes,
};
use crate::{
    Answer, Refusal, RefusalKind, Rejection, Reply, RpcError,
    health::Availability,
    http::{ErrorClass, Request, TransportError},
};

impl Pool {
    /// Asks one endpoint, however it feels.
    pub async fn ask_only<T, P, F>(&self, endpoint: usize, method: &str, params: &P, accept: F) -> Result<T, RpcError>
    where
        P: Serialize + Sync + ?Sized,
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        self.run_only(endpoint, method, &Request::call(method, params), accept).await
    }

    /// Gets something that is not JSON-RPC from one endpoint, however it feels.
    pub async fn fetch_only<T, F>(&self, endpoint: usize, name: &str, path: &str, accept: F) -> Result<T, RpcError>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        self.run_only(endpoint, name, &Request { path: path.to_owned(), body: None }, accept).await
    }

    async fn run_only<T, F>(&self, endpoint: usize, method: &str, request: &Request, accept: F) -> Result<T, RpcError>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        self.nodes[endpoint].health().take(1, Instant::now());
        let exchange = match self.send(endpoint, request, 1, self.config.deadline).await {
            Ok(exchange) => exchange,
            Err(TransportError::Failed { fault: ErrorClass::Slow, reason, .. }) => return Err(RpcError::Slow(reason)),
            Err(TransportError::Failed { fault: ErrorClass::Broken | ErrorClass::Throttled, reason, .. }) => {
                return Err(RpcError::Unavailable(reason));
            }
            Err(TransportError::TooLarge { bytes_max }) => return Err(too_many_bytes(bytes_max)),
        };
        match accept(&Reply::new(endpoint, exchange.status, &exchange.body)) {
            Ok(Answer::Sure(value) | Answer::Doubtful(value)) => Ok(value),
            Err(Rejection::Wrong(reason)) => Err(RpcError::Wrong(reason)),
            Err(Rejection::Refused(refusal)) => Err(match refusal.kind {
                RefusalKind::MethodMissing => RpcError::Missing(method.to_owned()),
                RefusalKind::TooLarge => RpcError::TooLarge(refusal.message),
                RefusalKind::Quota | RefusalKind::NotThere | RefusalKind::Pruned | RefusalKind::Other => {
                    RpcError::Refused(Refusal { message: self.redact(endpoint, &refusal.message), ..refusal })
                }
            }),
        }
    }

    /// Asks one endpoint when it may be asked. Unlike with [`Pool::ask_only`], its quota is waited for, what it says counts
    /// for its health, and while it rests the answer is [`RpcError::Unavailable`]: for what is asked again and again.
    pub async fn ask_one<T, P, F>(&self, endpoint: usize, method: &str, params: &P, accept: F) -> Result<T, RpcError>
    where
        P: Serialize + Sync + ?Sized,
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        self.run_one(endpoint, method, &Request::call(method, params), accept).await
    }

    /// Gets something that is not JSON-RPC from one endpoint; see [`Pool::ask_one`].
    pub async fn fetch_one<T, F>(&self, endpoint: usize, name: &str, path: &str, accept: F) -> Result<T, RpcError>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        self.run_one(endpoint, name, &Request { path: path.to_owned(), body: None }, accept).await
    }

    /// Posts something that is not JSON-RPC to one endpoint; see [`Pool::ask_one`].
    pub async fn post_one<T, F>(&self, endpoint: usize, path: &str, body: Vec<u8>, accept: F) -> Result<T, RpcError>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        self.run_one(endpoint, path, &Request { path: path.to_owned(), body: Some(body) }, accept).await
    }

    async fn run_one<T, F>(&self, endpoint: usize, method: &str, request: &Request, accept: F) -> Result<T, RpcError>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        let deadline = Instant::now() + self.config.deadline;
        let sent = loop {
            let now = Instant::now();
            let ready = self.nodes[endpoint].health().ready(method, now);
            match ready {
                Availability::Now if self.nodes[endpoint].health().claim(method, 1, now) => break now,
                Availability::Now => {}
                Availability::At(at) if at < self.latest(deadline) => tokio::time::sleep_until(at).await,
                Availability::Missing => return Err(RpcError::Missing(method.to_owned())),
                Availability::At(_) | Availability::Cooling(_) => {
                    return Err(RpcError::Unavailable(self.why_not(endpoint, method, now)));
                }
            }
        };
        let mut attempts = Attempts::new();
        match self.send(endpoint, request, 1, deadline - sent).await {
            Ok(exchange) => {
                let mut outcome = Outcome::default();
                let said = accept(&Reply::new(endpoint, exchange.status, &exchange.body));
                let value = self.judge(endpoint, method, said, &mut attempts, &mut outcome);
                self.book(endpoint, outcome, sent);
                if let Some(value) = value {
                    return Ok(value);
                }
            }
            Err(trouble) => drop(self.troubled(endpoint, trouble, &mut attempts, sent)),
        }
        attempts.into_result(method)
    }

    /// Posts something that is not JSON-RPC to one endpoint, however it feels.
    pub async fn post_only<T, F>(&self, endpoint: usize, path: &str, body: Vec<u8>, accept: F) -> Result<T, RpcError>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        self.run_only(endpoint, path, &Request { path: path.to_owned(), body: Some(body) }, accept).await
    }
}
