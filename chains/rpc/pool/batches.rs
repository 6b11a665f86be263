//! Many questions of one method, in batches as large as each endpoint takes them.

use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::time::Instant;
use tracing::info;

use super::{
    Choice, Pool,
    attempts::{Attempts, Outcome},
    share,
};
use crate::{
    Answer, RefusalKind, Rejection, Reply, RpcError,
    health::Availability,
    http::{ErrorClass, Request},
    reply,
};

/// Stands for the ability to take batches in the table of missing methods.
const BATCH: &str = "(batch)";

impl Pool {
    /// Asks many questions of one method, in batches of at most `batch` where nodes take them. Answers come in the order of
    /// the questions; the first that nobody answers fails all.
    pub async fn ask_many<T, P, F>(
        &self,
        method: &str,
        params: &[P],
        batch: usize,
        accept: F,
    ) -> Result<Vec<T>, RpcError>
    where
        T: Send,
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Answer<T>, Rejection> + Sync,
    {
        match self.ask_each(method, params, batch, &accept).await {
            (answers, None) => Ok(answers),
            (_, Some(failure)) => Err(failure),
        }
    }

    /// The same, for whoever can go on from where the answers end: those before the first question that nobody answers. Fails
    /// only when that is the first of all.
    pub async fn ask_prefix<T, P, F>(
        &self,
        method: &str,
        params: &[P],
        batch: usize,
        accept: F,
    ) -> Result<Vec<T>, RpcError>
    where
        T: Send,
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Answer<T>, Rejection> + Sync,
    {
        match self.ask_each(method, params, batch, &accept).await {
            (answers, Some(failure)) if answers.is_empty() => Err(failure),
            (answers, _) => Ok(answers),
        }
    }

    async fn ask_each<T, P, F>(
        &self,
        method: &str,
        params: &[P],
        batch: usize,
        accept: &F,
    ) -> (Vec<T>, Option<RpcError>)
    where
        T: Send,
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Answer<T>, Rejection> + Sync,
    {
        let size = batch.min(self.config.batch_max).max(1);
        let mut chunks = Vec::with_capacity(params.len().div_ceil(size));
        for (n, chunk) in params.chunks(size).enumerate() {
            chunks.push(self.ask_chunk(method, n * size, chunk, accept));
        }
        let mut chunks = stream::iter(chunks).buffered(self.config.concurrency.max(1));
        let mut all = Vec::with_capacity(params.len());
        while let Some((answers, failure)) = chunks.next().await {
            all.extend(answers);
            if failure.is_some() {
                return (all, failure);
            }
        }
        (all, None)
    }

    /// Questions in batches as small as the endpoints want them; what is not answered well is asked again on its own. The
    /// answers before the first question that nobody answers, and why that one has none.
    async fn ask_chunk<T, P, F>(
        &self,
        method: &str,
        offset: usize,
        params: &[P],
        accept: &F,
    ) -> (Vec<T>, Option<RpcError>)
    where
        T: Send,
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Answer<T>, Rejection> + Sync,
    {
        let mut answers: Vec<Option<T>> = params.iter().map(|_| None).collect();
        let mut asked = 0;
        while params.len() - asked > 1 {
            let (rest, answers) = (&params[asked..], &mut answers[asked..]);
            let Some(sent) = self.ask_batch(method, offset + asked, rest, accept, answers).await else { break };
            asked += sent;
        }
        let mut complete = Vec::with_capacity(params.len());
        for (i, answer) in answers.into_iter().enumerate() {
            let answer = match answer {
                Some(answer) => Ok(answer),
                None => self.ask(method, &params[i], |reply: &Reply<'_>| accept(offset + i, reply)).await,
            };
            match answer {
                Ok(answer) => complete.push(answer),
                Err(failure) => return (complete, Some(failure)),
            }
        }
        (complete, None)
    }

    /// Sends the first questions as one batch and fills in the answers that are sure. Returns how many it sent, `None` when
    /// no batch was answered. Nothing fails here: whatever is missing is asked singly, with fail-over.
    async fn ask_batch<T, P, F>(
        &self,
        method: &str,
        offset: usize,
        params: &[P],
        accept: &F,
        answers: &mut [Option<T>],
    ) -> Option<usize>
    where
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Answer<T>, Rejection> + Sync,
    {
        let asked = vec![false; self.nodes.len()];
        let deadline = Instant::now() + self.config.deadline;
        let (node, params, timeout) = loop {
            let now = Instant::now();
            match self.choose(BATCH, None, &asked, now, self.latest(deadline), true) {
                Choice::Ask { node, others } => {
                    let learnt = usize::try_from(self.nodes[node].batch().size()).unwrap_or(usize::MAX);
                    let size = learnt.max(2).min(self.nodes[node].batch_max(&self.config)).min(params.len());
                    let mut health = self.nodes[node].health();
                    if size < 2 || health.ready(method, now) == Availability::Missing {
                        return None;
                    }
                    if health.claim(BATCH, questions(size), now) {
                        break (node, &params[..size], share(deadline.saturating_duration_since(now), others));
                    }
                }
                Choice::Wait(until) => tokio::time::sleep_until(until).await,
                Choice::Nobody => return None,
            }
        };
        self.prove(node, timeout).await.ok()?;
        let used = u64::try_from(params.len()).unwrap_or(u64::MAX);
        let mut attempts = Attempts::new();
        let sent = Instant::now();
        let request = Request::batch(method, params);
        let exchange = match self.send(node, &request, questions(params.len()), timeout).await {
            Ok(exchange) => exchange,
            Err(trouble) => {
                if self.troubled(node, trouble, &mut attempts, sent) != Some(ErrorClass::Broken) {
                    self.nodes[node].batch().too_large(used, "");
                }
                return None;
            }
        };
        let mut outcome = Outcome::default();
        match reply::items(node, exchange.status, &exchange.body) {
            Ok(items) => {
                for (id, reply) in items {
                    let Some(slot) = usize::try_from(id).ok().filter(|i| *i < params.len()) else { continue };
                    let said = accept(offset + slot, &reply);
                    if let Some(value) = self.judge(node, method, said, &mut attempts, &mut outcome) {
                        answers[slot] = Some(value);
                    }
                }
            }
            Err(Rejection::Refused(refusal)) if matches!(refusal.kind, RefusalKind::Quota | RefusalKind::TooLarge) => {
                let said = Err::<Answer<T>, Rejection>(Rejection::Refused(refusal));
                drop(self.judge(node, method, said, &mut attempts, &mut outcome));
            }
            Err(_) => {
                info!(endpoint = %self.label(node), "the endpoint takes no batches; its questions are sent one by one");
                self.nodes[node].health().lacks(BATCH, Instant::now());
                return None;
            }
        }
        let answered = outcome.good;
        if outcome.is_throttled() || attempts.too_large.is_some() {
            self.nodes[node].batch().too_large(used, "");
        } else {
            self.nodes[node].batch().succeeded(used);
        }
        self.book(node, outcome, sent);
        answered.then_some(params.len())
    }
}

fn questions(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
