//! Sends a question to one healthy endpoint after the other until an answer is accepted.
//!
//! Only reads fail over, and each endpoint is asked at most once per question. What a node refuses is data; only broken,
//! slow, throttled or wrong answers count against its health.

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chain::{Height, SourceError};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::{
    Answer, Bad, Endpoint, Refusal, RefusalKind, Reply, Role,
    health::{Health, Ready},
    http::{Client, Exchange, Request, Trouble},
    reply,
};

/// Stands for the ability to take batches in the table of missing methods.
const BATCH: &str = "(batch)";

#[derive(Debug, Clone)]
pub struct Config {
    /// In order of preference: a later one is asked when the earlier ones fail, rest or have used up their quota.
    pub endpoints: Vec<Endpoint>,
    /// For one question over all endpoints.
    pub deadline: Duration,
    /// For one answer.
    pub body_bytes_max: usize,
    /// Most questions in one JSON-RPC batch, whatever a driver would like; 1 sends none.
    pub batch_max: usize,
    /// Batches under way at once.
    pub concurrency: usize,
    /// An endpoint whose head is further behind the best one is asked last.
    pub head_lag_max: u64,
    /// Asked of every endpoint before it is believed anything.
    pub proof: Option<Proof>,
}

/// A question whose answer, a text, proves that an endpoint is a node of our chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// As it is called in messages and in the table of missing methods.
    pub name: String,
    pub expected: String,
    request: Request,
    form: Form,
}

/// Where in an answer the proof stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// The result of a JSON-RPC call.
    Result,
    /// The whole body.
    Body,
    /// The end of this field of a JSON object.
    EndOf(String),
}

impl Proof {
    /// A JSON-RPC call whose result is `expected`.
    pub fn call<P: Serialize + ?Sized>(method: &str, params: &P, expected: &str) -> Proof {
        let request = json_rpc(method, params);
        Proof { name: method.to_owned(), expected: expected.to_owned(), request, form: Form::Result }
    }

    /// A path below which a GET finds nothing but `expected`.
    pub fn path(path: &str, expected: &str) -> Proof {
        let request = Request { path: path.to_owned(), body: None };
        Proof { name: path.to_owned(), expected: expected.to_owned(), request, form: Form::Body }
    }

    /// A question whose answer is a JSON object with a text `field` that ends with `expected`.
    pub fn posted(path: &str, body: Vec<u8>, field: &str, expected: &str) -> Proof {
        let request = Request { path: path.to_owned(), body: Some(body) };
        Proof { name: path.to_owned(), expected: expected.to_owned(), request, form: Form::EndOf(field.to_owned()) }
    }

    fn read(&self, reply: &Reply<'_>) -> Result<String, Bad> {
        match &self.form {
            Form::Result => reply.result::<&str>().map(str::to_owned),
            Form::Body => reply.text().map(str::to_owned),
            Form::EndOf(field) => {
                let mut answer: Map<String, Value> = reply.json()?;
                let Some(Value::String(text)) = answer.remove(field) else {
                    return Err(Bad::Wrong(format!("no {field} in the answer")));
                };
                let end = text.len().checked_sub(self.expected.len()).and_then(|at| text.get(at..));
                Ok(end.map_or(text.clone(), str::to_owned))
            }
        }
    }
}

impl Config {
    pub fn new(endpoints: Vec<Endpoint>) -> Config {
        Config {
            endpoints,
            deadline: Duration::from_secs(10),
            body_bytes_max: 64 << 20,
            batch_max: 100,
            concurrency: 3,
            head_lag_max: 3,
            proof: None,
        }
    }
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody answered usefully; says why, endpoint by endpoint.
    #[error("{0}")]
    Unavailable(String),
    /// Nobody who answered knows the method.
    #[error("no endpoint offers {0}")]
    Missing(String),
    /// The question covers too much; the node's words may suggest a size.
    #[error("the answer would be too large: {0}")]
    TooLarge(String),
    #[error("refused: {} ({})", .0.message, .0.code)]
    Refused(Refusal),
    /// Everybody who answered contradicted what the answer is committed to.
    #[error("{0}")]
    Wrong(String),
}

impl Failure {
    /// What it means for a question about the block at `height`.
    pub fn at(self, height: Height) -> SourceError {
        match self {
            Failure::Unavailable(reason) => SourceError::Unavailable(reason),
            Failure::Missing(method) => SourceError::Unsupported(method),
            Failure::TooLarge(reason) => SourceError::Unavailable(format!("an answer is too large: {reason}")),
            Failure::Wrong(reason) => SourceError::Wrong(reason),
            Failure::Refused(refusal) => match refusal.kind {
                RefusalKind::NotThere => SourceError::NotThere(height),
                RefusalKind::Pruned | RefusalKind::MethodMissing => SourceError::Unsupported(refusal.message),
                RefusalKind::TooLarge | RefusalKind::Quota | RefusalKind::Other => {
                    SourceError::Unavailable(refusal.message)
                }
            },
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no endpoint with the role `read` is configured")]
    NothingToRead,
    #[error("the HTTP client cannot be built: {0}")]
    Client(#[from] reqwest::Error),
}

pub struct Pool {
    client: Client,
    nodes: Vec<Node>,
    config: Config,
    requests: AtomicU64,
}

struct Node {
    endpoint: Endpoint,
    health: Mutex<Health>,
    /// It gave the expected answer to [`Config::proof`] once.
    proven: AtomicBool,
    /// Held while it is asked for that, so that it is asked once.
    proving: tokio::sync::Mutex<()>,
}

impl Node {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("no panic while health is held")
    }
}

enum Choice {
    Ask { node: usize, others: u32 },
    Wait(Instant),
    Nobody,
}

/// What the endpoints said to one question so far.
struct Tally<T> {
    doubtful: Option<T>,
    too_large: Option<String>,
    refused: Option<Refusal>,
    wrong: Option<String>,
    missing: bool,
    troubles: Vec<String>,
}

impl Pool {
    pub fn new(config: Config) -> Result<Pool, ConfigError> {
        if !config.endpoints.iter().any(|endpoint| endpoint.has(Role::Read)) {
            return Err(ConfigError::NothingToRead);
        }
        let node = |endpoint: &Endpoint| Node {
            endpoint: endpoint.clone(),
            health: Mutex::new(Health::new(endpoint.limits())),
            proven: AtomicBool::new(config.proof.is_none()),
            proving: tokio::sync::Mutex::new(()),
        };
        Ok(Pool {
            client: Client::new()?,
            nodes: config.endpoints.iter().map(node).collect(),
            config,
            requests: AtomicU64::new(0),
        })
    }

    /// Questions sent since start; every item of a batch counts, because providers bill it.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &Endpoint> {
        self.nodes.iter().map(|node| &node.endpoint)
    }

    /// Asks a JSON-RPC question. `accept` reads and judges each answer; the first sure one wins.
    pub async fn ask<T, P, F>(&self, method: &str, params: &P, accept: F) -> Result<T, Failure>
    where
        P: Serialize + Sync + ?Sized,
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run(method, &json_rpc(method, params), None, accept).await
    }

    /// The same, beginning with the endpoint at `first`, counted round, even if its head was behind: a caller who counts up
    /// hears every one regularly and learns that it caught up.
    pub async fn ask_from<T, P, F>(&self, first: usize, method: &str, params: &P, accept: F) -> Result<T, Failure>
    where
        P: Serialize + Sync + ?Sized,
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run(method, &json_rpc(method, params), Some(first % self.nodes.len()), accept).await
    }

    /// Asks one endpoint, however it feels.
    pub async fn ask_only<T, P, F>(&self, endpoint: usize, method: &str, params: &P, accept: F) -> Result<T, Failure>
    where
        P: Serialize + Sync + ?Sized,
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run_only(endpoint, method, &json_rpc(method, params), accept).await
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
            Err(Trouble::Failed { reason, .. }) => return Err(Failure::Unavailable(reason)),
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

    /// Asks many questions of one method, in batches of at most `batch` where nodes take them. Answers come in the order of
    /// the questions; the first that nobody answers fails all.
    pub async fn ask_many<T, P, F>(
        &self,
        method: &str,
        params: &[P],
        batch: usize,
        accept: F,
    ) -> Result<Vec<T>, Failure>
    where
        T: Send,
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Answer<T>, Bad> + Sync,
    {
        let size = batch.min(self.config.batch_max).max(1);
        let accept = &accept;
        let mut chunks = Vec::with_capacity(params.len().div_ceil(size));
        for (n, chunk) in params.chunks(size).enumerate() {
            chunks.push(self.ask_chunk(method, n * size, chunk, accept));
        }
        let chunks = stream::iter(chunks).buffered(self.config.concurrency.max(1));
        let answers: Vec<Vec<T>> = chunks.try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Posts something that is not JSON-RPC, beginning with the endpoint at `first` as [`Pool::ask_from`] does.
    pub async fn post_from<T, F>(&self, first: usize, path: &str, body: Vec<u8>, accept: F) -> Result<T, Failure>
    where
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        let request = Request { path: path.to_owned(), body: Some(body) };
        self.run(path, &request, Some(first % self.nodes.len()), accept).await
    }

    /// Posts something that is not JSON-RPC to one endpoint, however it feels.
    pub async fn post_only<T, F>(&self, endpoint: usize, path: &str, body: Vec<u8>, accept: F) -> Result<T, Failure>
    where
        F: FnOnce(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run_only(endpoint, path, &Request { path: path.to_owned(), body: Some(body) }, accept).await
    }

    /// Posts or gets something that is not JSON-RPC. `name` stands for the method in health and quarantine.
    pub async fn fetch<T, F>(&self, name: &str, path: &str, body: Option<Vec<u8>>, accept: F) -> Result<T, Failure>
    where
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        self.run(name, &Request { path: path.to_owned(), body }, None, accept).await
    }

    /// The same, beginning with the endpoint at `first`, counted round; see [`Pool::ask_from`].
    pub async fn fetch_from<T, F>(&self, first: usize, name: &str, path: &str, accept: F) -> Result<T, Failure>
    where
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        let request = Request { path: path.to_owned(), body: None };
        self.run(name, &request, Some(first % self.nodes.len()), accept).await
    }

    /// Gives the same question to every endpoint of a role at once, resting or not, and returns what each one said.
    pub async fn tell_all<P>(&self, role: Role, method: &str, params: &P) -> Vec<(usize, Result<Vec<u8>, String>)>
    where
        P: Serialize + Sync + ?Sized,
    {
        self.tell(role, &json_rpc(method, params)).await
    }

    /// Posts the same bytes to a path below every endpoint of a role at once.
    pub async fn post_all(&self, role: Role, path: &str, body: Vec<u8>) -> Vec<(usize, Result<Vec<u8>, String>)> {
        self.tell(role, &Request { path: path.to_owned(), body: Some(body) }).await
    }

    async fn tell(&self, role: Role, request: &Request) -> Vec<(usize, Result<Vec<u8>, String>)> {
        let told = self.nodes.iter().enumerate().filter(|(_, node)| node.endpoint.has(role)).map(|(i, _)| async move {
            self.nodes[i].health().take(1, Instant::now());
            let said = match self.send(i, request, 1, self.config.deadline).await {
                Ok(exchange) => Ok(exchange.body),
                Err(Trouble::Failed { reason, .. }) => Err(reason),
                Err(Trouble::TooLarge { bytes_max }) => Err(too_many_bytes(bytes_max).to_string()),
            };
            (i, said)
        });
        future::join_all(told).await
    }

    /// Remembers where an endpoint stands.
    pub fn saw_head(&self, endpoint: usize, height: Height) {
        if let Some(node) = self.nodes.get(endpoint) {
            node.health().saw_head(height, Instant::now());
        }
    }

    /// Blanks everything in a node's words that stands in the endpoint's URL or headers.
    pub fn redact(&self, endpoint: usize, text: &str) -> String {
        self.nodes.get(endpoint).map_or_else(String::new, |node| node.endpoint.redact(text))
    }

    /// Host and port of an endpoint.
    pub fn label(&self, endpoint: usize) -> String {
        self.nodes.get(endpoint).map_or_else(|| "?".to_owned(), |node| node.endpoint.label())
    }

    async fn run<T, F>(
        &self,
        method: &str,
        request: &Request,
        first: Option<usize>,
        mut accept: F,
    ) -> Result<T, Failure>
    where
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Bad>,
    {
        let deadline = Instant::now() + self.config.deadline;
        let mut asked = vec![false; self.nodes.len()];
        let mut tally = Tally::new();
        loop {
            let now = Instant::now();
            let (node, others) = match self.choose(method, first, &asked, now) {
                Choice::Ask { node, others } if now < deadline => {
                    if !self.nodes[node].health().claim(method, 1, now) {
                        continue;
                    }
                    (node, others)
                }
                Choice::Wait(until) if until < deadline => {
                    tokio::time::sleep_until(until).await;
                    continue;
                }
                Choice::Wait(_) => {
                    tally.troubles.push("the quota is used up".to_owned());
                    break;
                }
                Choice::Ask { .. } | Choice::Nobody => break,
            };
            asked[node] = true;
            // A silent endpoint may not eat the time of those that come after it.
            let timeout = (deadline - now) / (others + 1);
            if let Err(reason) = self.prove(node, timeout).await {
                tally.troubles.push(reason);
                continue;
            }
            let exchange = match self.send(node, request, 1, timeout).await {
                Ok(exchange) => exchange,
                Err(Trouble::TooLarge { bytes_max }) => {
                    tally.too_large.get_or_insert(format!("more than {bytes_max} bytes from {}", self.label(node)));
                    continue;
                }
                Err(Trouble::Failed { reason, retry_after }) => {
                    tally.troubles.push(self.failed(node, &reason, retry_after));
                    continue;
                }
            };
            let reply = Reply::new(node, exchange.status, &exchange.body);
            if let Some(value) = self.judge(node, method, accept(&reply), &mut tally) {
                return Ok(value);
            }
        }
        tally.troubles.extend(self.not_asked(method, &asked));
        tally.missing |= self.nobody_has(method);
        Err(match tally {
            Tally { doubtful: Some(value), .. } => return Ok(value),
            Tally { too_large: Some(message), .. } => Failure::TooLarge(message),
            Tally { refused: Some(refusal), .. } => Failure::Refused(refusal),
            Tally { wrong: Some(reason), .. } => Failure::Wrong(reason),
            Tally { missing: true, .. } => Failure::Missing(method.to_owned()),
            Tally { troubles, .. } => Failure::Unavailable(troubles.join("; ")),
        })
    }

    /// One batch to one endpoint; what it does not answer well is asked again on its own.
    async fn ask_chunk<T, P, F>(&self, method: &str, offset: usize, params: &[P], accept: &F) -> Result<Vec<T>, Failure>
    where
        T: Send,
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Answer<T>, Bad> + Sync,
    {
        let mut answers: Vec<Option<T>> = params.iter().map(|_| None).collect();
        if params.len() > 1 {
            self.ask_batch(method, offset, params, accept, &mut answers).await;
        }
        let mut complete = Vec::with_capacity(params.len());
        for (i, answer) in answers.into_iter().enumerate() {
            complete.push(match answer {
                Some(answer) => answer,
                None => self.ask(method, &params[i], |reply: &Reply<'_>| accept(offset + i, reply)).await?,
            });
        }
        Ok(complete)
    }

    /// Fills in the answers that are sure. Nothing fails here: whatever is missing is asked singly, with fail-over.
    async fn ask_batch<T, P, F>(&self, method: &str, offset: usize, params: &[P], accept: &F, answers: &mut [Option<T>])
    where
        P: Serialize + Sync,
        F: Fn(usize, &Reply<'_>) -> Result<Answer<T>, Bad> + Sync,
    {
        let asked = vec![false; self.nodes.len()];
        let cost = u32::try_from(params.len()).unwrap_or(u32::MAX);
        let deadline = Instant::now() + self.config.deadline;
        let node = loop {
            match self.choose(BATCH, None, &asked, Instant::now()) {
                Choice::Ask { node, .. } => {
                    if self.nodes[node].health().claim(BATCH, cost, Instant::now()) {
                        break node;
                    }
                }
                Choice::Wait(until) if until < deadline => tokio::time::sleep_until(until).await,
                Choice::Wait(_) | Choice::Nobody => return,
            }
        };
        if self.nodes[node].health().ready(method, Instant::now()) == Ready::Missing
            || self.prove(node, self.config.deadline).await.is_err()
        {
            return;
        }
        let exchange = match self.send(node, &json_rpc_batch(method, params), cost, self.config.deadline).await {
            Ok(exchange) => exchange,
            Err(Trouble::TooLarge { .. }) => return,
            Err(Trouble::Failed { reason, retry_after }) => {
                self.failed(node, &reason, retry_after);
                return;
            }
        };
        let items = match reply::items(node, exchange.status, &exchange.body) {
            Ok(items) => items,
            Err(Bad::Refused(refusal)) if refusal.kind == RefusalKind::Quota => {
                self.failed(node, &refusal.message, None);
                return;
            }
            Err(_) => {
                info!(endpoint = %self.label(node), "the endpoint takes no batches; its questions are sent one by one");
                self.nodes[node].health().lacks(BATCH, Instant::now());
                return;
            }
        };
        let mut tally = Tally::new();
        for (id, reply) in items {
            let Some(slot) = usize::try_from(id).ok().filter(|i| *i < answers.len()) else { continue };
            if let Some(value) = self.judge(node, method, accept(offset + slot, &reply), &mut tally) {
                answers[slot] = Some(value);
            }
        }
    }

    /// Books an answer to the endpoint's health and the question's tally. Only a sure one ends the question.
    fn judge<T>(&self, node: usize, method: &str, said: Result<Answer<T>, Bad>, tally: &mut Tally<T>) -> Option<T> {
        match said {
            Ok(Answer::Sure(value)) => {
                self.nodes[node].health().succeeded();
                return Some(value);
            }
            Ok(Answer::Doubtful(value)) => {
                self.nodes[node].health().succeeded();
                tally.doubtful.get_or_insert(value);
            }
            Err(Bad::Wrong(reason)) => {
                error!(endpoint = %self.label(node), method, "a wrong answer was refused: {reason}");
                tally.wrong = Some(self.failed(node, &reason, None));
            }
            Err(Bad::Refused(refusal)) => {
                let message = self.redact(node, &refusal.message);
                match refusal.kind {
                    RefusalKind::TooLarge => {
                        tally.too_large.get_or_insert(message);
                    }
                    RefusalKind::MethodMissing => {
                        info!(endpoint = %self.label(node), method, "the endpoint does not offer {method}: {message}");
                        self.nodes[node].health().lacks(method, Instant::now());
                        tally.missing = true;
                    }
                    RefusalKind::Quota => tally.troubles.push(self.failed(node, &message, None)),
                    RefusalKind::NotThere | RefusalKind::Pruned | RefusalKind::Other => {
                        tally.refused =
                            Some(Refusal { message: format!("{}: {message}", self.label(node)), ..refusal });
                    }
                }
            }
        }
        None
    }

    /// A node of another chain would answer everything, consistently and wrongly.
    async fn prove(&self, node: usize, timeout: Duration) -> Result<(), String> {
        let Some(proof) = &self.config.proof else { return Ok(()) };
        let proven = &self.nodes[node].proven;
        if proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _proving = self.nodes[node].proving.lock().await;
        if proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        let rests = matches!(self.nodes[node].health().ready(&proof.name, Instant::now()), Ready::Cooling(_));
        if rests {
            return Err(format!("{}: rests after `{}`", self.label(node), self.nodes[node].health().last_trouble()));
        }
        self.nodes[node].health().take(1, Instant::now());
        let exchange = match self.send(node, &proof.request, 1, timeout).await {
            Ok(exchange) => exchange,
            Err(Trouble::Failed { reason, retry_after }) => return Err(self.failed(node, &reason, retry_after)),
            Err(Trouble::TooLarge { bytes_max }) => {
                return Err(self.failed(node, &too_many_bytes(bytes_max).to_string(), None));
            }
        };
        match proof.read(&Reply::new(node, exchange.status, &exchange.body)) {
            Ok(said) if said == proof.expected => {
                proven.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(said) => {
                let reason =
                    format!("{} says {said}, expected {}: a node of another chain", proof.name, proof.expected);
                error!(endpoint = %self.label(node), "the endpoint is not used: {reason}");
                Err(self.failed(node, &reason, None))
            }
            Err(Bad::Refused(Refusal { message: reason, .. }) | Bad::Wrong(reason)) => {
                Err(self.failed(node, &reason, None))
            }
        }
    }

    async fn send(&self, node: usize, request: &Request, cost: u32, timeout: Duration) -> Result<Exchange, Trouble> {
        self.requests.fetch_add(u64::from(cost), Ordering::Relaxed);
        self.client.send(&self.nodes[node].endpoint, request, timeout, self.config.body_bytes_max).await
    }

    fn failed(&self, node: usize, reason: &str, retry_after: Option<Duration>) -> String {
        let label = self.label(node);
        let retry_after = retry_after.or_else(|| reply::suspension(reason));
        let reason = self.redact(node, reason);
        let mut health = self.nodes[node].health();
        if health.last_trouble() != reason {
            warn!(endpoint = %label, "the endpoint rests for a while: {reason}");
        }
        health.failed(reason.clone(), retry_after, Instant::now());
        format!("{label}: {reason}")
    }

    /// In order of preference, or all the way round from `first`.
    fn choose(&self, method: &str, first: Option<usize>, asked: &[bool], now: Instant) -> Choice {
        let heads: Vec<Option<Height>> = self.nodes.iter().map(|node| node.health().head(now)).collect();
        let best = heads.iter().flatten().max().copied().unwrap_or(0);
        let lags = |i: usize| first.is_none() && heads[i].is_some_and(|head| best - head > self.config.head_lag_max);

        let count = self.nodes.len();
        let mut ready = Vec::with_capacity(count);
        let mut soonest: Option<Instant> = None;
        for i in (0..count).map(|i| (first.unwrap_or(0) + i) % count).filter(|i| !asked[*i]) {
            if !self.nodes[i].endpoint.has(Role::Read) {
                continue;
            }
            match self.nodes[i].health().ready(method, now) {
                Ready::Now => ready.push(i),
                Ready::At(at) => soonest = Some(soonest.map_or(at, |other| other.min(at))),
                Ready::Cooling(_) | Ready::Missing => {}
            }
        }
        ready.sort_by_key(|i| lags(*i));
        let others = u32::try_from(ready.len().saturating_sub(1)).unwrap_or(u32::MAX - 1);
        match (ready.first(), soonest) {
            (Some(node), Some(until)) if lags(*node) => Choice::Wait(until),
            (Some(node), _) => Choice::Ask { node: *node, others },
            (None, Some(until)) => Choice::Wait(until),
            (None, None) => Choice::Nobody,
        }
    }

    /// Why the remaining endpoints were not asked.
    fn not_asked(&self, method: &str, asked: &[bool]) -> Vec<String> {
        let now = Instant::now();
        let unasked = self.nodes.iter().zip(asked).filter(|(node, asked)| !**asked && node.endpoint.has(Role::Read));
        unasked
            .map(|(node, _)| {
                let health = node.health();
                let why = match health.ready(method, now) {
                    Ready::Cooling(_) => format!("rests after `{}`", health.last_trouble()),
                    Ready::Missing => format!("does not offer {method}"),
                    Ready::At(_) => "its quota is used up".to_owned(),
                    Ready::Now => "no time was left".to_owned(),
                };
                format!("{}: {why}", node.endpoint)
            })
            .collect()
    }

    fn nobody_has(&self, method: &str) -> bool {
        let now = Instant::now();
        let mut readers = self.nodes.iter().filter(|node| node.endpoint.has(Role::Read));
        readers.all(|node| node.health().ready(method, now) == Ready::Missing)
    }
}

impl<T> Tally<T> {
    fn new() -> Tally<T> {
        Tally { doubtful: None, too_large: None, refused: None, wrong: None, missing: false, troubles: Vec::new() }
    }
}

fn too_many_bytes(bytes_max: usize) -> Failure {
    Failure::TooLarge(format!("more than {bytes_max} bytes"))
}

#[derive(Serialize)]
struct Call<'a, P: ?Sized> {
    jsonrpc: &'static str,
    id: usize,
    method: &'a str,
    params: &'a P,
}

fn json_rpc<P: Serialize + ?Sized>(method: &str, params: &P) -> Request {
    encode(&Call { jsonrpc: "2.0", id: 0, method, params })
}

fn json_rpc_batch<P: Serialize>(method: &str, params: &[P]) -> Request {
    let calls: Vec<Call<'_, P>> =
        params.iter().enumerate().map(|(id, params)| Call { jsonrpc: "2.0", id, method, params }).collect();
    encode(&calls)
}

fn encode(calls: &impl Serialize) -> Request {
    let body = serde_json::to_vec(calls).expect("parameters are strings, numbers and lists of them");
    Request { path: String::new(), body: Some(body) }
}
