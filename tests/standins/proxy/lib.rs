//! A JSON-RPC proxy in front of a real node. A test decides for each request whether it is forwarded, changed or answered by
//! the proxy.

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

/// The action of the proxy on one request.
pub enum Intervention {
    /// Forwards the request unchanged.
    Pass,
    /// Forwards the request with other parameters.
    ReplaceParams(Value),
    /// Forwards the request and edits its result.
    Edit(Box<dyn Fn(&mut Value) + Send>),
    /// Answers with this result.
    Result(Value),
    /// Answers with a JSON-RPC error: code and message.
    Error(i64, &'static str),
    /// Answers the whole HTTP request with this status, headers and body.
    Http(StatusCode, Vec<(&'static str, &'static str)>, String),
    /// Never answers and keeps the connection open.
    Hang,
}

type Interceptor = dyn Fn(&str, &Value) -> Intervention + Send + Sync;

/// A running proxy. Dropping it stops the server.
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    interceptor: Box<Interceptor>,
    accepts_batches: bool,
    /// The method of every request so far.
    methods: Mutex<Vec<String>>,
    largest_batch: AtomicUsize,
}

impl Proxy {
    /// Starts a proxy in front of the node at `upstream`. `interceptor` gets the method and the parameters of each request.
    pub async fn start_proxy(
        upstream: &str,
        interceptor: impl Fn(&str, &Value) -> Intervention + Send + Sync + 'static,
    ) -> Proxy {
        Proxy::start_with(upstream, true, Box::new(interceptor)).await
    }

    /// Starts a proxy that rejects JSON-RPC batches.
    pub async fn start_without_batches(upstream: &str) -> Proxy {
        Proxy::start_with(upstream, false, Box::new(|_, _| Intervention::Pass)).await
    }

    /// Starts a proxy that replies to the given methods with the error "method not found".
    pub async fn start_without_methods(upstream: &str, methods: &'static [&'static str]) -> Proxy {
        Proxy::start_proxy(upstream, move |method, _| {
            if methods.contains(&method) {
                Intervention::Error(-32601, "the method does not exist/is not available")
            } else {
                Intervention::Pass
            }
        })
        .await
    }

    async fn start_with(upstream: &str, accepts_batches: bool, interceptor: Box<Interceptor>) -> Proxy {
        let client = reqwest::Client::builder().no_proxy().build().expect("the client has no options that can fail");
        let (upstream, methods) = (upstream.to_owned(), Mutex::new(Vec::new()));
        let largest_batch = AtomicUsize::new(0);
        let shared = Arc::new(Shared { upstream, client, interceptor, accepts_batches, methods, largest_batch });
        let router = Router::new()
            .route("/", post(answer_http))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the machine has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let url = format!("http://{address}/");
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("the server runs until it is dropped") });
        Proxy { url, shared, _server: server }
    }

    /// Returns the number of requests so far for a method.
    pub fn request_count(&self, method: &str) -> usize {
        self.shared.lock_methods().iter().filter(|requested| *requested == method).count()
    }

    /// Returns the number of requests in the largest batch so far.
    pub fn largest_batch(&self) -> usize {
        self.shared.largest_batch.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn lock_methods(&self) -> MutexGuard<'_, Vec<String>> {
        self.methods.lock().expect("the lock is never poisoned: no code panics while holding it")
    }

    async fn forward_call(&self, call: &Value) -> reqwest::Result<Value> {
        self.client.post(&self.upstream).json(call).send().await?.json().await
    }
}

async fn answer_http(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("the driver sends JSON");
    let Value::Array(calls) = request else {
        return answer_call(&shared, request)
            .await
            .map_or_else(|response| response, |answer| axum::Json(answer).into_response());
    };
    if !shared.accepts_batches {
        let error = json!({ "code": -32600, "message": "batches are not supported" });
        return axum::Json(json!({ "jsonrpc": "2.0", "id": null, "error": error })).into_response();
    }
    shared.largest_batch.fetch_max(calls.len(), Ordering::Relaxed);
    let mut answers = Vec::new();
    for call in calls {
        match answer_call(&shared, call).await {
            Ok(answer) => answers.push(answer),
            Err(response) => return response,
        }
    }
    // A node may answer a batch in any order; the reverse order shows that the driver does not depend on it.
    answers.reverse();
    axum::Json(answers).into_response()
}

/// Answers one call of a request. The error is a response to the whole HTTP request.
async fn answer_call(shared: &Shared, mut call: Value) -> Result<Value, Response> {
    let method = call["method"].as_str().expect("a JSON-RPC request has a method").to_owned();
    shared.lock_methods().push(method.clone());
    let id = call["id"].clone();
    let result = |result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
    let edit = match (shared.interceptor)(&method, &call["params"]) {
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
                response.headers_mut().insert(name, value.parse().expect("the test gives a valid header value"));
            }
            return Err(response);
        }
        Intervention::Hang => std::future::pending().await,
    };
    let mut answer = shared.forward_call(&call).await.expect("the node behind the proxy answers");
    if let (Some(edit), Some(result)) = (edit, answer.get_mut("result")) {
        edit(result);
    }
    Ok(answer)
}
