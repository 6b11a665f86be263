//! The pool against HTTP servers that fail in every way a provider does.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{self, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use rpc::{
    AdaptiveSize, ChainCheck, Config, Endpoint, Limits, NodeError, NodeErrorKind, Pool, Rejection, Reply, Request,
    Role, RpcError, Target, Verdict,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

type Script = dyn Fn(usize, &Value) -> Response + Send + Sync;

/// A server that answers its n-th request as the script says.
struct Node {
    url: String,
    seen: Arc<Mutex<Vec<(HeaderMap, String, Value)>>>,
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct Shared {
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<(HeaderMap, String, Value)>>>,
}

impl Node {
    async fn start(script: impl Fn(usize, &Value) -> Response + Send + Sync + 'static) -> Node {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared { script: Arc::new(script), seen: seen.clone() };
        let router = Router::new().fallback(answer).with_state(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let url = format!("http://{address}/v1/VERYSECRETKEY");
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("the server runs until it is dropped") });
        Node { url, seen, _server: server }
    }

    fn count(&self) -> usize {
        self.seen.lock().expect("no panic while it is held").len()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(&self.url).expect("a URL")
    }
}

async fn answer(State(shared): State<Shared>, request: extract::Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a whole body");
    let question: Value = serde_json::from_slice(&body).unwrap_or_default();
    let number = {
        let mut seen = shared.seen.lock().expect("no panic while it is held");
        seen.push((parts.headers, parts.uri.to_string(), question.clone()));
        seen.len() - 1
    };
    (shared.script)(number, &question)
}

fn says(result: &str) -> Response {
    axum::Json(json!({ "jsonrpc": "2.0", "id": 0, "result": result })).into_response()
}

fn refuses(code: i64, message: &str) -> Response {
    axum::Json(json!({ "jsonrpc": "2.0", "id": 0, "error": { "code": code, "message": message } })).into_response()
}

fn pool(endpoints: Vec<Endpoint>) -> Pool {
    Pool::new(Config { deadline: Duration::from_secs(5), ..Config::new(endpoints) }).expect("somebody to read from")
}

fn text(reply: &Reply<'_>) -> Result<Verdict<String>, Rejection> {
    reply.result().map(Verdict::Accept)
}

#[tokio::test]
async fn the_first_healthy_endpoint_answers_and_the_others_are_not_asked() {
    let (a, b) = (Node::start(|_, _| says("a")).await, Node::start(|_, _| says("b")).await);
    let pool = pool(vec![a.endpoint(), b.endpoint()]);
    for _ in 0..3 {
        assert_eq!(pool.send(Request::call("m", &["x"]), text).await, Ok("a".to_owned()));
    }
    assert_eq!((a.count(), b.count(), pool.requests_sent()), (3, 0, 3));
    let question = a.seen.lock().unwrap()[0].2.clone();
    assert_eq!(question, json!({ "jsonrpc": "2.0", "id": 0, "method": "m", "params": ["x"] }));
}

#[tokio::test]
async fn each_endpoint_is_asked_once_and_then_rests() {
    let broken = || Node::start(|_, _| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let (a, b) = (broken().await, broken().await);
    let config = Config { deadline: Duration::from_secs(1), ..Config::new(vec![a.endpoint(), b.endpoint()]) };
    let pool = Pool::new(config).unwrap();
    let failure = pool.send(Request::call("m", &()), text).await.unwrap_err();
    assert_eq!((a.count(), b.count()), (1, 1));
    let RpcError::Unavailable(said) = failure else { panic!("{failure:?}") };
    assert!(said.contains("HTTP status 500") && !said.contains("VERYSECRETKEY"), "{said}");
    let rest = tokio::time::Instant::now();
    pool.send(Request::call("m", &()), text).await.unwrap_err();
    assert_eq!((a.count(), b.count()), (2, 2), "rests that end in time are waited for");
    assert!(rest.elapsed() >= Duration::from_millis(400), "{:?}", rest.elapsed());
    let RpcError::Unavailable(said) = pool.send(Request::call("m", &()), text).await.unwrap_err() else {
        panic!("still resting")
    };
    assert!(said.contains("cools down after"), "{said}");
    assert_eq!((a.count(), b.count()), (2, 2), "endpoints that rest for longer are left alone");
}

#[tokio::test]
async fn an_endpoint_that_is_down_or_silent_is_passed_over() {
    let good = Node::start(|_, _| says("good")).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Endpoint::new(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let down = Endpoint::new("http://127.0.0.1:9").unwrap();
    let config = Config { deadline: Duration::from_millis(900), ..Config::new(vec![down, silent, good.endpoint()]) };
    assert_eq!(Pool::new(config).unwrap().send(Request::call("m", &()), text).await, Ok("good".to_owned()));
}

#[tokio::test]
async fn what_a_node_refuses_is_data_and_costs_no_health() {
    let node = Node::start(|_, _| refuses(3, "execution reverted with VERYSECRETKEY")).await;
    let pool = pool(vec![node.endpoint()]);
    for _ in 0..3 {
        let Err(RpcError::NodeError(refusal)) = pool.send(Request::call("m", &()), text).await else {
            panic!("a refusal")
        };
        assert_eq!(refusal.code, 3);
        assert!(!refusal.message.contains("VERYSECRETKEY"), "{}", refusal.message);
    }
    assert_eq!(node.count(), 3);
}

#[tokio::test]
async fn errors_in_the_body_of_a_failed_status_are_read() {
    let node =
        Node::start(|_, _| (StatusCode::BAD_REQUEST, refuses(-32602, "block range is too large")).into_response());
    let failed = pool(vec![node.await.endpoint()]).send(Request::call("m", &()), text).await;
    assert!(matches!(failed, Err(RpcError::TooLarge(_))), "{failed:?}");
}

#[tokio::test]
async fn a_missing_method_closes_only_itself() {
    let old = Node::start(
        |_, question| {
            if question["method"] == "new" { refuses(-32601, "method not found") } else { says("old") }
        },
    )
    .await;
    let good = Node::start(|_, _| says("good")).await;
    let both = pool(vec![old.endpoint(), good.endpoint()]);
    for _ in 0..3 {
        assert_eq!(both.send(Request::call("new", &()), text).await, Ok("good".to_owned()));
        assert_eq!(both.send(Request::call("m", &()), text).await, Ok("old".to_owned()));
    }
    assert_eq!(old.count(), 1 + 3);
    let alone = pool(vec![old.endpoint()]);
    for _ in 0..2 {
        assert_eq!(alone.send(Request::call("new", &()), text).await, Err(RpcError::MethodMissing("new".to_owned())));
    }
    assert_eq!(old.count(), 4 + 1);
}

#[tokio::test]
async fn wrong_and_doubtful_answers_are_asked_elsewhere() {
    let (a, b) = (Node::start(|_, _| says("a")).await, Node::start(|_, _| says("b")).await);
    let both = pool(vec![a.endpoint(), b.endpoint()]);
    let only_b = |reply: &Reply<'_>| match reply.result()? {
        "b" => Ok(Verdict::Accept("b")),
        "a" => Ok(Verdict::Fallback("a")),
        _ => Err(Rejection::Invalid("nonsense".to_owned())),
    };
    assert_eq!(both.send(Request::call("m", &()), only_b).await, Ok("b"));
    let doubtful = pool(vec![a.endpoint()]);
    assert_eq!(doubtful.send(Request::call("m", &()), only_b).await, Ok("a"), "nobody is surer");
    let wrong = |_: &Reply<'_>| Err::<Verdict<()>, Rejection>(Rejection::Invalid("contradiction".to_owned()));
    let failed = pool(vec![a.endpoint(), b.endpoint()]).send(Request::call("m", &()), wrong).await;
    assert!(matches!(failed, Err(RpcError::Invalid(why)) if why.contains("contradiction")));
}

#[tokio::test]
async fn bodies_are_cut_at_the_bound() {
    let announced = Node::start(|_, _| says(&"x".repeat(5_000))).await;
    let streamed = Node::start(|_, _| {
        let chunks = (0..100).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 100])));
        Body::from_stream(futures_util::stream::iter(chunks)).into_response()
    })
    .await;
    for node in [announced, streamed] {
        let config = Config { body_bytes_max: 1_000, ..Config::new(vec![node.endpoint()]) };
        let failed = Pool::new(config).unwrap().send(Request::call("m", &()), text).await;
        assert!(matches!(failed, Err(RpcError::TooLarge(_))), "{failed:?}");
    }
}

#[tokio::test]
async fn batches_come_back_in_order_and_their_gaps_are_filled() {
    let node = Node::start(move |_, question| {
        let Value::Array(calls) = question else { return axum::Json(echo(question)).into_response() };
        // Out of order, the last one forgotten, one stranger.
        let mut answers: Vec<Value> = calls.iter().rev().skip(1).map(echo).collect();
        answers.push(json!({ "id": 99, "result": "stranger" }));
        axum::Json(Value::Array(answers)).into_response()
    })
    .await;
    let pool = pool(vec![node.endpoint()]);
    let questions: Vec<[String; 1]> = (0..25).map(|n| [format!("q{n}")]).collect();
    let answers = pool.batch("m", &questions, 10, |_, reply| text(reply)).await.into_all().unwrap();
    assert_eq!(answers, (0..25).map(|n| format!("q{n}")).collect::<Vec<_>>());
    assert_eq!(pool.requests_sent(), 25 + 3, "every item is counted, and the three that were asked again");
    assert_eq!(node.count(), 3 + 3);
}

fn many(count: usize) -> Vec<[String; 1]> {
    (0..count).map(|n| [format!("q{n}")]).collect()
}

fn echo(call: &Value) -> Value {
    json!({ "id": call["id"], "result": call["params"][0] })
}

/// Answers batches and single questions.
fn echoes(question: &Value) -> Response {
    let Some(calls) = question.as_array() else { return axum::Json(echo(question)).into_response() };
    axum::Json(Value::Array(calls.iter().map(echo).collect())).into_response()
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("q{n}")).collect()
}

/// How many questions each request had.
fn sizes(node: &Node) -> Vec<usize> {
    let seen = node.seen.lock().expect("no panic while it is held");
    seen.iter().map(|(_, _, question)| question.as_array().map_or(1, Vec::len)).collect()
}

/// A gateway that answers a batch with 429, and the third single question too, gets all of them answered after its rests.
#[tokio::test]
async fn one_throttled_endpoint_is_waited_for() {
    let node = Node::start(|n, question| match n {
        0 | 3 => StatusCode::TOO_MANY_REQUESTS.into_response(),
        _ => echoes(question),
    })
    .await;
    let answers = pool(vec![node.endpoint()]).batch("m", &many(5), 10, |_, reply| text(reply)).await.into_all();
    assert_eq!(answers, Ok(texts(5)));
    assert_eq!(sizes(&node), [5, 1, 1, 1, 1, 1, 1], "the question that was turned away is asked again");
}

#[tokio::test]
async fn quota_errors_in_a_batch_are_one_failure_and_what_was_answered_is_kept() {
    let node = Node::start(|n, question| match (n, question) {
        (0, Value::Array(calls)) => {
            let exceeded =
                |call: &Value| json!({ "id": call["id"], "error": { "code": 402, "message": "Payment Required" } });
            let items = calls.iter().enumerate().map(|(i, call)| if i < 7 { echo(call) } else { exceeded(call) });
            axum::Json(Value::Array(items.collect())).into_response()
        }
        _ => echoes(question),
    })
    .await;
    let began = tokio::time::Instant::now();
    let pool = pool(vec![node.endpoint()]);
    assert_eq!(pool.batch("m", &many(10), 10, |_, reply| text(reply)).await.into_all(), Ok(texts(10)));
    assert_eq!(sizes(&node), [10, 1, 1, 1]);
    assert!(began.elapsed() < Duration::from_secs(2), "one rest of half a second, not three doubled ones");
    assert_eq!(pool.batch("m", &many(10), 10, |_, reply| text(reply)).await.into_all(), Ok(texts(10)));
    assert_eq!(sizes(&node)[4..], [5, 5], "less is asked for at once from then on");
}

#[tokio::test]
async fn a_batch_that_takes_too_long_is_asked_for_in_parts() {
    let node = Node::start(|_, question| {
        if question.as_array().is_some_and(|calls| calls.len() > 5) {
            let silence = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
            return Body::from_stream(silence).into_response();
        }
        echoes(question)
    })
    .await;
    let config = Config { deadline: Duration::from_secs(1), ..Config::new(vec![node.endpoint()]) };
    let pool = Pool::new(config).unwrap();
    for _ in 0..2 {
        assert_eq!(pool.batch("m", &many(10), 10, |_, reply| text(reply)).await.into_all(), Ok(texts(10)));
    }
    let sizes = sizes(&node);
    assert_eq!((sizes[0], &sizes[1..11], &sizes[11..]), (10, &[1; 10][..], &[5, 5][..]));
}

#[tokio::test]
async fn an_outage_behind_a_gateway_makes_no_batch_smaller() {
    let node =
        Node::start(|n, question| if n < 2 { StatusCode::BAD_GATEWAY.into_response() } else { echoes(question) });
    let node = node.await;
    let pool = pool(vec![node.endpoint()]);
    assert!(pool.batch("m", &many(10), 10, |_, reply| text(reply)).await.into_all().is_err());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(pool.batch("m", &many(10), 10, |_, reply| text(reply)).await.into_all(), Ok(texts(10)));
    assert_eq!(sizes(&node), [10, 1, 10]);
}

#[tokio::test]
async fn no_batch_is_larger_than_what_a_provider_allows_in_a_second() {
    let node = Node::start(|_, question| echoes(question)).await;
    let limited = node.endpoint().with_limits(Limits { per_second: Some(20), per_day: None });
    let pool = pool(vec![limited]);
    assert_eq!(pool.batch("m", &many(45), 100, |_, reply| text(reply)).await.into_all(), Ok(texts(45)));
    assert_eq!(sizes(&node), [20, 20, 5]);
}

#[tokio::test]
async fn answers_before_the_first_gap_are_kept_by_whoever_wants_them() {
    let node = Node::start(|_, question| match question["params"][0].as_str() {
        Some("q3") => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(_) => echoes(question),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    })
    .await;
    let pool = pool(vec![node.endpoint()]);
    assert_eq!(pool.batch("m", &many(5), 1, |_, reply| text(reply)).await.into_prefix(), Ok(texts(3)));
    let failed = pool.batch("m", &many(5)[3..], 1, |_, reply| text(reply)).await.into_prefix();
    assert!(matches!(failed, Err(RpcError::Unavailable(_))), "{failed:?}");
}

#[tokio::test]
async fn slow_and_cut_answers_are_told_from_refused_connections() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Endpoint::new(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let cut = Node::start(|_, _| {
        let began = futures_util::stream::iter([Ok(Bytes::from("{"))]);
        let ended = futures_util::stream::once(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(std::io::Error::other("cut"))
        });
        Body::from_stream(began.chain(ended)).into_response()
    })
    .await;
    let gateway = Node::start(|_, _| StatusCode::GATEWAY_TIMEOUT.into_response()).await;
    for slow in [silent, cut.endpoint(), gateway.endpoint()] {
        let down = Endpoint::new("http://127.0.0.1:9").unwrap();
        let config = Config { deadline: Duration::from_millis(300), ..Config::new(vec![down, slow]) };
        let failure = Pool::new(config).unwrap().send(Request::call("m", &()), text).await.unwrap_err();
        assert!(matches!(failure, RpcError::Timeout(_)), "{failure:?}");
        let mut size = AdaptiveSize::new(100, 100);
        assert!(size.record_failure(100, &failure) && size.size() == 50 && !size.record_failure(1, &failure));
    }
    let bad_gateway = Node::start(|_, _| StatusCode::BAD_GATEWAY.into_response()).await;
    for down in [Endpoint::new("http://127.0.0.1:9").unwrap(), bad_gateway.endpoint()] {
        let config = Config { deadline: Duration::from_millis(300), ..Config::new(vec![down]) };
        let failure = Pool::new(config).unwrap().send(Request::call("m", &()), text).await.unwrap_err();
        assert!(matches!(failure, RpcError::Unavailable(_)), "{failure:?}");
        assert!(!AdaptiveSize::new(100, 100).record_failure(100, &failure));
    }
}

#[tokio::test]
async fn one_that_lags_is_asked_when_the_better_one_has_no_quota_for_long() {
    let (ahead, behind) = (Node::start(|_, _| says("ahead")).await, Node::start(|_, _| says("behind")).await);
    let a_few = ahead.endpoint().with_limits(Limits { per_second: None, per_day: Some(4) });
    let pool = pool(vec![behind.endpoint(), a_few]);
    pool.record_head(0, 96);
    pool.record_head(1, 100);
    assert_eq!(pool.send(Request::call("m", &()), text).await, Ok("ahead".to_owned()));
    assert_eq!(
        pool.send(Request::call("m", &()), text).await,
        Ok("behind".to_owned()),
        "the other would be free in hours"
    );
}

#[test]
fn how_far_a_head_may_be_behind_is_a_matter_of_time() {
    let lag = |block_time: u64| {
        Config::new(Vec::new()).with_block_time(Duration::from_millis(block_time)).head_lag_blocks_max
    };
    let blocks = [600_000, 12_000, 3_000, 250].map(lag);
    assert_eq!(blocks, [1, 3, 10, 120], "Bitcoin, Ethereum, TRON, Arbitrum");
}

#[tokio::test]
async fn a_second_word_is_waited_for_and_the_first_speaker_is_not_asked_again() {
    let throttled_once =
        Node::start(|n, _| if n == 0 { StatusCode::TOO_MANY_REQUESTS.into_response() } else { says("b") });
    let (a, b) = (Node::start(|_, _| says("a")).await, throttled_once.await);
    let both = pool(vec![a.endpoint(), b.endpoint()]);
    assert_eq!(both.send(Request::call("m", &()).to(Target::Excluding(0)), text).await, Ok("b".to_owned()));
    assert_eq!((a.count(), b.count()), (0, 2), "asked again after its rest");
    assert_eq!(both.send(Request::call("m", &()).to(Target::Excluding(1)), text).await, Ok("a".to_owned()));

    let resting = Node::start(|_, _| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "120")]).into_response()).await;
    let lacking = Node::start(|_, _| refuses(-32601, "method not found")).await;
    let failed =
        pool(vec![a.endpoint(), resting.endpoint()]).send(Request::call("m", &()).to(Target::Excluding(0)), text).await;
    assert!(matches!(&failed, Err(RpcError::Unavailable(why)) if why.contains("429")), "{failed:?}");
    let failed =
        pool(vec![a.endpoint(), lacking.endpoint()]).send(Request::call("m", &()).to(Target::Excluding(0)), text).await;
    assert_eq!(failed, Err(RpcError::MethodMissing("m".to_owned())));
    let failed = pool(vec![a.endpoint()]).send(Request::call("m", &()).to(Target::Excluding(0)), text).await;
    assert!(matches!(&failed, Err(RpcError::Unavailable(why)) if why.contains("no other")), "{failed:?}");
    assert_eq!((a.count(), b.count()), (1, 2));
}

/// What is asked again and again leaves a resting endpoint alone; a person who checks is answered.
#[tokio::test]
async fn one_endpoint_can_be_asked_with_and_without_respect_for_its_rest() {
    let node = Node::start(|n, _| match n {
        0 => (StatusCode::FORBIDDEN, "the query server is suspended for 30s").into_response(),
        _ => says("ours"),
    })
    .await;
    let pool = pool(vec![node.endpoint()]);
    for _ in 0..3 {
        let failed = pool.send(Request::call("m", &()).to(Target::Only(0)), text).await;
        assert!(matches!(failed, Err(RpcError::Unavailable(_))), "{failed:?}");
    }
    assert_eq!(node.count(), 1);
    assert_eq!(pool.send(Request::call("m", &()).to(Target::Probe(0)), text).await, Ok("ours".to_owned()));
    assert!(
        matches!(pool.send(Request::call("m", &()).to(Target::Only(0)), text).await, Err(RpcError::Unavailable(_))),
        "it still rests"
    );
}

#[tokio::test]
async fn errors_that_look_like_answers_are_known_to_the_proof() {
    let error = |reply: &Reply<'_>| {
        let said: Value = reply.json().ok()?;
        let message = said.get("Error")?.as_str()?.to_owned();
        Some(Rejection::NodeError(NodeError { code: 200, message, kind: NodeErrorKind::RateLimited }))
    };
    let node = Node::start(|_, _| axum::Json(json!({ "Error": "suspended for 30s" })).into_response()).await;
    let request = Request::post("block", b"{}".to_vec());
    let chain_check = ChainCheck::field_ends_with(request, "blockID", "1234").with_errors(error);
    let pool = Pool::new(Config { chain_check: Some(chain_check), ..Config::new(vec![node.endpoint()]) }).unwrap();
    for _ in 0..3 {
        let failed = pool.send(Request::call("m", &()), text).await;
        assert!(matches!(&failed, Err(RpcError::Unavailable(why)) if why.contains("suspended for 30s")), "{failed:?}");
    }
    assert_eq!(node.count(), 1, "it rests for as long as it said");
}

#[tokio::test]
async fn a_day_that_is_used_up_is_a_quota() {
    let spent = Node::start(|_, _| (StatusCode::PAYMENT_REQUIRED, refuses(402, "Payment Required")).into_response());
    let (spent, good) = (spent.await, Node::start(|_, _| says("good")).await);
    let pool = pool(vec![spent.endpoint(), good.endpoint()]);
    for _ in 0..3 {
        assert_eq!(pool.send(Request::call("m", &()), text).await, Ok("good".to_owned()));
    }
    assert_eq!(spent.count(), 1, "it rests");
}

/// The variables are read when a client is made, so another process has to have them.
#[test]
fn no_proxy_of_the_environment_is_used() {
    let program = std::env::current_exe().unwrap();
    let test = "pool::the_first_healthy_endpoint_answers_and_the_others_are_not_asked";
    let mut again = std::process::Command::new(program);
    again.args(["--exact", test]).env_remove("NO_PROXY").env_remove("no_proxy");
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        again.env(name, "http://127.0.0.1:9");
    }
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn a_foreign_node_is_proven_before_it_is_believed() {
    let ours = Node::start(|_, question| if question["method"] == "id" { says("0x1") } else { says("ours") }).await;
    let foreign =
        Node::start(|_, question| if question["method"] == "id" { says("0x2") } else { says("foreign") }).await;
    let chain_check = Some(ChainCheck::result_is(Request::call("id", &[(); 0]), "0x1"));
    let pool = Pool::new(Config { chain_check, ..Config::new(vec![foreign.endpoint(), ours.endpoint()]) }).unwrap();
    let asked = [(); 4].map(|()| pool.send(Request::call("m", &()), text));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer, Ok("ours".to_owned()));
    }
    assert!(foreign.seen.lock().unwrap().iter().all(|(_, _, question)| question["method"] == "id"));
    assert_eq!(ours.count(), 4 + 1, "proven once");
}

#[tokio::test]
async fn plain_http_is_asked_below_the_path_with_the_headers() {
    let node = Node::start(|_, _| axum::Json(json!({ "height": 7 })).into_response()).await;
    let endpoint = node.endpoint().with_header("TRON-PRO-API-KEY", "ANOTHERSECRET").unwrap();
    let pool = pool(vec![endpoint]);
    let height = |reply: &Reply<'_>| reply.json::<Value>().map(|value| Verdict::Accept(value["height"].as_u64()));
    assert_eq!(
        pool.send(Request::post("wallet/getnowblock", b"{}".to_vec()).with_method("getnowblock"), height).await,
        Ok(Some(7))
    );
    assert_eq!(pool.send(Request::get("blocks/tip?x=1").with_method("tip"), height).await, Ok(Some(7)));
    let seen = node.seen.lock().unwrap();
    assert_eq!(seen[0].1, "/v1/VERYSECRETKEY/wallet/getnowblock");
    assert_eq!(seen[1].1, "/v1/VERYSECRETKEY/blocks/tip?x=1");
    assert_eq!(seen[0].0["tron-pro-api-key"], "ANOTHERSECRET");
}

#[tokio::test(start_paused = true)]
async fn a_quota_sends_to_the_next_endpoint_and_then_waits() {
    let (a, b) = (Node::start(|_, _| says("a")).await, Node::start(|_, _| says("b")).await);
    let limited = |node: &Node| node.endpoint().with_limits(Limits { per_second: Some(1), per_day: None });
    let pool = pool(vec![limited(&a), limited(&b)]);
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(pool.send(Request::call("m", &()), text).await.unwrap());
    }
    answers.sort();
    assert_eq!(answers, ["a", "a", "b", "b"]);
}

#[tokio::test]
async fn a_pool_needs_somebody_to_read_from() {
    let endpoint = Endpoint::new("http://127.0.0.1:9").unwrap().with_roles(&[Role::Broadcast]);
    assert!(Pool::new(Config::new(vec![endpoint])).is_err());
    assert!(Pool::new(Config::new(Vec::new())).is_err());
}
