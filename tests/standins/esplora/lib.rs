//! The public HTTP API of Esplora (github.com/Blockstream/esplora, API.md) in front of a Bitcoin Core node: the methods that
//! settled uses, with the same paths, statuses and formats.

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

/// The behaviour of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// All answers are correct.
    Honest,
    /// Answers every request with 503.
    Down,
    /// Answers every request with 429.
    Throttled,
    /// Answers eight requests in each half second, and the others with 429.
    RateLimited,
    /// Leaves out the last transaction of each block.
    OmitsTransaction,
    /// Reports as many transactions in the mempool as the main network has in busy times.
    HugeMempool,
    /// Changes one byte in the last transaction of each block.
    CorruptsTransaction,
}

/// The number of answers of a rate-limited server per window.
const ANSWERS_PER_WINDOW: u32 = 8;
/// The length of a window of a rate-limited server.
const WINDOW: Duration = Duration::from_millis(500);

/// A running server. Dropping it stops the server.
pub struct Esplora {
    pub url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    behaviour: Mutex<Behaviour>,
    /// The start of the current window of a rate-limited server, and the number of requests in it.
    window: Mutex<(Instant, u32)>,
}

type EsploraResult = Result<Response, EsploraError>;

/// An error of Esplora: an HTTP status with a plain text.
struct EsploraError(StatusCode, String);

impl IntoResponse for EsploraError {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl Esplora {
    /// Starts a server in front of the node at `upstream`, a JSON-RPC URL with user and password.
    pub async fn start_server(upstream: &str) -> Esplora {
        let client = reqwest::Client::builder().no_proxy().build().expect("the client has no options that can fail");
        let (behaviour, window) = (Mutex::new(Behaviour::Honest), Mutex::new((Instant::now(), 0)));
        let shared = Arc::new(Shared { upstream: upstream.to_owned(), client, behaviour, window });
        let router = Router::new()
            .route("/api/blocks/tip/hash", get(serve_tip_hash))
            .route("/api/blocks/tip/height", get(serve_tip_height))
            .route("/api/block-height/{height}", get(serve_block_hash))
            .route("/api/block/{hash}", get(serve_block))
            .route("/api/block/{hash}/raw", get(serve_raw_block))
            .route("/api/mempool", get(serve_mempool_info))
            .route("/api/mempool/txids", get(serve_mempool_txids))
            .route("/api/address/{address}/txs/mempool", get(serve_mempool_of_address))
            .route("/api/tx/{txid}/raw", get(serve_raw_transaction))
            .route("/api/fee-estimates", get(serve_fee_estimates))
            .route("/api/tx", post(serve_broadcast))
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the machine has a free port");
        let url = format!("http://{}/api", listener.local_addr().expect("a bound listener has an address"));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("the server runs until it is dropped") });
        Esplora { url, shared, _server: server }
    }

    /// Sets the behaviour for all later requests.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().expect("the lock is never poisoned: no code panics while holding it") = behaviour;
    }
}

impl Shared {
    fn behaviour(&self) -> Behaviour {
        *self.behaviour.lock().expect("the lock is never poisoned: no code panics while holding it")
    }

    fn may_answer(&self) -> bool {
        let mut window = self.window.lock().expect("the lock is never poisoned: no code panics while holding it");
        if window.0.elapsed() >= WINDOW {
            *window = (Instant::now(), 0);
        }
        window.1 += 1;
        window.1 <= ANSWERS_PER_WINDOW
    }

    /// Calls the node and returns its result, or its error in the form of Esplora.
    async fn call_node(&self, method: &str, params: Value) -> Result<Value, EsploraError> {
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
        let disconnected = |_| EsploraError(StatusCode::INTERNAL_SERVER_ERROR, "electrs is not connected".to_owned());
        let response = self.client.post(&self.upstream).json(&call).send().await.map_err(disconnected)?;
        let mut answer: Value = response.json().await.map_err(disconnected)?;
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

fn text_response(value: &Value) -> EsploraResult {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(([("content-type", "text/plain")], text).into_response())
}

fn decode_hex(value: &Value) -> Result<Vec<u8>, EsploraError> {
    let bytes = value.as_str().and_then(|text| const_hex::decode(text).ok());
    bytes.ok_or_else(|| {
        EsploraError(StatusCode::INTERNAL_SERVER_ERROR, "the node returned invalid hexadecimal".to_owned())
    })
}

async fn serve_tip_hash(State(shared): State<Arc<Shared>>) -> EsploraResult {
    text_response(&shared.call_node("getbestblockhash", json!([])).await?)
}

async fn serve_tip_height(State(shared): State<Arc<Shared>>) -> EsploraResult {
    text_response(&shared.call_node("getblockcount", json!([])).await?)
}

async fn serve_block_hash(State(shared): State<Arc<Shared>>, Path(height): Path<u64>) -> EsploraResult {
    text_response(&shared.call_node("getblockhash", json!([height])).await?)
}

async fn serve_block(State(shared): State<Arc<Shared>>, Path(hash): Path<String>) -> EsploraResult {
    let block = shared.call_node("getblock", json!([hash, 1])).await?;
    let bits = block["bits"].as_str().and_then(|text| u32::from_str_radix(text, 16).ok());
    Ok(axum::Json(json!({
        "id": block["hash"], "height": block["height"], "version": block["version"], "timestamp": block["time"],
        "tx_count": block["nTx"], "size": block["size"], "weight": block["weight"],
        "merkle_root": block["merkleroot"], "previousblockhash": block["previousblockhash"],
        "mediantime": block["mediantime"], "nonce": block["nonce"], "bits": bits, "difficulty": block["difficulty"],
    }))
    .into_response())
}

async fn serve_raw_block(State(shared): State<Arc<Shared>>, Path(hash): Path<String>) -> EsploraResult {
    let mut raw = decode_hex(&shared.call_node("getblock", json!([hash, 0])).await?)?;
    match shared.behaviour() {
        Behaviour::OmitsTransaction => omit_last_transaction(&mut raw),
        Behaviour::CorruptsTransaction => {
            let position = raw.len().saturating_sub(60);
            raw[position] ^= 1;
        }
        Behaviour::Honest
        | Behaviour::HugeMempool
        | Behaviour::Down
        | Behaviour::Throttled
        | Behaviour::RateLimited => {}
    }
    Ok(([("content-type", "application/octet-stream")], raw).into_response())
}

/// Reduces the transaction count by one. The bytes of the last transaction stay.
fn omit_last_transaction(raw: &mut [u8]) {
    if let Some(count) = raw.get_mut(80).filter(|count| (2..=252).contains(*count)) {
        *count -= 1;
    }
}

async fn serve_mempool_txids(State(shared): State<Arc<Shared>>) -> EsploraResult {
    Ok(axum::Json(shared.call_node("getrawmempool", json!([])).await?).into_response())
}

async fn serve_mempool_info(State(shared): State<Arc<Shared>>) -> EsploraResult {
    let info = shared.call_node("getmempoolinfo", json!([])).await?;
    let count = if shared.behaviour() == Behaviour::HugeMempool { json!(120_000) } else { info["size"].clone() };
    Ok(axum::Json(json!({ "count": count, "vsize": info["bytes"], "total_fee": 0, "fee_histogram": [] }))
        .into_response())
}

/// Returns the transactions in the mempool that pay an address, at most fifty.
async fn serve_mempool_of_address(State(shared): State<Arc<Shared>>, Path(address): Path<String>) -> EsploraResult {
    let listed = shared.call_node("getrawmempool", json!([])).await?;
    let mut found = Vec::new();
    for txid in listed.as_array().into_iter().flatten() {
        let tx = shared.call_node("getrawtransaction", json!([txid, true])).await?;
        let pays = |output: &Value| output["scriptPubKey"]["address"] == address.as_str();
        if tx["vout"].as_array().is_some_and(|outputs| outputs.iter().any(pays)) {
            found.push(json!({ "txid": txid, "version": tx["version"], "status": { "confirmed": false } }));
        }
    }
    found.truncate(50);
    Ok(axum::Json(found).into_response())
}

async fn serve_raw_transaction(State(shared): State<Arc<Shared>>, Path(txid): Path<String>) -> EsploraResult {
    let raw = decode_hex(&shared.call_node("getrawtransaction", json!([txid])).await?)?;
    Ok(([("content-type", "application/octet-stream")], raw).into_response())
}

async fn serve_fee_estimates(State(shared): State<Arc<Shared>>) -> EsploraResult {
    shared.call_node("getblockcount", json!([])).await?;
    let estimates = r#"{"1":87.882,"2":87.882,"3":87.882,"6":68.285,"144":1.027,"504":1.027,"1008":0.5}"#;
    Ok(([("content-type", "application/json")], estimates).into_response())
}

async fn serve_broadcast(State(shared): State<Arc<Shared>>, body: Bytes) -> EsploraResult {
    let hex = String::from_utf8_lossy(&body).into_owned();
    text_response(&shared.call_node("sendrawtransaction", json!([hex])).await?)
}
