//! A node that passes questions on to anvil and does what a trick says with some of them.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// What happens to one question.
pub enum Act {
    Pass,
    /// The true result, edited.
    Edit(Box<dyn Fn(&mut Value) + Send>),
    Result(Value),
    Error(i64, &'static str),
    /// The whole HTTP exchange ends with this.
    Http(StatusCode, Vec<(&'static str, &'static str)>, String),
    /// No answer while the test runs.
    Silence,
}

type Trick = dyn Fn(&str, &Value) -> Act + Send + Sync;

pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    trick: Box<Trick>,
    takes_batches: bool,
    asked: Mutex<Vec<String>>,
}

impl Proxy {
    /// `trick` sees the method and the parameters of every question.
    pub async fn start(upstream: &str, trick: impl Fn(&str, &Value) -> Act + Send + Sync + 'static) -> Proxy {
        Proxy::with(upstream, true, Box::new(trick)).await
    }

    pub async fn without_batches(upstream: &str) -> Proxy {
        Proxy::with(upstream, false, Box::new(|_, _| Act::Pass)).await
    }

    /// Passes everything but some methods, which it does not know.
    pub async fn hiding(upstream: &str, methods: &'static [&'static str]) -> Proxy {
        Proxy::start(upstream, move |method, _| {
            if methods.contains(&method) {
                Act::Error(-32601, "the method does not exist/is not available")
            } else {
                Act::Pass
            }
        })
        .await
    }

    async fn with(upstream: &str, takes_batches: bool, trick: Box<Trick>) -> Proxy {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (upstream, asked) = (upstream.to_owned(), Mutex::new(Vec::new()));
        let shared = Arc::new(Shared { upstream, client, trick, takes_batches, asked });
        let router = Router::new()
            .route("/", post(answer))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Proxy { url, shared, _server: server }
    }

    /// How often a method was asked for.
    pub fn asked(&self, method: &str) -> usize {
        self.shared.asked.lock().unwrap().iter().filter(|asked| *asked == method).count()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, _: HeaderMap, body: Bytes) -> Response {
    let question: Value = serde_json::from_slice(&body).unwrap();
    let answer = match question {
        Value::Array(calls) if shared.takes_batches => {
            let mut answers = Vec::new();
            for call in calls {
                match one(&shared, call).await {
                    Ok(answer) => answers.push(answer),
                    Err(response) => return response,
                }
            }
            // Nodes may answer a batch in any order.
            answers.reverse();
            Value::Array(answers)
        }
        Value::Array(_) => {
            json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32600, "message": "batches are not supported" } })
        }
        call => match one(&shared, call).await {
            Ok(answer) => answer,
            Err(response) => return response,
        },
    };
    axum::Json(answer).into_response()
}

async fn one(shared: &Shared, call: Value) -> Result<Value, Response> {
    let method = call["method"].as_str().unwrap().to_owned();
    shared.asked.lock().unwrap().push(method.clone());
    let id = call["id"].clone();
    let result = |result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
    let edit = match (shared.trick)(&method, &call["params"]) {
        Act::Pass => None,
        Act::Edit(edit) => Some(edit),
        Act::Result(value) => return Ok(result(value)),
        Act::Error(code, message) => {
            return Ok(json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }));
        }
        Act::Http(status, headers, body) => {
            let mut response = (status, body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            return Err(response);
        }
        Act::Silence => std::future::pending().await,
    };
    let mut answer: Value =
        shared.client.post(&shared.upstream).json(&call).send().await.unwrap().json().await.unwrap();
    if let (Some(edit), Some(result)) = (edit, answer.get_mut("result")) {
        edit(result);
    }
    Ok(answer)
}
