//! The pool against HTTP servers that fail in every way a provider does.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use rpc::{Answer, Bad, Config, Endpoint, Failure, Limits, Pool, Proof, Reply, Role};
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

async fn answer(State(shared): State<Shared>, request: Request<Body>) -> Response {
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

fn text(reply: &Reply<'_>) -> Result<Answer<String>, Bad> {
    reply.result().map(Answer::Sure)
}

#[tokio::test]
async fn the_first_healthy_endpoint_answers_and_the_others_are_not_asked() {
    let (a, b) = (Node::start(|_, _| says("a")).await, Node::start(|_, _| says("b")).await);
    let pool = pool(vec![a.endpoint(), b.endpoint()]);
    for _ in 0..3 {
        assert_eq!(pool.ask("m", &["x"], text).await, Ok("a".to_owned()));
    }
    assert_eq!((a.count(), b.count(), pool.requests()), (3, 0, 3));
    let question = a.seen.lock().unwrap()[0].2.clone();
    assert_eq!(question, json!({ "jsonrpc": "2.0", "id": 0, "method": "m", "params": ["x"] }));
}

#[tokio::test]
async fn each_endpoint_is_asked_once_and_then_rests() {
    let broken = || Node::start(|_, _| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let (a, b) = (broken().await, broken().await);
    let pool = pool(vec![a.endpoint(), b.endpoint()]);
    let failure = pool.ask("m", &(), text).await.unwrap_err();
    assert_eq!((a.count(), b.count()), (1, 1));
    let Failure::Unavailable(said) = failure else { panic!("{failure:?}") };
    assert!(said.contains("HTTP status 500") && !said.contains("VERYSECRETKEY"), "{said}");
    let Failure::Unavailable(said) = pool.ask("m", &(), text).await.unwrap_err() else { panic!("still resting") };
    assert!(said.contains("rests after"), "{said}");
    assert_eq!((a.count(), b.count()), (1, 1), "resting endpoints are left alone");
}

#[tokio::test]
async fn an_endpoint_that_is_down_or_silent_is_passed_over() {
    let good = Node::start(|_, _| says("good")).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Endpoint::new(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let down = Endpoint::new("http://127.0.0.1:9").unwrap();
    let config = Config { deadline: Duration::from_millis(900), ..Config::new(vec![down, silent, good.endpoint()]) };
    assert_eq!(Pool::new(config).unwrap().ask("m", &(), text).await, Ok("good".to_owned()));
}

#[tokio::test]
async fn what_a_node_refuses_is_data_and_costs_no_health() {
    let node = Node::start(|_, _| refuses(3, "execution reverted with VERYSECRETKEY")).await;
    let pool = pool(vec![node.endpoint()]);
    for _ in 0..3 {
        let Err(Failure::Refused(refusal)) = pool.ask("m", &(), text).await else { panic!("a refusal") };
        assert_eq!(refusal.code, 3);
        assert!(!refusal.message.contains("VERYSECRETKEY"), "{}", refusal.message);
    }
    assert_eq!(node.count(), 3);
}

#[tokio::test]
async fn errors_in_the_body_of_a_failed_status_are_read() {
    let node =
        Node::start(|_, _| (StatusCode::BAD_REQUEST, refuses(-32602, "block range is too large")).into_response());
    let failed = pool(vec![node.await.endpoint()]).ask("m", &(), text).await;
    assert!(matches!(failed, Err(Failure::TooLarge(_))), "{failed:?}");
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
        assert_eq!(both.ask("new", &(), text).await, Ok("good".to_owned()));
        assert_eq!(both.ask("m", &(), text).await, Ok("old".to_owned()));
    }
    assert_eq!(old.count(), 1 + 3);
    let alone = pool(vec![old.endpoint()]);
    for _ in 0..2 {
        assert_eq!(alone.ask("new", &(), text).await, Err(Failure::Missing("new".to_owned())));
    }
    assert_eq!(old.count(), 4 + 1);
}

#[tokio::test]
async fn wrong_and_doubtful_answers_are_asked_elsewhere() {
    let (a, b) = (Node::start(|_, _| says("a")).await, Node::start(|_, _| says("b")).await);
    let both = pool(vec![a.endpoint(), b.endpoint()]);
    let only_b = |reply: &Reply<'_>| match reply.result()? {
        "b" => Ok(Answer::Sure("b")),
        "a" => Ok(Answer::Doubtful("a")),
        _ => Err(Bad::Wrong("nonsense".to_owned())),
    };
    assert_eq!(both.ask("m", &(), only_b).await, Ok("b"));
    let doubtful = pool(vec![a.endpoint()]);
    assert_eq!(doubtful.ask("m", &(), only_b).await, Ok("a"), "nobody is surer");
    let wrong = |_: &Reply<'_>| Err::<Answer<()>, Bad>(Bad::Wrong("contradiction".to_owned()));
    let failed = pool(vec![a.endpoint(), b.endpoint()]).ask("m", &(), wrong).await;
    assert!(matches!(failed, Err(Failure::Wrong(why)) if why.contains("contradiction")));
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
        let failed = Pool::new(config).unwrap().ask("m", &(), text).await;
        assert!(matches!(failed, Err(Failure::TooLarge(_))), "{failed:?}");
    }
}

#[tokio::test]
async fn batches_come_back_in_order_and_their_gaps_are_filled() {
    let echo = |call: &Value| json!({ "id": call["id"], "result": call["params"][0] });
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
    let answers = pool.ask_many("m", &questions, 10, |_, reply| text(reply)).await.unwrap();
    assert_eq!(answers, (0..25).map(|n| format!("q{n}")).collect::<Vec<_>>());
    assert_eq!(pool.requests(), 25 + 3, "every item is counted, and the three that were asked again");
    assert_eq!(node.count(), 3 + 3);
}

/// The variables are read when a client is made, so another process has to have them.
#[test]
fn no_proxy_of_the_environment_is_used() {
    let program = std::env::current_exe().unwrap();
    let test = "the_first_healthy_endpoint_answers_and_the_others_are_not_asked";
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
    let proof = Some(Proof::call("id", &[(); 0], "0x1"));
    let pool = Pool::new(Config { proof, ..Config::new(vec![foreign.endpoint(), ours.endpoint()]) }).unwrap();
    let asked = [(); 4].map(|()| pool.ask("m", &(), text));
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
    let height = |reply: &Reply<'_>| reply.json::<Value>().map(|value| Answer::Sure(value["height"].as_u64()));
    assert_eq!(pool.fetch("getnowblock", "wallet/getnowblock", Some(b"{}".to_vec()), height).await, Ok(Some(7)));
    assert_eq!(pool.fetch("tip", "blocks/tip?x=1", None, height).await, Ok(Some(7)));
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
        answers.push(pool.ask("m", &(), text).await.unwrap());
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
