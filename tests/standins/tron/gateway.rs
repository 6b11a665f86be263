//! What clients talk to: a port in front of the chain, which lags, throttles, babbles or cuts when it is told to. Several
//! gateways show one chain.

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
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{api::NodeApi, jsonrpc, model::ChainModel};

const BODY_MAX: usize = 4 << 20;
/// Longer than any client waits.
const SILENCE: Duration = Duration::from_secs(60);
/// So that not even `{}` ends before its client loses patience.
const BETWEEN_BYTES: Duration = Duration::from_secs(5);

/// How a gateway misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayFault {
    None,
    /// Answers as a node that is so many blocks behind, with `{}` and `[]` for what it lacks.
    Lagging(u64),
    /// A newest block from an up-to-date node, everything else from one that is so many blocks behind.
    Torn(u64),
    /// `[]` instead of receipts.
    NoReceipts,
    /// One receipt too few.
    LostReceipt,
    /// Blocks whose transactions are left out.
    NoTransactions,
    /// Only the first half of a range.
    HalfRange,
    /// A payment that nobody made, under the id of another.
    Forged,
    /// HTTP 429.
    Throttled,
    /// HTTP 503.
    Unavailable,
    /// HTTP 403 for so many seconds, in words.
    Suspended(u64),
    /// HTTP 200 with an error.
    ErrorIn200,
    /// A web page.
    Babbling,
    /// No answer.
    Silent,
    /// What is asked for is done, and the line breaks before the answer.
    Lost,
    /// Half of the answer.
    Cut,
    /// A byte of the answer now and then.
    Slow,
    /// The solidified view is of another chain.
    Foreign,
    /// No answer to ranges of more blocks than these.
    SlowRanges(u64),
    /// As with `vm.supportConstant = false`, which is java-tron's default.
    NoConstant,
}

pub struct Gateway {
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    model: Arc<Mutex<ChainModel>>,
    fault: Mutex<GatewayFault>,
    asked: Mutex<BTreeMap<String, u64>>,
    key: Option<String>,
}

impl Gateway {
    /// Listens at `address`. With a `key`, requests need it in `TRON-PRO-API-KEY`.
    pub async fn open(model: Arc<Mutex<ChainModel>>, address: SocketAddr, key: Option<String>) -> io::Result<Gateway> {
        let shared = Arc::new(Shared { model, fault: Mutex::new(GatewayFault::None), asked: Mutex::default(), key });
        let listener = TcpListener::bind(address).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new().fallback(serve).with_state(shared.clone());
        #[expect(clippy::disallowed_methods, reason = "a stand-in ends with its test, not with the daemon's tasks")]
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("the listener lives") });
        Ok(Gateway { url, shared, task })
    }

    pub fn set_fault(&self, fault: GatewayFault) {
        *lock(&self.shared.fault) = fault;
    }

    /// Requests so far whose path ends with `call`.
    pub fn request_count(&self, call: &str) -> u64 {
        lock(&self.shared.asked).iter().filter(|(path, _)| path.ends_with(call)).map(|(_, times)| times).sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().expect("no holder panics")
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_matches('/').to_owned();
    *lock(&shared.asked).entry(path.clone()).or_default() += 1;
    if !shared.knows_key(&parts.headers) {
        return (StatusCode::UNAUTHORIZED, "{\"Error\":\"ApiKey not exists\"}").into_response();
    }
    let fault = *lock(&shared.fault);
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
            return reply(&json!({ "Error": text }));
        }
        GatewayFault::Babbling => return "<html>Bad gateway</html>".into_response(),
        GatewayFault::Silent => tokio::time::sleep(SILENCE).await,
        GatewayFault::None
        | GatewayFault::Lagging(_)
        | GatewayFault::Torn(_)
        | GatewayFault::NoReceipts
        | GatewayFault::LostReceipt
        | GatewayFault::NoTransactions
        | GatewayFault::HalfRange
        | GatewayFault::Forged
        | GatewayFault::Lost
        | GatewayFault::Cut
        | GatewayFault::Slow
        | GatewayFault::Foreign
        | GatewayFault::SlowRanges(_)
        | GatewayFault::NoConstant => {}
    }
    let Ok(body) = axum::body::to_bytes(body, BODY_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let question = question(&parts.method, &parts.uri, &body);
    if let GatewayFault::SlowRanges(most) = fault
        && blocks_asked(&question) > most
    {
        tokio::time::sleep(SILENCE).await;
    }
    let answer = if path == "jsonrpc" {
        shared.json_rpc(&question, fault)
    } else {
        let Some((state, call)) = path.split_once('/') else { return StatusCode::NOT_FOUND.into_response() };
        shared.answer(state == "walletsolidity", call, &question, fault)
    };
    let text = answer.to_string();
    if fault == GatewayFault::Lost {
        body_of(stream::iter([Err(io::ErrorKind::ConnectionReset.into())]))
    } else if fault == GatewayFault::Cut {
        json_text(text[..text.len() / 2].to_owned())
    } else if fault == GatewayFault::Slow {
        body_of(stream::iter(text.into_bytes()).then(|byte| async move {
            tokio::time::sleep(BETWEEN_BYTES).await;
            Ok(Bytes::from(vec![byte]))
        }))
    } else {
        json_text(text)
    }
}

fn reply(answer: &Value) -> Response {
    json_text(answer.to_string())
}

fn json_text(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

fn body_of(bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response {
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(bytes)).into_response()
}

/// The body of a POST, which may be empty or a form without fields, or the query of a GET.
fn question(method: &Method, uri: &Uri, body: &Bytes) -> Value {
    if method == Method::POST {
        return serde_json::from_slice(body).unwrap_or_else(|_| json!({}));
    }
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(key, value)| (key.to_owned(), json!(value))).collect::<Map<_, _>>();
    Value::Object(pairs)
}

/// How long the range is that is asked for.
fn blocks_asked(question: &Value) -> u64 {
    let at = |field: &str| question[field].as_u64().unwrap_or(0);
    at("endNum").saturating_sub(at("startNum"))
}

impl Shared {
    fn knows_key(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get("TRON-PRO-API-KEY").and_then(|value| value.to_str().ok());
        self.key.is_none() || sent == self.key.as_deref()
    }

    /// Of the head view. One that is torn lags here altogether: there is one interface, and it stands before one node.
    fn json_rpc(&self, question: &Value, fault: GatewayFault) -> Value {
        let behind = if let GatewayFault::Lagging(blocks) | GatewayFault::Torn(blocks) = fault { blocks } else { 0 };
        jsonrpc::answer(&lock(&self.model), behind, question)
    }

    fn answer(&self, solid: bool, call: &str, question: &Value, fault: GatewayFault) -> Value {
        let mut model = lock(&self.model);
        let newest = if solid { model.solid_height() } else { model.head_height() };
        let asks_newest = matches!(call, "getnowblock") || (call == "getblock" && question["id_or_num"].is_null());
        let behind = if let GatewayFault::Lagging(blocks) = fault {
            blocks
        } else if let GatewayFault::Torn(blocks) = fault
            && !asks_newest
        {
            blocks
        } else {
            0
        };
        let mut view = NodeApi { model: &mut model, top: newest.saturating_sub(behind), solid };
        let mut answer = view.answer(call, question);
        distort(call, question, fault, &mut answer);
        answer
    }
}

fn distort(call: &str, question: &Value, fault: GatewayFault, answer: &mut Value) {
    match (fault, call) {
        (GatewayFault::NoConstant, "triggerconstantcontract" | "estimateenergy") => {
            let text = "Contract validate error : this node does not support constant";
            let refused = json!({ "code": "CONTRACT_VALIDATE_ERROR", "message": const_hex::encode(text) });
            *answer = json!({ "result": refused });
        }
        (GatewayFault::NoReceipts, "gettransactioninfobyblocknum") => *answer = json!([]),
        (GatewayFault::LostReceipt, "gettransactioninfobyblocknum") => drop(answer.as_array_mut().and_then(Vec::pop)),
        (GatewayFault::NoTransactions, _) => {
            for block in blocks(answer) {
                block.remove("transactions");
            }
        }
        (GatewayFault::HalfRange, "getblockbylimitnext") => {
            if let Some(blocks) = answer["block"].as_array_mut() {
                blocks.truncate(blocks.len() / 2);
            }
        }
        (GatewayFault::Forged, _) => {
            for block in blocks(answer) {
                for transaction in block.get_mut("transactions").and_then(Value::as_array_mut).into_iter().flatten() {
                    let raw = transaction["raw_data_hex"].as_str().unwrap_or_default();
                    transaction["raw_data_hex"] = json!(raw.replacen("0801", "0802", 1).replacen("40", "41", 1));
                }
            }
        }
        (GatewayFault::Foreign, "getblockbynum") if question["num"] == 0 => {
            answer["blockID"] = json!(format!("{:064x}", 7));
        }
        _ => {}
    }
}

fn blocks(answer: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let many = answer.get("block").is_some_and(Value::is_array);
    let blocks: Vec<&mut Value> =
        if many { answer["block"].as_array_mut().into_iter().flatten().collect() } else { vec![answer] };
    blocks.into_iter().filter_map(Value::as_object_mut)
}
