//! Questions to one endpoint, without fail-over.

use serde::Serialize;
use tokio::time::Instant;

use super::{
    Pool,
    tally::{Outcome, Tally},
    too_many_bytes,
};
use crate::{
    Answer, Bad, Failure, Refusal, RefusalKind, Reply,
    health::Ready,
    http::{Fault, Request, Trouble},
};

impl Pool {
    /// Asks one endpoint, however it feels.
    pub async fn ask_only<T, P, F>(&self, endpoint: usize, method: &str, params: &P, accept: F) -> Result<T, Failure>
    where
        P: Serialize + Sync + ?Sized,
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run_only(endpoint, method, &Request::call(method, params), accept).await
    }

    /// Gets something that is not JSON-RPC from one endpoint, however it feels.
    pub async fn fetch_only<T, F>(&self, endpoint: usize, name: &str, path: &str, accept: F) -> Result<T, Failure>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run_only(endpoint, name, &Request { path: path.to_owned(), body: None }, accept).await
    }

    async fn run_only<T, F>(&self, endpoint: usize, method: &str, request: &Request, accept: F) -> Result<T, Failure>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.nodes[endpoint].health().take(1, Instant::now());
        let exchange = match self.send(endpoint, request, 1, self.config.deadline).await {
            Ok(exchange) => exchange,
            Err(Trouble::Failed { fault: Fault::Slow, reason, .. }) => return Err(Failure::Slow(reason)),
            Err(Trouble::Failed { fault: Fault::Broken | Fault::Throttled, reason, .. }) => {
                return Err(Failure::Unavailable(reason));
            }
            Err(Trouble::TooLarge { bytes_max }) => return Err(too_many_bytes(bytes_max)),
        };
        match accept(&Reply::new(endpoint, exchange.status, &exchange.body)) {
            Ok(Answer::Sure(value) | Answer::Doubtful(value)) => Ok(value),
            Err(Bad::Wrong(reason)) => Err(Failure::Wrong(reason)),
            Err(Bad::Refused(refusal)) => Err(match refusal.kind {
                RefusalKind::MethodMissing => Failure::Missing(method.to_owned()),
                RefusalKind::TooLarge => Failure::TooLarge(refusal.message),
                RefusalKind::Quota | RefusalKind::NotThere | RefusalKind::Pruned | RefusalKind::Other => {
                    Failure::Refused(Refusal { message: self.redact(endpoint, &refusal.message), ..refusal })
                }
            }),
        }
    }

    /// Asks one endpoint when it may be asked. Unlike with [`Pool::ask_only`], its quota is waited for, what it says counts
    /// for its health, and while it rests the answer is [`Failure::Unavailable`]: for what is asked again and again.
    pub async fn ask_one<T, P, F>(&self, endpoint: usize, method: &str, params: &P, accept: F) -> Result<T, Failure>
    where
        P: Serialize + Sync + ?Sized,
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run_one(endpoint, method, &Request::call(method, params), accept).await
    }

    /// Gets something that is not JSON-RPC from one endpoint; see [`Pool::ask_one`].
    pub async fn fetch_one<T, F>(&self, endpoint: usize, name: &str, path: &str, accept: F) -> Result<T, Failure>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run_one(endpoint, name, &Request { path: path.to_owned(), body: None }, accept).await
    }

    /// Posts something that is not JSON-RPC to one endpoint; see [`Pool::ask_one`].
    pub async fn post_one<T, F>(&self, endpoint: usize, path: &str, body: Vec<u8>, accept: F) -> Result<T, Failure>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run_one(endpoint, path, &Request { path: path.to_owned(), body: Some(body) }, accept).await
    }

    async fn run_one<T, F>(&self, endpoint: usize, method: &str, request: &Request, accept: F) -> Result<T, Failure>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        let deadline = Instant::now() + self.config.deadline;
        let sent = loop {
            let now = Instant::now();
            let ready = self.nodes[endpoint].health().ready(method, now);
            match ready {
                Ready::Now if self.nodes[endpoint].health().claim(method, 1, now) => break now,
                Ready::Now => {}
                Ready::At(at) if at < self.latest(deadline) => tokio::time::sleep_until(at).await,
                Ready::Missing => return Err(Failure::Missing(method.to_owned())),
                Ready::At(_) | Ready::Cooling(_) => {
                    return Err(Failure::Unavailable(self.why_not(endpoint, method, now)));
                }
            }
        };
        let mut tally = Tally::new();
        match self.send(endpoint, request, 1, deadline - sent).await {
            Ok(exchange) => {
                let mut outcome = Outcome::default();
                let said = accept(&Reply::new(endpoint, exchange.status, &exchange.body));
                let value = self.judge(endpoint, method, said, &mut tally, &mut outcome);
                self.book(endpoint, outcome, sent);
                if let Some(value) = value {
                    return Ok(value);
                }
            }
            Err(trouble) => drop(self.troubled(endpoint, trouble, &mut tally, sent)),
        }
        tally.into_result(method)
    }

    /// Posts something that is not JSON-RPC to one endpoint, however it feels.
    pub async fn post_only<T, F>(&self, endpoint: usize, path: &str, body: Vec<u8>, accept: F) -> Result<T, Failure>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run_only(endpoint, path, &Request { path: path.to_owned(), body: Some(body) }, accept).await
    }
}
