//! Tests of the pool with HTTP servers that fail in the ways in which providers fail.

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
use rpc::{
    AdaptiveSize, ChainCheck, Config, Endpoint, NodeError, NodeErrorKind, Pool, RateLimits, Rejection, Reply, Request,
    Role, RpcError, Target, Verdict,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

type Script = dyn Fn(usize, &Value) -> Response + Send + Sync;

/// An HTTP server on the loopback interface. A script returns its reply to the n-th request.
struct StandIn {
    url: String,
    /// Headers, path with query, and JSON body of each request.
    requests: Arc<Mutex<Vec<(HeaderMap, String, Value)>>>,
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct Shared {
    script: Arc<Script>,
    /// Headers, path with query, and JSON body of each request.
    requests: Arc<Mutex<Vec<(HeaderMap, String, Value)>>>,
}

impl StandIn {
    async fn start_stand_in(script: impl Fn(usize, &Value) -> Response + Send + Sync + 'static) -> StandIn {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared { script: Arc::new(script), requests: requests.clone() };
        let router = Router::new().fallback(handle_request).with_state(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let url = format!("http://{address}/v1/VERYSECRETKEY");
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("the server runs until it is dropped") });
        StandIn { url, requests, _server: server }
    }

    fn request_count(&self) -> usize {
        self.requests.lock().expect("no panic while requests are locked").len()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(&self.url).expect("the stand-in has a valid URL")
    }
}

async fn handle_request(State(shared): State<Shared>, request: extract::Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.expect("the client sends a whole body");
    let call: Value = serde_json::from_slice(&body).unwrap_or_default();
    let number = {
        let mut requests = shared.requests.lock().expect("no panic while requests are locked");
        requests.push((parts.headers, parts.uri.to_string(), call.clone()));
        requests.len() - 1
    };
    (shared.script)(number, &call)
}

fn result_response(result: &str) -> Response {
    axum::Json(json!({ "jsonrpc": "2.0", "id": 0, "result": result })).into_response()
}

fn error_response(code: i64, message: &str) -> Response {
    axum::Json(json!({ "jsonrpc": "2.0", "id": 0, "error": { "code": code, "message": message } })).into_response()
}

/// Returns a pool with a deadline of five seconds.
fn build_pool(endpoints: Vec<Endpoint>) -> Pool {
    Pool::new(Config { deadline: Duration::from_secs(5), ..Config::new(endpoints) })
        .expect("the endpoints have the role `read`")
}

fn parse_text(reply: &Reply<'_>) -> Result<Verdict<String>, Rejection> {
    reply.parse_result().map(Verdict::Accept)
}

#[tokio::test]
async fn the_first_healthy_endpoint_answers_and_the_others_get_no_request() {
    let (a, b) = (
        StandIn::start_stand_in(|_, _| result_response("a")).await,
        StandIn::start_stand_in(|_, _| result_response("b")).await,
    );
    let pool = build_pool(vec![a.endpoint(), b.endpoint()]);
    for _ in 0..3 {
        assert_eq!(pool.send_request(Request::json_rpc_call("m", &["x"]), parse_text).await, Ok("a".to_owned()));
    }
    assert_eq!((a.request_count(), b.request_count(), pool.requests_sent()), (3, 0, 3));
    let call = a.requests.lock().unwrap()[0].2.clone();
    assert_eq!(call, json!({ "jsonrpc": "2.0", "id": 0, "method": "m", "params": ["x"] }));
}

#[tokio::test]
async fn each_endpoint_gets_a_request_once_and_then_cools_down() {
    let broken = || StandIn::start_stand_in(|_, _| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let (a, b) = (broken().await, broken().await);
    let config = Config { deadline: Duration::from_secs(1), ..Config::new(vec![a.endpoint(), b.endpoint()]) };
    let pool = Pool::new(config).unwrap();
    let failure = pool.send_request(Request::json_rpc_call("m", &()), parse_text).await.unwrap_err();
    assert_eq!((a.request_count(), b.request_count()), (1, 1));
    let RpcError::Unavailable(message) = failure else { panic!("{failure:?}") };
    assert!(message.contains("HTTP status 500") && !message.contains("VERYSECRETKEY"), "{message}");
    let started_at = tokio::time::Instant::now();
    pool.send_request(Request::json_rpc_call("m", &()), parse_text).await.unwrap_err();
    assert_eq!(
        (a.request_count(), b.request_count()),
        (2, 2),
        "cool-downs that end before the deadline are waited for"
    );
    assert!(started_at.elapsed() >= Duration::from_millis(400), "{:?}", started_at.elapsed());
    let RpcError::Unavailable(message) =
        pool.send_request(Request::json_rpc_call("m", &()), parse_text).await.unwrap_err()
    else {
        panic!("the endpoints cool down")
    };
    assert!(message.contains("cools down after"), "{message}");
    assert_eq!((a.request_count(), b.request_count()), (2, 2), "endpoints that cool down for longer get no request");
}

#[tokio::test]
async fn an_endpoint_that_is_down_or_silent_is_skipped() {
    let good = StandIn::start_stand_in(|_, _| result_response("good")).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Endpoint::new(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let down = Endpoint::new("http://127.0.0.1:9").unwrap();
    let config = Config { deadline: Duration::from_millis(900), ..Config::new(vec![down, silent, good.endpoint()]) };
    assert_eq!(
        Pool::new(config).unwrap().send_request(Request::json_rpc_call("m", &()), parse_text).await,
        Ok("good".to_owned())
    );
}

#[tokio::test]
async fn an_error_of_a_node_does_not_count_against_its_health() {
    let node = StandIn::start_stand_in(|_, _| error_response(3, "execution reverted with VERYSECRETKEY")).await;
    let pool = build_pool(vec![node.endpoint()]);
    for _ in 0..3 {
        let Err(RpcError::NodeError(error)) = pool.send_request(Request::json_rpc_call("m", &()), parse_text).await
        else {
            panic!("the node replied with an error")
        };
        assert_eq!(error.code, 3);
        assert!(!error.message.contains("VERYSECRETKEY"), "{}", error.message);
    }
    assert_eq!(node.request_count(), 3);
}

#[tokio::test]
async fn a_json_rpc_error_with_an_error_status_is_parsed() {
    let node = StandIn::start_stand_in(|_, _| {
        (StatusCode::BAD_REQUEST, error_response(-32602, "block range is too large")).into_response()
    });
    let failed =
        build_pool(vec![node.await.endpoint()]).send_request(Request::json_rpc_call("m", &()), parse_text).await;
    assert!(matches!(failed, Err(RpcError::TooLarge(_))), "{failed:?}");
}

#[tokio::test]
async fn an_endpoint_without_a_method_still_gets_the_other_methods() {
    let old = StandIn::start_stand_in(|_, call| {
        if call["method"] == "new" { error_response(-32601, "method not found") } else { result_response("old") }
    })
    .await;
    let good = StandIn::start_stand_in(|_, _| result_response("good")).await;
    let both = build_pool(vec![old.endpoint(), good.endpoint()]);
    for _ in 0..3 {
        assert_eq!(both.send_request(Request::json_rpc_call("new", &()), parse_text).await, Ok("good".to_owned()));
        assert_eq!(both.send_request(Request::json_rpc_call("m", &()), parse_text).await, Ok("old".to_owned()));
    }
    assert_eq!(old.request_count(), 1 + 3);
    let alone = build_pool(vec![old.endpoint()]);
    for _ in 0..2 {
        assert_eq!(
            alone.send_request(Request::json_rpc_call("new", &()), parse_text).await,
            Err(RpcError::MethodMissing("new".to_owned()))
        );
    }
    assert_eq!(old.request_count(), 4 + 1);
}

#[tokio::test]
async fn invalid_and_fallback_replies_send_the_request_to_the_next_endpoint() {
    let (a, b) = (
        StandIn::start_stand_in(|_, _| result_response("a")).await,
        StandIn::start_stand_in(|_, _| result_response("b")).await,
    );
    let both = build_pool(vec![a.endpoint(), b.endpoint()]);
    let accept_b = |reply: &Reply<'_>| match reply.parse_result()? {
        "b" => Ok(Verdict::Accept("b")),
        "a" => Ok(Verdict::Fallback("a")),
        _ => Err(Rejection::Invalid("nonsense".to_owned())),
    };
    assert_eq!(both.send_request(Request::json_rpc_call("m", &()), accept_b).await, Ok("b"));
    let alone = build_pool(vec![a.endpoint()]);
    assert_eq!(
        alone.send_request(Request::json_rpc_call("m", &()), accept_b).await,
        Ok("a"),
        "no other endpoint accepts more"
    );
    let reject = |_: &Reply<'_>| Err::<Verdict<()>, Rejection>(Rejection::Invalid("contradiction".to_owned()));
    let failed =
        build_pool(vec![a.endpoint(), b.endpoint()]).send_request(Request::json_rpc_call("m", &()), reject).await;
    assert!(matches!(failed, Err(RpcError::Invalid(why)) if why.contains("contradiction")));
}

#[tokio::test]
async fn a_body_over_the_limit_is_rejected() {
    let announced = StandIn::start_stand_in(|_, _| result_response(&"x".repeat(5_000))).await;
    let streamed = StandIn::start_stand_in(|_, _| {
        let chunks = (0..100).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 100])));
        Body::from_stream(futures_util::stream::iter(chunks)).into_response()
    })
    .await;
    for node in [announced, streamed] {
        let config = Config { body_bytes_max: 1_000, ..Config::new(vec![node.endpoint()]) };
        let failed = Pool::new(config).unwrap().send_request(Request::json_rpc_call("m", &()), parse_text).await;
        assert!(matches!(failed, Err(RpcError::TooLarge(_))), "{failed:?}");
    }
}

#[tokio::test]
async fn batch_results_are_in_order_and_missing_items_are_requested_again() {
    let node = StandIn::start_stand_in(move |_, call| {
        let Value::Array(calls) = call else { return axum::Json(echo_first_param(call)).into_response() };
        // The replies are in reverse order, the last one is missing, and one has an id that was not requested.
        let mut answers: Vec<Value> = calls.iter().rev().skip(1).map(echo_first_param).collect();
        answers.push(json!({ "id": 99, "result": "stranger" }));
        axum::Json(Value::Array(answers)).into_response()
    })
    .await;
    let pool = build_pool(vec![node.endpoint()]);
    let calls = build_params(25);
    let answers = pool
        .send_calls_batched_or_one_by_one("m", &calls, 10, |_, reply| parse_text(reply))
        .await
        .into_all_results()
        .unwrap();
    assert_eq!(answers, expected_texts(25));
    assert_eq!(pool.requests_sent(), 25 + 3, "every item counts, and so do the three that were sent again");
    assert_eq!(node.request_count(), 3 + 3);
}

fn build_params(count: usize) -> Vec<[String; 1]> {
    (0..count).map(|n| [format!("q{n}")]).collect()
}

fn echo_first_param(call: &Value) -> Value {
    json!({ "id": call["id"], "result": call["params"][0] })
}

/// Returns a response to a single call or a batch, in which the result of each call is its first parameter.
fn echo_response(body: &Value) -> Response {
    let Some(calls) = body.as_array() else { return axum::Json(echo_first_param(body)).into_response() };
    axum::Json(Value::Array(calls.iter().map(echo_first_param).collect())).into_response()
}

fn expected_texts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("q{n}")).collect()
}

/// Returns the number of calls in each request.
fn batch_sizes(node: &StandIn) -> Vec<usize> {
    let requests = node.requests.lock().expect("no panic while requests are locked");
    requests.iter().map(|(_, _, body)| body.as_array().map_or(1, Vec::len)).collect()
}

/// The gateway replies with status 429 to the batch and to the third single call. After the cool-downs all calls have
/// results.
#[tokio::test]
async fn a_single_throttled_endpoint_is_waited_for() {
    let node = StandIn::start_stand_in(|n, call| match n {
        0 | 3 => StatusCode::TOO_MANY_REQUESTS.into_response(),
        _ => echo_response(call),
    })
    .await;
    let answers = build_pool(vec![node.endpoint()])
        .send_calls_batched_or_one_by_one("m", &build_params(5), 10, |_, reply| parse_text(reply))
        .await
        .into_all_results();
    assert_eq!(answers, Ok(expected_texts(5)));
    assert_eq!(batch_sizes(&node), [5, 1, 1, 1, 1, 1, 1], "the throttled call is sent again");
}

#[tokio::test]
async fn rate_limit_errors_in_a_batch_count_as_one_failure_and_results_are_kept() {
    let node = StandIn::start_stand_in(|n, call| match (n, call) {
        (0, Value::Array(calls)) => {
            let exceeded =
                |call: &Value| json!({ "id": call["id"], "error": { "code": 402, "message": "Payment Required" } });
            let items =
                calls.iter().enumerate().map(|(i, call)| if i < 7 { echo_first_param(call) } else { exceeded(call) });
            axum::Json(Value::Array(items.collect())).into_response()
        }
        _ => echo_response(call),
    })
    .await;
    let started_at = tokio::time::Instant::now();
    let pool = build_pool(vec![node.endpoint()]);
    assert_eq!(
        pool.send_calls_batched_or_one_by_one("m", &build_params(10), 10, |_, reply| parse_text(reply))
            .await
            .into_all_results(),
        Ok(expected_texts(10))
    );
    assert_eq!(batch_sizes(&node), [10, 1, 1, 1]);
    assert!(started_at.elapsed() < Duration::from_secs(2), "one cool-down of half a second, not three doubled ones");
    assert_eq!(
        pool.send_calls_batched_or_one_by_one("m", &build_params(10), 10, |_, reply| parse_text(reply))
            .await
            .into_all_results(),
        Ok(expected_texts(10))
    );
    assert_eq!(batch_sizes(&node)[4..], [5, 5], "later batches are smaller");
}

#[tokio::test]
async fn a_batch_that_times_out_is_split() {
    let node = StandIn::start_stand_in(|_, call| {
        if call.as_array().is_some_and(|calls| calls.len() > 5) {
            let silence = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
            return Body::from_stream(silence).into_response();
        }
        echo_response(call)
    })
    .await;
    let config = Config { deadline: Duration::from_secs(1), ..Config::new(vec![node.endpoint()]) };
    let pool = Pool::new(config).unwrap();
    for _ in 0..2 {
        assert_eq!(
            pool.send_calls_batched_or_one_by_one("m", &build_params(10), 10, |_, reply| parse_text(reply))
                .await
                .into_all_results(),
            Ok(expected_texts(10))
        );
    }
    let sizes = batch_sizes(&node);
    assert_eq!((sizes[0], &sizes[1..11], &sizes[11..]), (10, &[1; 10][..], &[5, 5][..]));
}

#[tokio::test]
async fn an_outage_behind_a_gateway_does_not_shrink_batches() {
    let node =
        StandIn::start_stand_in(
            |n, call| if n < 2 { StatusCode::BAD_GATEWAY.into_response() } else { echo_response(call) },
        );
    let node = node.await;
    let pool = build_pool(vec![node.endpoint()]);
    assert!(
        pool.send_calls_batched_or_one_by_one("m", &build_params(10), 10, |_, reply| parse_text(reply))
            .await
            .into_all_results()
            .is_err()
    );
    // The pool waits for the end of the cool-down.
    assert_eq!(
        pool.send_calls_batched_or_one_by_one("m", &build_params(10), 10, |_, reply| parse_text(reply))
            .await
            .into_all_results(),
        Ok(expected_texts(10))
    );
    assert_eq!(batch_sizes(&node), [10, 1, 10]);
}

#[tokio::test]
async fn no_batch_exceeds_the_limit_per_second() {
    let node = StandIn::start_stand_in(|_, call| echo_response(call)).await;
    let limited = node.endpoint().with_limits(RateLimits { per_second: Some(20), per_day: None });
    let pool = build_pool(vec![limited]);
    assert_eq!(
        pool.send_calls_batched_or_one_by_one("m", &build_params(45), 100, |_, reply| parse_text(reply))
            .await
            .into_all_results(),
        Ok(expected_texts(45))
    );
    assert_eq!(batch_sizes(&node), [20, 20, 5]);
}

#[tokio::test]
async fn the_results_before_the_first_failed_call_can_be_kept() {
    let node = StandIn::start_stand_in(|_, call| match call["params"][0].as_str() {
        Some("q3") => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(_) => echo_response(call),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    })
    .await;
    let pool = build_pool(vec![node.endpoint()]);
    assert_eq!(
        pool.send_calls_batched_or_one_by_one("m", &build_params(5), 1, |_, reply| parse_text(reply))
            .await
            .into_results_before_failure(),
        Ok(expected_texts(3))
    );
    let failed = pool
        .send_calls_batched_or_one_by_one("m", &build_params(5)[3..], 1, |_, reply| parse_text(reply))
        .await
        .into_results_before_failure();
    assert!(matches!(failed, Err(RpcError::Unavailable(_))), "{failed:?}");
}

/// Starts a server that announces a body of 100 bytes, sends one byte and closes the connection.
async fn start_truncating_server() -> (Endpoint, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a bound listener has an address");
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut connection, _) = listener.accept().await.expect("the client connects");
        let mut request = Vec::new();
        // The JSON body of the request ends with a brace.
        while request.last() != Some(&b'}') {
            connection.read_buf(&mut request).await.expect("the client sends a request");
        }
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
        connection.write_all(response).await.expect("the client reads the response");
        connection.shutdown().await.expect("the connection is open");
    });
    (Endpoint::new(&format!("http://{address}")).expect("a socket address makes a valid URL"), server)
}

#[tokio::test]
async fn slow_and_truncated_replies_are_timeouts_and_refused_connections_are_not() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Endpoint::new(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let (truncated, _server) = start_truncating_server().await;
    let gateway = StandIn::start_stand_in(|_, _| StatusCode::GATEWAY_TIMEOUT.into_response()).await;
    for slow in [silent, truncated, gateway.endpoint()] {
        let down = Endpoint::new("http://127.0.0.1:9").unwrap();
        let config = Config { deadline: Duration::from_millis(300), ..Config::new(vec![down, slow]) };
        let failure =
            Pool::new(config).unwrap().send_request(Request::json_rpc_call("m", &()), parse_text).await.unwrap_err();
        assert!(matches!(failure, RpcError::Timeout(_)), "{failure:?}");
        let mut size = AdaptiveSize::new(100, 100);
        assert!(
            size.shrink_if_too_large_or_timed_out(100, &failure)
                && size.size() == 50
                && !size.shrink_if_too_large_or_timed_out(1, &failure)
        );
    }
    let bad_gateway = StandIn::start_stand_in(|_, _| StatusCode::BAD_GATEWAY.into_response()).await;
    for down in [Endpoint::new("http://127.0.0.1:9").unwrap(), bad_gateway.endpoint()] {
        let config = Config { deadline: Duration::from_millis(300), ..Config::new(vec![down]) };
        let failure =
            Pool::new(config).unwrap().send_request(Request::json_rpc_call("m", &()), parse_text).await.unwrap_err();
        assert!(matches!(failure, RpcError::Unavailable(_)), "{failure:?}");
        assert!(!AdaptiveSize::new(100, 100).shrink_if_too_large_or_timed_out(100, &failure));
    }
}

#[tokio::test]
async fn a_lagging_endpoint_gets_the_request_when_the_better_one_is_rate_limited_for_long() {
    let (ahead, behind) = (
        StandIn::start_stand_in(|_, _| result_response("ahead")).await,
        StandIn::start_stand_in(|_, _| result_response("behind")).await,
    );
    let a_few = ahead.endpoint().with_limits(RateLimits { per_second: None, per_day: Some(4) });
    let pool = build_pool(vec![behind.endpoint(), a_few]);
    pool.record_head(0, 96);
    pool.record_head(1, 100);
    assert_eq!(pool.send_request(Request::json_rpc_call("m", &()), parse_text).await, Ok("ahead".to_owned()));
    assert_eq!(
        pool.send_request(Request::json_rpc_call("m", &()), parse_text).await,
        Ok("behind".to_owned()),
        "the rate limit of the other one ends in hours"
    );
}

#[test]
fn the_maximum_lag_in_blocks_follows_from_the_block_time() {
    let lag = |block_time: u64| {
        Config::new(Vec::new()).with_head_lag_for_block_time(Duration::from_millis(block_time)).head_lag_blocks_max
    };
    let blocks = [600_000, 12_000, 3_000, 250].map(lag);
    assert_eq!(blocks, [1, 3, 10, 120], "Bitcoin, Ethereum, TRON, Arbitrum");
}

#[tokio::test]
async fn a_confirmation_is_waited_for_and_never_comes_from_the_excluded_endpoint() {
    let throttled_once = StandIn::start_stand_in(|n, _| {
        if n == 0 { StatusCode::TOO_MANY_REQUESTS.into_response() } else { result_response("b") }
    });
    let (a, b) = (StandIn::start_stand_in(|_, _| result_response("a")).await, throttled_once.await);
    let both = build_pool(vec![a.endpoint(), b.endpoint()]);
    assert_eq!(
        both.send_request(Request::json_rpc_call("m", &()).with_target(Target::Excluding(0)), parse_text).await,
        Ok("b".to_owned())
    );
    assert_eq!((a.request_count(), b.request_count()), (0, 2), "it gets the request again after its cool-down");
    assert_eq!(
        both.send_request(Request::json_rpc_call("m", &()).with_target(Target::Excluding(1)), parse_text).await,
        Ok("a".to_owned())
    );

    let resting =
        StandIn::start_stand_in(|_, _| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "120")]).into_response()).await;
    let lacking = StandIn::start_stand_in(|_, _| error_response(-32601, "method not found")).await;
    let failed = build_pool(vec![a.endpoint(), resting.endpoint()])
        .send_request(Request::json_rpc_call("m", &()).with_target(Target::Excluding(0)), parse_text)
        .await;
    assert!(matches!(&failed, Err(RpcError::Unavailable(why)) if why.contains("429")), "{failed:?}");
    let failed = build_pool(vec![a.endpoint(), lacking.endpoint()])
        .send_request(Request::json_rpc_call("m", &()).with_target(Target::Excluding(0)), parse_text)
        .await;
    assert_eq!(failed, Err(RpcError::MethodMissing("m".to_owned())));
    let failed = build_pool(vec![a.endpoint()])
        .send_request(Request::json_rpc_call("m", &()).with_target(Target::Excluding(0)), parse_text)
        .await;
    assert!(matches!(&failed, Err(RpcError::Unavailable(why)) if why.contains("no other")), "{failed:?}");
    let failed = build_pool(vec![a.endpoint(), a.endpoint()])
        .send_request(Request::json_rpc_call("m", &()).with_target(Target::Excluding(0)), parse_text)
        .await;
    assert!(
        matches!(&failed, Err(RpcError::Unavailable(why)) if why.contains("another provider")),
        "two URLs of one provider: {failed:?}"
    );
    assert_eq!((a.request_count(), b.request_count()), (1, 2));
}

/// While the endpoint cools down, requests to [`Target::Only`] are not sent to it. A diagnosis with [`Target::Probe`]
/// is.
#[tokio::test]
async fn a_probe_ignores_the_cool_down_and_a_request_to_only_one_endpoint_respects_it() {
    let node = StandIn::start_stand_in(|n, _| match n {
        0 => (StatusCode::FORBIDDEN, "the query server is suspended for 30s").into_response(),
        _ => result_response("ours"),
    })
    .await;
    let pool = build_pool(vec![node.endpoint()]);
    for _ in 0..3 {
        let failed = pool.send_request(Request::json_rpc_call("m", &()).with_target(Target::Only(0)), parse_text).await;
        assert!(matches!(failed, Err(RpcError::Unavailable(_))), "{failed:?}");
    }
    assert_eq!(node.request_count(), 1);
    assert_eq!(
        pool.send_request(Request::json_rpc_call("m", &()).with_target(Target::Probe(0)), parse_text).await,
        Ok("ours".to_owned())
    );
    assert!(
        matches!(
            pool.send_request(Request::json_rpc_call("m", &()).with_target(Target::Only(0)), parse_text).await,
            Err(RpcError::Unavailable(_))
        ),
        "it still cools down"
    );
}

#[tokio::test]
async fn the_chain_check_recognises_errors_with_status_200() {
    let find_error = |reply: &Reply<'_>| {
        let body: Value = reply.parse_json().ok()?;
        let message = body.get("Error")?.as_str()?.to_owned();
        Some(Rejection::NodeError(NodeError { code: 200, message, kind: NodeErrorKind::RateLimited }))
    };
    let node =
        StandIn::start_stand_in(|_, _| axum::Json(json!({ "Error": "suspended for 30s" })).into_response()).await;
    let request = Request::http_post("block", b"{}".to_vec());
    let chain_check = ChainCheck::expect_field_ending(request, "blockID", "1234").with_error_finder(find_error);
    let pool = Pool::new(Config { chain_check: Some(chain_check), ..Config::new(vec![node.endpoint()]) }).unwrap();
    for _ in 0..3 {
        let failed = pool.send_request(Request::json_rpc_call("m", &()), parse_text).await;
        assert!(matches!(&failed, Err(RpcError::Unavailable(why)) if why.contains("suspended for 30s")), "{failed:?}");
    }
    assert_eq!(node.request_count(), 1, "it cools down for the time in its message");
}

#[tokio::test]
async fn a_used_up_daily_limit_throttles_the_endpoint() {
    let spent = StandIn::start_stand_in(|_, _| {
        (StatusCode::PAYMENT_REQUIRED, error_response(402, "Payment Required")).into_response()
    });
    let (spent, good) = (spent.await, StandIn::start_stand_in(|_, _| result_response("good")).await);
    let pool = build_pool(vec![spent.endpoint(), good.endpoint()]);
    for _ in 0..3 {
        assert_eq!(pool.send_request(Request::json_rpc_call("m", &()), parse_text).await, Ok("good".to_owned()));
    }
    assert_eq!(spent.request_count(), 1, "it cools down");
}

/// The HTTP client reads the proxy variables when it is built, so the test starts itself again as a process that has
/// them.
#[test]
fn proxies_of_the_environment_are_ignored() {
    let program = std::env::current_exe().unwrap();
    let test = "pool::the_first_healthy_endpoint_answers_and_the_others_get_no_request";
    let mut child = std::process::Command::new(program);
    child.args(["--exact", test]).env_remove("NO_PROXY").env_remove("no_proxy");
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, "http://127.0.0.1:9");
    }
    let output = child.output().unwrap();
    let message = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && message.contains("1 passed"), "{message}");
}

#[tokio::test]
async fn a_node_of_another_chain_gets_no_request_but_the_chain_check() {
    let ours =
        StandIn::start_stand_in(
            |_, call| if call["method"] == "id" { result_response("0x1") } else { result_response("ours") },
        )
        .await;
    let foreign = StandIn::start_stand_in(|_, call| {
        if call["method"] == "id" { result_response("0x2") } else { result_response("foreign") }
    })
    .await;
    let chain_check = Some(ChainCheck::expect_result(Request::json_rpc_call("id", &[(); 0]), "0x1"));
    let pool = Pool::new(Config { chain_check, ..Config::new(vec![foreign.endpoint(), ours.endpoint()]) }).unwrap();
    let requests = [(); 4].map(|()| pool.send_request(Request::json_rpc_call("m", &()), parse_text));
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(answer, Ok("ours".to_owned()));
    }
    assert!(foreign.requests.lock().unwrap().iter().all(|(_, _, call)| call["method"] == "id"));
    assert_eq!(ours.request_count(), 4 + 1, "one chain check");
}

#[tokio::test]
async fn plain_http_requests_have_the_path_and_the_headers_of_the_endpoint() {
    let node = StandIn::start_stand_in(|_, _| axum::Json(json!({ "height": 7 })).into_response()).await;
    let endpoint = node.endpoint().with_sensitive_header("TRON-PRO-API-KEY", "ANOTHERSECRET").unwrap();
    let pool = build_pool(vec![endpoint]);
    let height = |reply: &Reply<'_>| reply.parse_json::<Value>().map(|value| Verdict::Accept(value["height"].as_u64()));
    assert_eq!(
        pool.send_request(Request::http_post("wallet/getnowblock", b"{}".to_vec()).with_method("getnowblock"), height)
            .await,
        Ok(Some(7))
    );
    assert_eq!(pool.send_request(Request::http_get("blocks/tip?x=1").with_method("tip"), height).await, Ok(Some(7)));
    let requests = node.requests.lock().unwrap();
    assert_eq!(requests[0].1, "/v1/VERYSECRETKEY/wallet/getnowblock");
    assert_eq!(requests[1].1, "/v1/VERYSECRETKEY/blocks/tip?x=1");
    assert_eq!(requests[0].0["tron-pro-api-key"], "ANOTHERSECRET");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_sends_requests_to_the_next_endpoint_and_then_waits() {
    let (a, b) = (
        StandIn::start_stand_in(|_, _| result_response("a")).await,
        StandIn::start_stand_in(|_, _| result_response("b")).await,
    );
    let limited = |node: &StandIn| node.endpoint().with_limits(RateLimits { per_second: Some(1), per_day: None });
    let pool = build_pool(vec![limited(&a), limited(&b)]);
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(pool.send_request(Request::json_rpc_call("m", &()), parse_text).await.unwrap());
    }
    answers.sort();
    assert_eq!(answers, ["a", "a", "b", "b"]);
}

#[tokio::test]
async fn a_pool_needs_an_endpoint_with_the_role_read() {
    let endpoint = Endpoint::new("http://127.0.0.1:9").unwrap().with_roles(&[Role::Broadcast]);
    assert!(Pool::new(Config::new(vec![endpoint])).is_err());
    assert!(Pool::new(Config::new(Vec::new())).is_err());
}
