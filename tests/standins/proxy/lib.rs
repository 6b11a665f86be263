//! A JSON-RPC node that passes questions on to a real one and does what a trick says with some of them.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// What happens to one question.
pub enum Intervention {
    Pass,
    /// The same question with other parameters.
    ReplaceParams(Value),
    /// The true result, edited.
    Edit(Box<dyn Fn(&mut Value) + Send>),
    Result(Value),
    Error(i64, &'static str),
    /// The whole HTTP exchange ends with this.
    Http(StatusCode, Vec<(&'static str, &'static str)>, String),
    /// The connection stays open and nothing ever comes.
    Hang,
}

type Interceptor = dyn Fn(&str, &Value) -> Intervention + Send + Sync;

pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    trick: Box<Interceptor>,
    takes_batches: bool,
    asked: Mutex<Vec<String>>,
    largest_batch: AtomicUsize,
}

impl Proxy {
    /// `trick` sees the method and the parameters of every question.
    pub async fn start(upstream: &str, trick: impl Fn(&str, &Value) -> Intervention + Send + Sync + 'static) -> Proxy {
        Proxy::with(upstream, true, Box::new(trick)).await
    }

    pub async fn without_batches(upstream: &str) -> Proxy {
        Proxy::with(upstream, false, Box::new(|_, _| Intervention::Pass)).await
    }

    /// Passes everything but some methods, which it does not know.
    pub async fn without_methods(upstream: &str, methods: &'static [&'static str]) -> Proxy {
        Proxy::start(upstream, move |method, _| {
            if methods.contains(&method) {
                Intervention::Error(-32601, "the method does not exist/is not available")
            } else {
                Intervention::Pass
            }
        })
        .await
    }

    async fn with(upstream: &str, takes_batches: bool, trick: Box<Interceptor>) -> Proxy {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (upstream, asked) = (upstream.to_owned(), Mutex::new(Vec::new()));
        let largest_batch = AtomicUsize::new(0);
        let shared = Arc::new(Shared { upstream, client, trick, takes_batches, asked, largest_batch });
        let router = Router::new()
            .route("/", post(answer))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let url = format!("http://{address}/");
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("the server runs until it is dropped") });
        Proxy { url, shared, _server: server }
    }

    /// How often a method was asked for.
    pub fn request_count(&self, method: &str) -> usize {
        self.shared.asked().iter().filter(|asked| *asked == method).count()
    }

    /// Questions in the largest batch so far.
    pub fn largest_batch(&self) -> usize {
        self.shared.largest_batch.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().expect("no panic while it is held")
    }

    async fn upstream(&self, call: &Value) -> reqwest::Result<Value> {
        self.client.post(&self.upstream).json(call).send().await?.json().await
    }
}

async fn answer(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let question: Value = serde_json::from_slice(&body).expect("a question is JSON");
    let Value::Array(calls) = question else {
        return one(&shared, question)
            .await
            .map_or_else(|response| response, |answer| axum::Json(answer).into_response());
    };
    if !shared.takes_batches {
        let error = json!({ "code": -32600, "message": "batches are not supported" });
        return axum::Json(json!({ "jsonrpc": "2.0", "id": null, "error": error })).into_response();
    }
    shared.largest_batch.fetch_max(calls.len(), Ordering::Relaxed);
    let mut answers = Vec::new();
    for call in calls {
        match one(&shared, call).await {
            Ok(answer) => answers.push(answer),
            Err(response) => return response,
        }
    }
    // Nodes may answer a batch in any order.
    answers.reverse();
    axum::Json(answers).into_response()
}

async fn one(shared: &Shared, mut call: Value) -> Result<Value, Response> {
    let method = call["method"].as_str().expect("a question has a method").to_owned();
    shared.asked().push(method.clone());
    let id = call["id"].clone();
    let result = |result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
    let edit = match (shared.trick)(&method, &call["params"]) {
        Intervention::Pass => None,
        Intervention::ReplaceParams(params) => {
            call["params"] = params;
            None
        }
        Intervention::Edit(edit) => Some(edit),
        Intervention::Result(value) => return Ok(result(value)),
        Intervention::Error(code, message) => {
            return Ok(json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }));
        }
        Intervention::Http(status, headers, body) => {
            let mut response = (status, body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().expect("a header value"));
            }
            return Err(response);
        }
        Intervention::Hang => std::future::pending().await,
    };
    let mut answer = shared.upstream(&call).await.expect("the node behind the proxy answers");
    if let (Some(edit), Some(result)) = (edit, answer.get_mut("result")) {
        edit(result);
    }
    Ok(answer)
}
