//! Esplora's public HTTP interface (github.com/Blockstream/esplora, API.md) over a node of Bitcoin Core: the same paths,
//! statuses and shapes, for the part that settled asks.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Honest,
    /// 503 to everything, as behind a broken gateway.
    Down,
    /// 429 to everything.
    Throttled,
    /// A few answers in each half of a second, and 429 to the others.
    RateLimited,
    /// Blocks lack their last transaction.
    OmitsTransaction,
    /// The mempool is as long as that of the main network, as far as anybody counts.
    HugeMempool,
    /// A byte of the last transaction of each block is another.
    CorruptsTransaction,
}

/// Answers of a sparing server in each window, and how long one is.
const SPARED: u32 = 8;
const WINDOW: Duration = Duration::from_millis(500);

/// A running server; dropping it ends it.
pub struct Esplora {
    pub url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    behaviour: Mutex<Behaviour>,
    /// When the window of a sparing server began, and its answers since.
    spared: Mutex<(Instant, u32)>,
}

type EsploraResult = Result<Response, EsploraError>;

/// A status and a plain text, as every error of Esplora is.
struct EsploraError(StatusCode, String);

impl IntoResponse for EsploraError {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl Esplora {
    /// Over the node at `upstream`, a URL with user and password.
    pub async fn start(upstream: &str) -> Esplora {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (behaviour, spared) = (Mutex::new(Behaviour::Honest), Mutex::new((Instant::now(), 0)));
        let shared = Arc::new(Shared { upstream: upstream.to_owned(), client, behaviour, spared });
        let router = Router::new()
            .route("/api/blocks/tip/hash", get(tip_hash))
            .route("/api/blocks/tip/height", get(tip_height))
            .route("/api/block-height/{height}", get(hash_at))
            .route("/api/block/{hash}", get(block))
            .route("/api/block/{hash}/raw", get(raw_block))
            .route("/api/mempool", get(crowd))
            .route("/api/mempool/txids", get(waiting))
            .route("/api/address/{address}/txs/mempool", get(waiting_for))
            .route("/api/tx/{txid}/raw", get(raw_transaction))
            .route("/api/fee-estimates", get(estimates))
            .route("/api/tx", post(broadcast))
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/api", listener.local_addr().expect("a bound listener has an address"));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("the server runs until it is dropped") });
        Esplora { url, shared, _server: server }
    }

    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().expect("no holder panics") = behaviour;
    }
}

impl Shared {
    fn behaviour(&self) -> Behaviour {
        *self.behaviour.lock().expect("no holder panics")
    }

    fn may_answer(&self) -> bool {
        let mut spared = self.spared.lock().expect("no holder panics");
        if spared.0.elapsed() >= WINDOW {
            *spared = (Instant::now(), 0);
        }
        spared.1 += 1;
        spared.1 <= SPARED
    }

    /// The node's result, or its complaint as Esplora passes it on.
    async fn ask(&self, method: &str, params: Value) -> Result<Value, EsploraError> {
        match self.behaviour() {
            Behaviour::Down => {
                return Err(EsploraError(StatusCode::SERVICE_UNAVAILABLE, "upstream connect error".to_owned()));
            }
            Behaviour::RateLimited if self.may_answer() => {}
            Behaviour::Throttled | Behaviour::RateLimited => {
                return Err(EsploraError(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests".to_owned()));
            }
            Behaviour::Honest
            | Behaviour::OmitsTransaction
            | Behaviour::HugeMempool
            | Behaviour::CorruptsTransaction => {}
        }
        let call = json!({ "jsonrpc": "2.0", "id": 0, "method": method, "params": params });
        let gone = |_| EsploraError(StatusCode::INTERNAL_SERVER_ERROR, "electrs is not connected".to_owned());
        let response = self.client.post(&self.upstream).json(&call).send().await.map_err(gone)?;
        let mut answer: Value = response.json().await.map_err(gone)?;
        match answer.get("error").filter(|error| !error.is_null()) {
            Some(error) => {
                let status = match method {
                    "sendrawtransaction" => StatusCode::BAD_REQUEST,
                    _ => StatusCode::NOT_FOUND,
                };
                let text = match method {
                    "sendrawtransaction" => format!("sendrawtransaction RPC error: {error}"),
                    "getrawtransaction" => "Transaction not found".to_owned(),
                    _ => "Block not found".to_owned(),
                };
                Err(EsploraError(status, text))
            }
            None => Ok(answer["result"].take()),
        }
    }
}

fn text(value: &Value) -> EsploraResult {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(([("content-type", "text/plain")], text).into_response())
}

fn bytes(value: &Value) -> Result<Vec<u8>, EsploraError> {
    let bytes = value.as_str().and_then(|text| const_hex::decode(text).ok());
    bytes.ok_or_else(|| EsploraError(StatusCode::INTERNAL_SERVER_ERROR, "no bytes".to_owned()))
}

async fn tip_hash(State(shared): State<Arc<Shared>>) -> EsploraResult {
    text(&shared.ask("getbestblockhash", json!([])).await?)
}

async fn tip_height(State(shared): State<Arc<Shared>>) -> EsploraResult {
    text(&shared.ask("getblockcount", json!([])).await?)
}

async fn hash_at(State(shared): State<Arc<Shared>>, Path(height): Path<u64>) -> EsploraResult {
    text(&shared.ask("getblockhash", json!([height])).await?)
}

async fn block(State(shared): State<Arc<Shared>>, Path(hash): Path<String>) -> EsploraResult {
    let block = shared.ask("getblock", json!([hash, 1])).await?;
    let bits = block["bits"].as_str().and_then(|text| u32::from_str_radix(text, 16).ok());
    Ok(axum::Json(json!({
        "id": block["hash"], "height": block["height"], "version": block["version"], "timestamp": block["time"],
        "tx_count": block["nTx"], "size": block["size"], "weight": block["weight"],
        "merkle_root": block["merkleroot"], "previousblockhash": block["previousblockhash"],
        "mediantime": block["mediantime"], "nonce": block["nonce"], "bits": bits, "difficulty": block["difficulty"],
    }))
    .into_response())
}

async fn raw_block(State(shared): State<Arc<Shared>>, Path(hash): Path<String>) -> EsploraResult {
    let mut raw = bytes(&shared.ask("getblock", json!([hash, 0])).await?)?;
    match shared.behaviour() {
        Behaviour::OmitsTransaction => hide_last(&mut raw),
        Behaviour::CorruptsTransaction => {
            let place = raw.len().saturating_sub(60);
            raw[place] ^= 1;
        }
        Behaviour::Honest
        | Behaviour::HugeMempool
        | Behaviour::Down
        | Behaviour::Throttled
        | Behaviour::RateLimited => {}
    }
    Ok(([("content-type", "application/octet-stream")], raw).into_response())
}

/// One transaction fewer by the count; its bytes are left over.
fn hide_last(raw: &mut [u8]) {
    if let Some(count) = raw.get_mut(80).filter(|count| (2..=252).contains(*count)) {
        *count -= 1;
    }
}

async fn waiting(State(shared): State<Arc<Shared>>) -> EsploraResult {
    Ok(axum::Json(shared.ask("getrawmempool", json!([])).await?).into_response())
}

async fn crowd(State(shared): State<Arc<Shared>>) -> EsploraResult {
    let info = shared.ask("getmempoolinfo", json!([])).await?;
    let count = if shared.behaviour() == Behaviour::HugeMempool { json!(120_000) } else { info["size"].clone() };
    Ok(axum::Json(json!({ "count": count, "vsize": info["bytes"], "total_fee": 0, "fee_histogram": [] }))
        .into_response())
}

/// At most fifty, the newest first.
async fn waiting_for(State(shared): State<Arc<Shared>>, Path(address): Path<String>) -> EsploraResult {
    let listed = shared.ask("getrawmempool", json!([])).await?;
    let mut found = Vec::new();
    for txid in listed.as_array().into_iter().flatten() {
        let tx = shared.ask("getrawtransaction", json!([txid, true])).await?;
        let pays = |output: &Value| output["scriptPubKey"]["address"] == address.as_str();
        if tx["vout"].as_array().is_some_and(|outputs| outputs.iter().any(pays)) {
            found.push(json!({ "txid": txid, "version": tx["version"], "status": { "confirmed": false } }));
        }
    }
    found.truncate(50);
    Ok(axum::Json(found).into_response())
}

async fn raw_transaction(State(shared): State<Arc<Shared>>, Path(txid): Path<String>) -> EsploraResult {
    let raw = bytes(&shared.ask("getrawtransaction", json!([txid])).await?)?;
    Ok(([("content-type", "application/octet-stream")], raw).into_response())
}

async fn estimates(State(shared): State<Arc<Shared>>) -> EsploraResult {
    shared.ask("getblockcount", json!([])).await?;
    let estimates = r#"{"1":87.882,"2":87.882,"3":87.882,"6":68.285,"144":1.027,"504":1.027,"1008":0.5}"#;
    Ok(([("content-type", "application/json")], estimates).into_response())
}

async fn broadcast(State(shared): State<Arc<Shared>>, body: Bytes) -> EsploraResult {
    let hex = String::from_utf8_lossy(&body).into_owned();
    text(&shared.ask("sendrawtransaction", json!([hex])).await?)
}
