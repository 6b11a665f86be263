//! Tests with endpoints that limit the rate, reject batches or return garbage. They get fewer requests, and other
//! endpoints get the rest.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use chain::{Source, SourceError};
use evm::{Evm, TraceApi};
use proxy::{Intervention, Proxy};
use rpc::{Endpoint, RateLimits};
use serde_json::json;

use crate::false_answers::start_with_busy_block;
use crate::test_chain::{TestChain, read_blocks};

#[tokio::test]
async fn an_endpoint_without_batches_gets_single_requests() {
    let (chain, head, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let expected = read_blocks(&chain.build_driver(&[&url]), 0, head, &chain.watched).await;
    let no_batch_proxy = Proxy::start_without_batches(&url).await;
    assert_eq!(read_blocks(&chain.build_driver(&[&no_batch_proxy.url]), 0, head, &chain.watched).await, expected);
}

#[tokio::test]
async fn malformed_and_huge_answers_are_ignored() {
    let (chain, head, expected) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let interventions: [fn() -> Intervention; 7] = [
        || Intervention::Http(StatusCode::OK, vec![], "<html>503</html>".to_owned()),
        || Intervention::Http(StatusCode::OK, vec![], String::new()),
        || Intervention::Http(StatusCode::BAD_GATEWAY, vec![], "bad gateway".to_owned()),
        || Intervention::Http(StatusCode::FOUND, vec![("location", "http://127.0.0.1:1/")], String::new()),
        || Intervention::Http(StatusCode::OK, vec![], format!("{{\"result\":\"{}\"}}", "0".repeat(70 << 20))),
        || Intervention::Result(json!({ "number": {} })),
        || Intervention::Error(-32603, "internal error"),
    ];
    for (n, intervention) in interventions.into_iter().enumerate() {
        let failing_proxy = Proxy::start_proxy(&url, move |method, _| {
            if method == "eth_getBlockByNumber" { intervention() } else { Intervention::Pass }
        })
        .await;
        let both = chain.build_driver(&[&failing_proxy.url, &url]);
        let blocks = both.blocks(head, head, &chain.watched).await;
        assert_eq!(blocks.as_ref(), Ok(&expected), "answer {n}");
        let alone = chain.build_driver(&[&failing_proxy.url]).blocks(head, head, &chain.watched).await;
        let error = alone.unwrap_err().to_string();
        assert!(error.len() < 1_000 && !error.contains("http://"), "answer {n}: {error}");
    }
}

#[tokio::test]
async fn a_rate_limited_endpoint_gets_no_request_until_its_retry_after_time() {
    let (chain, head, expected) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let throttled_proxy = Proxy::start_proxy(&url, |method, _| match method {
        "eth_getBlockByNumber" => {
            Intervention::Http(StatusCode::TOO_MANY_REQUESTS, vec![("retry-after", "120")], String::new())
        }
        _ => Intervention::Pass,
    })
    .await;
    let evm = chain.build_driver(&[&throttled_proxy.url, &url]);
    for _ in 0..5 {
        assert_eq!(read_blocks(&evm, head, head, &chain.watched).await, expected);
    }
    assert_eq!(throttled_proxy.request_count("eth_getBlockByNumber"), 1);
    let alone = chain.build_driver(&[&throttled_proxy.url]);
    for _ in 0..3 {
        let error = alone.blocks(head, head, &chain.watched).await.unwrap_err();
        assert!(matches!(&error, SourceError::Unavailable(reason) if reason.contains("429")), "{error}");
    }
    assert_eq!(throttled_proxy.request_count("eth_getBlockByNumber"), 2);
}

#[tokio::test]
async fn catch_up_continues_with_a_rate_limited_endpoint() {
    let chain = TestChain::start_chain().await;
    chain.anvil.mine(30).await.unwrap();
    let (url, head) = (chain.anvil.url(), chain.anvil.fetch_height().await.unwrap());
    let expected = read_blocks(&chain.build_driver(&[&url]), 0, head, &chain.watched).await;
    let window = Mutex::new((Instant::now(), 0));
    let limited_proxy = Proxy::start_proxy(&url, move |method, _| {
        let (window_start, count) = &mut *window.lock().unwrap();
        if window_start.elapsed() > Duration::from_millis(300) {
            (*window_start, *count) = (Instant::now(), 0);
        }
        *count += 1;
        let is_limited = method == "eth_getBlockByNumber" && *count > 4;
        if is_limited { Intervention::Error(-32005, "rate limit of 4 requests exceeded") } else { Intervention::Pass }
    })
    .await;
    let evm = chain.build_driver(&[&limited_proxy.url]);
    let (mut blocks, started) = (Vec::new(), Instant::now());
    while blocks.len() < expected.len() {
        assert!(started.elapsed() < Duration::from_secs(60), "{} blocks were read", blocks.len());
        let next = u64::try_from(blocks.len()).unwrap();
        match evm.blocks(next, head, &chain.watched).await {
            Ok(more) => blocks.extend(more),
            Err(error) => assert!(matches!(error, SourceError::Unavailable(_)), "{error}"),
        }
    }
    assert_eq!(blocks, expected);
}

#[tokio::test]
async fn no_batch_exceeds_the_requests_allowed_per_second() {
    let chain = TestChain::start_chain().await;
    chain.anvil.mine(10).await.unwrap();
    let (proxy, head) = (
        Proxy::start_proxy(&chain.anvil.url(), |_, _| Intervention::Pass).await,
        chain.anvil.fetch_height().await.unwrap(),
    );
    let mut config = chain.build_config(&[&proxy.url], TraceApi::None);
    let limits = RateLimits { per_second: Some(20), per_day: None };
    config.pool.endpoints = config.pool.endpoints.into_iter().map(|endpoint| endpoint.with_limits(limits)).collect();
    read_blocks(&Evm::from_config(config.clone()).unwrap(), 0, head, &chain.watched).await;
    assert_eq!(proxy.largest_batch(), 10);

    let slow = Proxy::start_proxy(&chain.anvil.url(), |_, _| Intervention::Pass).await;
    let limits = RateLimits { per_second: Some(3), per_day: None };
    config.pool.endpoints = vec![Endpoint::new(&slow.url).unwrap().with_limits(limits)];
    read_blocks(&Evm::from_config(config).unwrap(), 0, 8, &chain.watched).await;
    assert_eq!(slow.largest_batch(), 3);
}
