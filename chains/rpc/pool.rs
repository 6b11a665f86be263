//! Sends a question to one healthy endpoint after the other until an answer is accepted.
//!
//! Only reads fail over, and each endpoint is asked at most once per question, unless it said that it has too many and did
//! not look at it. Rests and quotas that end in time are waited for when nobody else can be asked. What a node refuses is
//! data; only broken, slow, throttled or wrong answers count against its health, and each answer counts once.

mod batches;
mod single;
mod attempts;

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chain::Height;
use futures_util::future;
use serde::Serialize;
use tokio::time::Instant;
use tracing::{error, info, warn};

use self::attempts::{Attempts, HealthEvent, Outcome};
use crate::{
    AdaptiveSize, Answer, ChainCheck, Endpoint, Refusal, RefusalKind, Rejection, Reply, Role, RpcError,
    health::{Availability, Health},
    http::{Client, ErrorClass, Exchange, Request, TransportError},
    reply,
};

/// An endpoint whose head is further behind the best one is asked last: that much of time, and one block in any case.
const HEAD_LAG_MAX: Duration = Duration::from_secs(30);

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
    /// An endpoint whose head is so many blocks further behind the best one is asked last.
    pub head_lag_max: u64,
    /// Asked of every endpoint before it is believed anything.
    pub proof: Option<ChainCheck>,
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

    /// With a bound for the heads of endpoints that fits a chain whose blocks come so far apart.
    pub fn with_block_time(mut self, block_time: Duration) -> Config {
        let blocks = HEAD_LAG_MAX.as_millis().div_ceil(block_time.as_millis().max(1));
        self.head_lag_max = u64::try_from(blocks).unwrap_or(u64::MAX);
        self
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
    /// How many questions it takes in one batch.
    batch: Mutex<AdaptiveSize>,
    /// It gave the expected answer to [`Config::proof`] once.
    proven: AtomicBool,
    /// Held while it is asked for that, so that it is asked once.
    proving: tokio::sync::Mutex<()>,
}

impl Node {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("no panic while health is held")
    }

    fn batch(&self) -> MutexGuard<'_, AdaptiveSize> {
        self.batch.lock().expect("no panic while the size is held")
    }

    /// Most questions that may go to it at once; below two there is no batch.
    fn batch_max(&self, config: &Config) -> usize {
        let per_second = self.endpoint.limits().per_second.unwrap_or(u32::MAX);
        config.batch_max.min(usize::try_from(per_second).unwrap_or(usize::MAX))
    }
}

/// Which endpoints a question goes to.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// All the way round from it, even if its head was behind; `None` for the order of preference.
    first: Option<usize>,
    /// Not asked at all.
    skipped: Option<usize>,
}

enum Choice {
    Ask {
        node: usize,
        others: u32,
    },
    /// Until then nobody, or nobody who keeps up, may be asked.
    Wait(Instant),
    Nobody,
}

impl Pool {
    pub fn new(config: Config) -> Result<Pool, ConfigError> {
        if !config.endpoints.iter().any(|endpoint| endpoint.has(Role::Read)) {
            return Err(ConfigError::NothingToRead);
        }
        let node = |endpoint: &Endpoint| Node {
            endpoint: endpoint.clone(),
            health: Mutex::new(Health::new(endpoint.limits())),
            batch: Mutex::new(AdaptiveSize::new(u64::MAX, u64::MAX)),
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
    pub async fn ask<T, P, F>(&self, method: &str, params: &P, accept: F) -> Result<T, RpcError>
    where
        P: Serialize + Sync + ?Sized,
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        self.run(method, &Request::call(method, params), Round::default(), accept).await
    }

    /// The same, beginning with the endpoint at `first`, counted round, even if its head was behind: a caller who counts up
    /// hears every one regularly and learns that it caught up.
    pub async fn ask_from<T, P, F>(&self, first: usize, method: &str, params: &P, accept: F) -> Result<T, RpcError>
    where
        P: Serialize + Sync + ?Sized,
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        self.run(method, &Request::call(method, params), self.beginning(first), accept).await
    }

    /// Asks everybody but one, beginning with the endpoint after it: for a second word about what that one said. Rests and
    /// quotas of the others are waited for, because nobody has said anything yet.
    pub async fn ask_excluding<T, P, F>(
        &self,
        endpoint: usize,
        method: &str,
        params: &P,
        accept: F,
    ) -> Result<T, RpcError>
    where
        P: Serialize + Sync + ?Sized,
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        let round = Round { skipped: Some(endpoint), ..self.beginning(endpoint + 1) };
        self.run(method, &Request::call(method, params), round, accept).await
    }

    /// Posts something that is not JSON-RPC, beginning with the endpoint at `first` as [`Pool::ask_from`] does.
    pub async fn post_from<T, F>(&self, first: usize, path: &str, body: Vec<u8>, accept: F) -> Result<T, RpcError>
    where
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        let request = Request { path: path.to_owned(), body: Some(body) };
        self.run(path, &request, self.beginning(first), accept).await
    }

    /// Posts or gets something that is not JSON-RPC. `name` stands for the method in health and quarantine.
    pub async fn fetch<T, F>(&self, name: &str, path: &str, body: Option<Vec<u8>>, accept: F) -> Result<T, RpcError>
    where
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        self.run(name, &Request { path: path.to_owned(), body }, Round::default(), accept).await
    }

    /// The same, beginning with the endpoint at `first`, counted round; see [`Pool::ask_from`].
    pub async fn fetch_from<T, F>(&self, first: usize, name: &str, path: &str, accept: F) -> Result<T, RpcError>
    where
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        let request = Request { path: path.to_owned(), body: None };
        self.run(name, &request, self.beginning(first), accept).await
    }

    /// Gives the same question to every endpoint of a role at once, resting or not, and returns what each one said.
    pub async fn tell_all<P>(&self, role: Role, method: &str, params: &P) -> Vec<(usize, Result<Vec<u8>, String>)>
    where
        P: Serialize + Sync + ?Sized,
    {
        self.tell(role, &Request::call(method, params)).await
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
                Err(TransportError::Failed { reason, .. }) => Err(reason),
                Err(TransportError::TooLarge { bytes_max }) => Err(too_many_bytes(bytes_max).to_string()),
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

    /// Where each endpoint stood when that was last seen; `None` where it was not lately.
    pub fn heads(&self) -> Vec<Option<Height>> {
        let now = Instant::now();
        self.nodes.iter().map(|node| node.health().head(now)).collect()
    }

    /// Blanks everything in a node's words that stands in the endpoint's URL or headers.
    pub fn redact(&self, endpoint: usize, text: &str) -> String {
        self.nodes.get(endpoint).map_or_else(String::new, |node| node.endpoint.redact(text))
    }

    /// Host and port of an endpoint.
    pub fn label(&self, endpoint: usize) -> String {
        self.nodes.get(endpoint).map_or_else(|| "?".to_owned(), |node| node.endpoint.label())
    }

    /// From that endpoint on, counted round.
    fn beginning(&self, first: usize) -> Round {
        Round { first: Some(first % self.nodes.len()), skipped: None }
    }

    async fn run<T, F>(&self, method: &str, request: &Request, round: Round, mut accept: F) -> Result<T, RpcError>
    where
        F: FnMut(&Reply<'_>) -> Result<Answer<T>, Rejection>,
    {
        let Round { first, skipped } = round;
        let deadline = Instant::now() + self.config.deadline;
        let mut asked: Vec<bool> = (0..self.nodes.len()).map(|node| Some(node) == skipped).collect();
        let mut attempts = Attempts::new();
        loop {
            let now = Instant::now();
            let (node, others) =
                match self.choose(method, first, &asked, now, self.latest(deadline), attempts.is_empty()) {
                    Choice::Ask { node, others } if now < deadline => {
                        if !self.nodes[node].health().claim(method, 1, now) {
                            continue;
                        }
                        (node, others)
                    }
                    Choice::Wait(until) => {
                        tokio::time::sleep_until(until).await;
                        continue;
                    }
                    Choice::Ask { .. } | Choice::Nobody => break,
                };
            let timeout = share(deadline - now, others);
            // Who has too many questions did not look at this one: it may have it again after its rest.
            asked[node] = true;
            match self.prove(node, timeout).await {
                Ok(()) => {}
                Err((reason, fault)) => {
                    asked[node] = fault != ErrorClass::Throttled;
                    attempts.troubled(reason, fault);
                    continue;
                }
            }
            let sent = Instant::now();
            let exchange = match self.send(node, request, 1, timeout).await {
                Ok(exchange) => exchange,
                Err(trouble) => {
                    let fault = self.troubled(node, trouble, &mut attempts, sent);
                    asked[node] = fault != Some(ErrorClass::Throttled);
                    continue;
                }
            };
            let reply = Reply::new(node, exchange.status, &exchange.body);
            let mut outcome = Outcome::default();
            let value = self.judge(node, method, accept(&reply), &mut attempts, &mut outcome);
            asked[node] = !outcome.is_throttled();
            self.book(node, outcome, sent);
            if let Some(value) = value {
                return Ok(value);
            }
        }
        attempts.troubles.extend(self.not_asked(method, &asked));
        attempts.missing |= self.nobody_has(method, skipped);
        if attempts.troubles.is_empty() && attempts.is_empty() {
            attempts.troubles.push("no other endpoint may be read from".to_owned());
        }
        attempts.into_result(method)
    }

    /// When a wait must end, so that some time is left for an answer.
    fn latest(&self, deadline: Instant) -> Instant {
        deadline - self.config.deadline / 10
    }

    /// Adds an answer to the question's attempts and to what the exchange says of the endpoint. Only a sure one ends the
    /// question.
    fn judge<T>(
        &self,
        node: usize,
        method: &str,
        said: Result<Answer<T>, Rejection>,
        attempts: &mut Attempts<T>,
        outcome: &mut Outcome,
    ) -> Option<T> {
        match said {
            Ok(Answer::Sure(value)) => {
                outcome.good = true;
                return Some(value);
            }
            Ok(Answer::Doubtful(value)) => {
                outcome.good = true;
                attempts.doubtful.get_or_insert(value);
            }
            Err(Rejection::Wrong(reason)) => {
                error!(endpoint = %self.label(node), method, "a wrong answer was refused: {reason}");
                let reason = self.redact(node, &reason);
                attempts.wrong = Some(format!("{}: {reason}", self.label(node)));
                outcome.event.get_or_insert(HealthEvent { fault: ErrorClass::Broken, reason, retry_after: None });
            }
            Err(Rejection::Refused(refusal)) => {
                let message = self.redact(node, &refusal.message);
                match refusal.kind {
                    RefusalKind::TooLarge => {
                        attempts.too_large.get_or_insert(message);
                    }
                    RefusalKind::MethodMissing => {
                        info!(endpoint = %self.label(node), method, "the endpoint does not offer {method}: {message}");
                        self.nodes[node].health().lacks(method, Instant::now());
                        attempts.missing = true;
                    }
                    RefusalKind::Quota => {
                        attempts.troubles.push(format!("{}: {message}", self.label(node)));
                        outcome.event =
                            Some(HealthEvent { fault: ErrorClass::Throttled, reason: message, retry_after: None });
                    }
                    RefusalKind::NotThere | RefusalKind::Pruned | RefusalKind::Other => {
                        attempts.refused =
                            Some(Refusal { message: format!("{}: {message}", self.label(node)), ..refusal });
                    }
                }
            }
        }
        None
    }

    /// Tells the endpoint's health how the exchange that was sent then went.
    fn book(&self, node: usize, outcome: Outcome, sent: Instant) {
        match outcome {
            Outcome { event: Some(event), .. } => drop(self.failed(node, event, sent)),
            Outcome { good: true, event: None } => self.nodes[node].health().succeeded(sent),
            Outcome { good: false, event: None } => {}
        }
    }

    /// Books an exchange without an answer; says what kind of failure it was, unless there was too much of an answer.
    fn troubled<T>(
        &self,
        node: usize,
        trouble: TransportError,
        attempts: &mut Attempts<T>,
        sent: Instant,
    ) -> Option<ErrorClass> {
        match trouble {
            TransportError::TooLarge { bytes_max } => {
                attempts.too_large.get_or_insert(format!("more than {bytes_max} bytes from {}", self.label(node)));
                None
            }
            TransportError::Failed { fault, reason, retry_after } => {
                let reason = self.redact(node, &reason);
                attempts.troubled(self.failed(node, HealthEvent { fault, reason, retry_after }, sent), fault);
                Some(fault)
            }
        }
    }

    /// A node of another chain would answer everything, consistently and wrongly.
    async fn prove(&self, node: usize, timeout: Duration) -> Result<(), (String, ErrorClass)> {
        let Some(proof) = &self.config.proof else { return Ok(()) };
        let proven = &self.nodes[node].proven;
        if proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _proving = self.nodes[node].proving.lock().await;
        if proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        let sent = Instant::now();
        let ready = self.nodes[node].health().ready(&proof.name, sent);
        if matches!(ready, Availability::Cooling(_)) {
            // It failed somebody else's question while this one waited for its turn, and did not look at this one.
            return Err((self.why_not(node, &proof.name, sent), ErrorClass::Throttled));
        }
        self.nodes[node].health().take(1, sent);
        let event = match self.send(node, &proof.request, 1, timeout).await {
            Ok(exchange) => match proof.read(&Reply::new(node, exchange.status, &exchange.body)) {
                Ok(said) if said == proof.expected => {
                    proven.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(said) => {
                    let reason =
                        format!("{} says {said}, expected {}: a node of another chain", proof.name, proof.expected);
                    error!(endpoint = %self.label(node), "the endpoint is not used: {reason}");
                    HealthEvent { fault: ErrorClass::Broken, reason, retry_after: None }
                }
                Err(Rejection::Refused(Refusal { message: reason, kind: RefusalKind::Quota, .. })) => {
                    HealthEvent { fault: ErrorClass::Throttled, reason, retry_after: None }
                }
                Err(Rejection::Refused(Refusal { message: reason, .. }) | Rejection::Wrong(reason)) => {
                    HealthEvent { fault: ErrorClass::Broken, reason, retry_after: None }
                }
            },
            Err(TransportError::Failed { fault, reason, retry_after }) => HealthEvent { fault, reason, retry_after },
            Err(TransportError::TooLarge { bytes_max }) => HealthEvent {
                fault: ErrorClass::Broken,
                reason: too_many_bytes(bytes_max).to_string(),
                retry_after: None,
            },
        };
        let fault = event.fault;
        let event = HealthEvent { reason: self.redact(node, &event.reason), ..event };
        Err((self.failed(node, event, sent), fault))
    }

    async fn send(
        &self,
        node: usize,
        request: &Request,
        cost: u32,
        timeout: Duration,
    ) -> Result<Exchange, TransportError> {
        self.requests.fetch_add(u64::from(cost), Ordering::Relaxed);
        self.client.send(&self.nodes[node].endpoint, request, timeout, self.config.body_bytes_max).await
    }

    fn failed(&self, node: usize, event: HealthEvent, sent: Instant) -> String {
        let label = self.label(node);
        let HealthEvent { reason, retry_after, .. } = event;
        let retry_after = retry_after.or_else(|| reply::suspension(&reason));
        let said = format!("{label}: {reason}");
        let mut health = self.nodes[node].health();
        if health.last_trouble() != reason {
            warn!(endpoint = %label, "the endpoint rests for a while: {reason}");
        }
        health.failed(reason, retry_after, sent, Instant::now());
        said
    }

    /// In order of preference, or all the way round from `first`. Waits end at `latest`; rests are waited for if `patient`,
    /// and quotas in any case.
    fn choose(
        &self,
        method: &str,
        first: Option<usize>,
        asked: &[bool],
        now: Instant,
        latest: Instant,
        patient: bool,
    ) -> Choice {
        let heads: Vec<Option<Height>> = self.nodes.iter().map(|node| node.health().head(now)).collect();
        let best = heads.iter().flatten().max().copied().unwrap_or(0);
        let lags = |i: usize| first.is_none() && heads[i].is_some_and(|head| best - head > self.config.head_lag_max);

        let count = self.nodes.len();
        let mut ready = Vec::with_capacity(count);
        let (mut quota, mut rest) = (Vec::new(), Vec::new());
        for i in (0..count).map(|i| (first.unwrap_or(0) + i) % count).filter(|i| !asked[*i]) {
            if !self.nodes[i].endpoint.has(Role::Read) {
                continue;
            }
            match self.nodes[i].health().ready(method, now) {
                Availability::Now => ready.push(i),
                Availability::At(at) if at <= latest => quota.push((lags(i), at)),
                Availability::Cooling(until) if patient && until <= latest => rest.push(until),
                Availability::At(_) | Availability::Cooling(_) | Availability::Missing => {}
            }
        }
        ready.sort_by_key(|i| lags(*i));
        let others = u32::try_from(ready.len().saturating_sub(1)).unwrap_or(u32::MAX - 1);
        let better = quota.iter().filter(|(lags, _)| !lags).map(|(_, at)| *at).min();
        match (ready.first(), better) {
            (Some(node), Some(until)) if lags(*node) => Choice::Wait(until),
            (Some(node), _) => Choice::Ask { node: *node, others },
            (None, _) => {
                let soonest = quota.into_iter().map(|(_, at)| at).chain(rest).min();
                soonest.map_or(Choice::Nobody, Choice::Wait)
            }
        }
    }

    /// Why the remaining endpoints were not asked.
    fn not_asked(&self, method: &str, asked: &[bool]) -> Vec<String> {
        let now = Instant::now();
        let unasked = (0..self.nodes.len()).filter(|i| !asked[*i] && self.nodes[*i].endpoint.has(Role::Read));
        unasked.map(|node| self.why_not(node, method, now)).collect()
    }

    fn why_not(&self, node: usize, method: &str, now: Instant) -> String {
        let health = self.nodes[node].health();
        let why = match health.ready(method, now) {
            Availability::Cooling(_) => format!("rests after `{}`", health.last_trouble()),
            Availability::Missing => format!("does not offer {method}"),
            Availability::At(_) => "its quota is used up".to_owned(),
            Availability::Now => "no time was left".to_owned(),
        };
        format!("{}: {why}", self.nodes[node].endpoint)
    }

    /// Whether all who may be asked lack the method, and there is somebody.
    fn nobody_has(&self, method: &str, skipped: Option<usize>) -> bool {
        let now = Instant::now();
        let may_be_asked = |i: &usize| Some(*i) != skipped && self.nodes[*i].endpoint.has(Role::Read);
        let mut readers = (0..self.nodes.len()).filter(may_be_asked).peekable();
        readers.peek().is_some() && readers.all(|i| self.nodes[i].health().ready(method, now) == Availability::Missing)
    }
}

/// Time for one endpoint when others may be asked after it. Half of what is left: a silent one rests afterwards and does not
/// cost that again, but less would give up questions that simply take their time.
fn share(left: Duration, others: u32) -> Duration {
    if others == 0 { left } else { left / 2 }
}

fn too_many_bytes(bytes_max: usize) -> RpcError {
    RpcError::TooLarge(format!("more than {bytes_max} bytes"))
}
