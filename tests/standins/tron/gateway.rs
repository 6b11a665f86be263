//! HTTP servers in front of the model chain. A test can make a gateway lag, throttle, or return broken answers. Several
//! gateways can serve one chain.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use chain::AddressKey;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tron::{
    abi::TRANSFER_TOPIC,
    address::to_prefixed_hex,
    transaction::{Operation, TransactionParams, UnsignedTransaction, build_transaction},
};

use crate::{api::NodeApi, jsonrpc, model::ChainModel};

const BODY_MAX: usize = 4 << 20;
/// The time after which a silent gateway answers; longer than any client waits.
const SILENCE: Duration = Duration::from_secs(60);
/// The pause before each byte of a slow answer. Even the answer `{}` takes longer than a client waits.
const BYTE_DELAY: Duration = Duration::from_secs(5);

/// A fault of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayFault {
    None,
    /// Lags by this number of blocks. The answer for a missing block is `{}` or `[]`.
    Lagging(u64),
    /// Returns the current newest block, but lags by this number of blocks for all other requests.
    LaggingExceptTip(u64),
    /// Returns `[]` instead of receipts.
    NoReceipts,
    /// Leaves out one receipt.
    MissingReceipt,
    /// Leaves out the transactions of blocks.
    NoTransactions,
    /// Returns only the first half of a range.
    HalfRange,
    /// Changes the content of transactions and keeps their ids.
    ForgedPayment,
    /// Adds money to the blocks and receipts that the chain does not have; see [`InventedMoney`].
    InventedMoney(InventedMoney),
    /// Hides all transfers: receipts without logs and internal transactions, and payments that failed.
    HiddenTransfers,
    /// Receipts without internal transactions, as on a node that does not save them.
    NoInternalTransactions,
    /// HTTP 429.
    Throttled,
    /// HTTP 503.
    Unavailable,
    /// HTTP 403 with the text that TronGrid sends when it suspends a key for this number of seconds.
    Suspended(u64),
    /// HTTP 200 with an error in the body.
    ErrorIn200,
    /// HTTP 200 with an HTML page.
    WebPage,
    /// Does not answer.
    Silent,
    /// Processes the request, then closes the connection without an answer.
    LostAnswer,
    /// Returns the first half of the answer.
    TruncatedAnswer,
    /// Returns one byte of the answer every [`BYTE_DELAY`].
    Slow,
    /// Returns the genesis block of another chain.
    WrongChain,
    /// Does not answer requests for ranges of more than this number of blocks.
    SlowRanges(u64),
    /// Simulates no calls, as with `vm.supportConstant = false`, the default of java-tron.
    NoSimulation,
}

/// Money that a gateway invents. Each successful call of a contract gets an additional token transfer and an additional
/// call that sends TRX, and each block with transactions gets an additional payment of TRX, all of the same amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InventedMoney {
    /// The token contract.
    pub token: AddressKey,
    /// The receiver.
    pub to: AddressKey,
    /// The amount in base units of the token, and in sun.
    pub amount: u32,
}

/// A running HTTP server; dropping it stops the server.
pub struct Gateway {
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    model: Arc<Mutex<ChainModel>>,
    fault: Mutex<GatewayFault>,
    /// The number of requests, by path.
    requests: Mutex<BTreeMap<String, u64>>,
    key: Option<String>,
}

impl Gateway {
    /// Listens on `address`. With a `key`, requests must send it in the header `TRON-PRO-API-KEY`.
    pub async fn start_on(
        model: Arc<Mutex<ChainModel>>,
        address: SocketAddr,
        key: Option<String>,
    ) -> io::Result<Gateway> {
        let shared = Arc::new(Shared { model, fault: Mutex::new(GatewayFault::None), requests: Mutex::default(), key });
        let listener = TcpListener::bind(address).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new().fallback(serve_request).with_state(shared.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "a stand-in is aborted when its test drops it, not with the daemon's tasks"
        )]
        let task = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("the server runs until its task is aborted")
        });
        Ok(Gateway { url, shared, task })
    }

    /// Sets the fault of all later requests; [`GatewayFault::None`] removes it.
    pub fn set_fault(&self, fault: GatewayFault) {
        *lock_mutex(&self.shared.fault) = fault;
    }

    /// Returns the number of requests so far whose path ends with `method`; an empty `method` counts all.
    pub fn request_count(&self, method: &str) -> u64 {
        lock_mutex(&self.shared.requests)
            .iter()
            .filter(|(path, _)| path.ends_with(method))
            .map(|(_, count)| count)
            .sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock_mutex<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("the lock is never poisoned: no code panics while holding it")
}

async fn serve_request(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_matches('/').to_owned();
    *lock_mutex(&shared.requests).entry(path.clone()).or_default() += 1;
    if !shared.accepts_key(&parts.headers) {
        return (StatusCode::UNAUTHORIZED, "{\"Error\":\"ApiKey not exists\"}").into_response();
    }
    let fault = *lock_mutex(&shared.fault);
    match fault {
        GatewayFault::Throttled => return StatusCode::TOO_MANY_REQUESTS.into_response(),
        GatewayFault::Unavailable => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        GatewayFault::Suspended(seconds) => {
            let text =
                format!("The key exceeds the frequency limit(15), and the query server is suspended for {seconds}s");
            return (StatusCode::FORBIDDEN, json!({ "Error": text }).to_string()).into_response();
        }
        GatewayFault::ErrorIn200 => {
            let text = "class java.lang.IllegalAccessException : lack of computing resources";
            return json_response(&json!({ "Error": text }));
        }
        GatewayFault::WebPage => return "<html>Bad gateway</html>".into_response(),
        GatewayFault::Silent => tokio::time::sleep(SILENCE).await,
        GatewayFault::None
        | GatewayFault::Lagging(_)
        | GatewayFault::LaggingExceptTip(_)
        | GatewayFault::NoReceipts
        | GatewayFault::MissingReceipt
        | GatewayFault::NoTransactions
        | GatewayFault::HalfRange
        | GatewayFault::ForgedPayment
        | GatewayFault::InventedMoney(_)
        | GatewayFault::HiddenTransfers
        | GatewayFault::NoInternalTransactions
        | GatewayFault::LostAnswer
        | GatewayFault::TruncatedAnswer
        | GatewayFault::Slow
        | GatewayFault::WrongChain
        | GatewayFault::SlowRanges(_)
        | GatewayFault::NoSimulation => {}
    }
    let Ok(body) = axum::body::to_bytes(body, BODY_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let request = parse_request(&parts.method, &parts.uri, &body);
    if let GatewayFault::SlowRanges(blocks_max) = fault
        && range_length(&request) > blocks_max
    {
        tokio::time::sleep(SILENCE).await;
    }
    let answer = if path == "jsonrpc" {
        shared.answer_json_rpc(&request, fault)
    } else {
        let Some((prefix, method)) = path.split_once('/') else { return StatusCode::NOT_FOUND.into_response() };
        shared.answer_http_api(prefix == "walletsolidity", method, &request, fault)
    };
    let text = answer.to_string();
    if fault == GatewayFault::LostAnswer {
        stream_response(stream::iter([Err(io::ErrorKind::ConnectionReset.into())]))
    } else if fault == GatewayFault::TruncatedAnswer {
        text_response(text[..text.len() / 2].to_owned())
    } else if fault == GatewayFault::Slow {
        stream_response(stream::iter(text.into_bytes()).then(|byte| async move {
            tokio::time::sleep(BYTE_DELAY).await;
            Ok(Bytes::from(vec![byte]))
        }))
    } else {
        text_response(text)
    }
}

fn json_response(answer: &Value) -> Response {
    text_response(answer.to_string())
}

fn text_response(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

fn stream_response(bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response {
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(bytes)).into_response()
}

/// Returns the JSON body of a POST request, or the query of a GET request as an object of strings. An invalid or empty
/// body counts as `{}`.
fn parse_request(method: &Method, uri: &Uri, body: &Bytes) -> Value {
    if method == Method::POST {
        return serde_json::from_slice(body).unwrap_or_else(|_| json!({}));
    }
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(key, value)| (key.to_owned(), json!(value))).collect::<Map<_, _>>();
    Value::Object(pairs)
}

/// Returns the number of blocks in a requested range; 0 when the request has no range.
fn range_length(request: &Value) -> u64 {
    let number = |field: &str| request[field].as_u64().unwrap_or(0);
    number("endNum").saturating_sub(number("startNum"))
}

impl Shared {
    /// Returns true when the headers contain the required API key, or none is required.
    fn accepts_key(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get("TRON-PRO-API-KEY").and_then(|value| value.to_str().ok());
        self.key.is_none() || sent == self.key.as_deref()
    }

    /// Answers a JSON-RPC request from the head view. With [`GatewayFault::LaggingExceptTip`] all answers lag, because the
    /// JSON-RPC API belongs to a single node.
    fn answer_json_rpc(&self, request: &Value, fault: GatewayFault) -> Value {
        let behind =
            if let GatewayFault::Lagging(blocks) | GatewayFault::LaggingExceptTip(blocks) = fault { blocks } else { 0 };
        jsonrpc::answer(&lock_mutex(&self.model), behind, request)
    }

    /// Answers a request of the HTTP API.
    fn answer_http_api(&self, solid: bool, method: &str, request: &Value, fault: GatewayFault) -> Value {
        let mut model = lock_mutex(&self.model);
        let newest = if solid { model.solid_height() } else { model.head_height() };
        let requests_newest = method == "getnowblock" || (method == "getblock" && request["id_or_num"].is_null());
        let behind = if let GatewayFault::Lagging(blocks) = fault {
            blocks
        } else if let GatewayFault::LaggingExceptTip(blocks) = fault
            && !requests_newest
        {
            blocks
        } else {
            0
        };
        let mut api = NodeApi { model: &mut model, top: newest.saturating_sub(behind), solid };
        let mut answer = api.answer(method, request);
        apply_fault(method, request, fault, &mut answer);
        answer
    }
}

/// Changes a correct answer into the wrong answer of the fault.
fn apply_fault(method: &str, request: &Value, fault: GatewayFault, answer: &mut Value) {
    match (fault, method) {
        (GatewayFault::NoSimulation, "triggerconstantcontract" | "estimateenergy") => {
            let text = "Contract validate error : this node does not support constant";
            let refused = json!({ "code": "CONTRACT_VALIDATE_ERROR", "message": const_hex::encode(text) });
            *answer = json!({ "result": refused });
        }
        (GatewayFault::NoReceipts, "gettransactioninfobyblocknum") => *answer = json!([]),
        (GatewayFault::MissingReceipt, "gettransactioninfobyblocknum") => {
            drop(answer.as_array_mut().and_then(Vec::pop))
        }
        (GatewayFault::NoTransactions, _) => {
            for block in iter_blocks(answer) {
                block.remove("transactions");
            }
        }
        (GatewayFault::HalfRange, "getblockbylimitnext") => {
            if let Some(blocks) = answer["block"].as_array_mut() {
                blocks.truncate(blocks.len() / 2);
            }
        }
        (GatewayFault::ForgedPayment, _) => {
            for block in iter_blocks(answer) {
                for transaction in block.get_mut("transactions").and_then(Value::as_array_mut).into_iter().flatten() {
                    let raw = transaction["raw_data_hex"].as_str().unwrap_or_default();
                    transaction["raw_data_hex"] = json!(raw.replacen("0801", "0802", 1).replacen("40", "41", 1));
                }
            }
        }
        (GatewayFault::InventedMoney(money), "getblock" | "getblockbylimitnext") => {
            iter_blocks(answer).for_each(|block| money.add_payment_to_block(block));
        }
        (GatewayFault::InventedMoney(money), "gettransactioninfobyblocknum" | "gettransactioninfobyid") => {
            iter_receipts(answer).for_each(|receipt| money.add_transfers_to_receipt(receipt));
            if let (Some(receipts), Some(height)) = (answer.as_array_mut(), request["num"].as_i64())
                && !receipts.is_empty()
            {
                let txid = money.build_payment(height).txid;
                receipts.push(json!({ "id": txid.to_string(), "blockNumber": height }));
            }
        }
        (GatewayFault::HiddenTransfers, _) => {
            for block in iter_blocks(answer) {
                for transaction in block.get_mut("transactions").and_then(Value::as_array_mut).into_iter().flatten() {
                    transaction["ret"] = json!([{ "contractRet": "REVERT" }]);
                }
            }
            for receipt in iter_receipts(answer) {
                receipt.remove("log");
                receipt.remove("internal_transactions");
            }
        }
        (GatewayFault::NoInternalTransactions, _) => iter_receipts(answer).for_each(|receipt| {
            receipt.remove("internal_transactions");
        }),
        (GatewayFault::WrongChain, "getblockbynum") if request["num"] == 0 => {
            answer["blockID"] = json!(format!("{:064x}", 7));
        }
        _ => {}
    }
}

impl InventedMoney {
    /// Returns the invented payment of TRX in the block at this height.
    fn build_payment(&self, height: i64) -> UnsignedTransaction {
        let reference = chain::BlockRef { height: 0, hash: chain::BlockHash([0; 32]) };
        let operation = Operation::Transfer { to: self.to, sun: i64::from(self.amount) };
        build_transaction(self.token, &operation, &TransactionParams::without_fee_limit(reference, 0, height))
    }

    /// Adds the invented payment to a block with transactions.
    fn add_payment_to_block(&self, block: &mut Map<String, Value>) {
        let height = block.get("block_header").and_then(|header| header["raw_data"]["number"].as_i64()).unwrap_or(0);
        if let Some(transactions) = block.get_mut("transactions").and_then(Value::as_array_mut) {
            let UnsignedTransaction { raw, txid } = self.build_payment(height);
            transactions.push(json!({
                "txID": txid.to_string(),
                "raw_data_hex": const_hex::encode(raw),
                "ret": [{ "contractRet": "SUCCESS" }],
            }));
        }
    }

    /// Adds the invented token transfer and the invented call to the receipt of a successful call of a contract.
    fn add_transfers_to_receipt(&self, receipt: &mut Map<String, Value>) {
        if receipt.get("receipt").is_none_or(|found| found["result"] != "SUCCESS") {
            return;
        }
        let word = |key: AddressKey| format!("{:0>64}", const_hex::encode(key.0));
        let log = json!({
            "address": const_hex::encode(self.token.0),
            "topics": [TRANSFER_TOPIC, word(self.token), word(self.to)],
            "data": format!("{:064x}", self.amount),
        });
        let call = json!({
            "caller_address": to_prefixed_hex(self.token),
            "transferTo_address": to_prefixed_hex(self.to),
            "callValueInfo": [{ "callValue": self.amount }],
            "note": const_hex::encode("call"),
        });
        for (field, added) in [("log", log), ("internal_transactions", call)] {
            let list = receipt.entry(field).or_insert_with(|| json!([]));
            list.as_array_mut().into_iter().for_each(|list| list.push(added.clone()));
        }
    }
}

/// Returns the receipts of an answer: those of a block, or the answer itself. Other answers have none.
fn iter_receipts(answer: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let receipts: Vec<&mut Value> =
        if answer.is_array() { answer.as_array_mut().into_iter().flatten().collect() } else { vec![answer] };
    receipts.into_iter().filter_map(Value::as_object_mut).filter(|receipt| receipt.contains_key("receipt"))
}

/// Returns the blocks of an answer: those of a range, or the answer itself.
fn iter_blocks(answer: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let is_range = answer.get("block").is_some_and(Value::is_array);
    let blocks: Vec<&mut Value> =
        if is_range { answer["block"].as_array_mut().into_iter().flatten().collect() } else { vec![answer] };
    blocks.into_iter().filter_map(Value::as_object_mut)
}
