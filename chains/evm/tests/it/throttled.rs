//! A node that throttles, takes no batches or babbles is asked for less, and another one for the rest.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use chain::{Source, SourceError};
use evm::{Evm, Trace};
use proxy::{Intervention, Proxy};
use rpc::{Endpoint, Limits};
use serde_json::json;

use crate::lying::busy;
use crate::world::{World, read};

#[tokio::test]
async fn nodes_without_batches_are_asked_one_by_one() {
    let (world, head, _) = busy().await;
    let url = world.anvil.url();
    let honest = read(&world.evm(&[&url]), 0, head, &world.watched).await;
    let plain = Proxy::without_batches(&url).await;
    assert_eq!(read(&world.evm(&[&plain.url]), 0, head, &world.watched).await, honest);
}

#[tokio::test]
async fn babble_and_floods_count_for_nothing() {
    let (world, head, honest) = busy().await;
    let url = world.anvil.url();
    let acts: [fn() -> Intervention; 7] = [
        || Intervention::Http(StatusCode::OK, vec![], "<html>503</html>".to_owned()),
        || Intervention::Http(StatusCode::OK, vec![], String::new()),
        || Intervention::Http(StatusCode::BAD_GATEWAY, vec![], "bad gateway".to_owned()),
        || Intervention::Http(StatusCode::FOUND, vec![("location", "http://127.0.0.1:1/")], String::new()),
        || Intervention::Http(StatusCode::OK, vec![], format!("{{\"result\":\"{}\"}}", "0".repeat(70 << 20))),
        || Intervention::Result(json!({ "number": {} })),
        || Intervention::Error(-32603, "internal error"),
    ];
    for (n, act) in acts.into_iter().enumerate() {
        let sick = Proxy::start(
            &url,
            move |method, _| if method == "eth_getBlockByNumber" { act() } else { Intervention::Pass },
        )
        .await;
        let both = world.evm(&[&sick.url, &url]);
        let blocks = both.blocks(head, head, &world.watched).await;
        assert_eq!(blocks.as_ref(), Ok(&honest), "babble {n}");
        let alone = world.evm(&[&sick.url]).blocks(head, head, &world.watched).await;
        let said = alone.unwrap_err().to_string();
        assert!(said.len() < 1_000 && !said.contains("http://"), "babble {n}: {said}");
    }
}

#[tokio::test]
async fn a_throttled_endpoint_is_left_alone_as_long_as_it_asks() {
    let (world, head, honest) = busy().await;
    let url = world.anvil.url();
    let throttled = Proxy::start(&url, |method, _| match method {
        "eth_getBlockByNumber" => {
            Intervention::Http(StatusCode::TOO_MANY_REQUESTS, vec![("retry-after", "120")], String::new())
        }
        _ => Intervention::Pass,
    })
    .await;
    let evm = world.evm(&[&throttled.url, &url]);
    for _ in 0..5 {
        assert_eq!(read(&evm, head, head, &world.watched).await, honest);
    }
    assert_eq!(throttled.request_count("eth_getBlockByNumber"), 1);
    let alone = world.evm(&[&throttled.url]);
    for _ in 0..3 {
        let said = alone.blocks(head, head, &world.watched).await.unwrap_err();
        assert!(matches!(&said, SourceError::Unavailable(why) if why.contains("429")), "{said}");
    }
    assert_eq!(throttled.request_count("eth_getBlockByNumber"), 2);
}

#[tokio::test]
async fn catching_up_goes_on_behind_a_throttle() {
    let world = World::start().await;
    world.anvil.mine(30).await.unwrap();
    let (url, head) = (world.anvil.url(), world.anvil.height().await.unwrap());
    let honest = read(&world.evm(&[&url]), 0, head, &world.watched).await;
    let window = Mutex::new((Instant::now(), 0));
    let stingy = Proxy::start(&url, move |method, _| {
        let (since, asked) = &mut *window.lock().unwrap();
        if since.elapsed() > Duration::from_millis(300) {
            (*since, *asked) = (Instant::now(), 0);
        }
        *asked += 1;
        let refused = method == "eth_getBlockByNumber" && *asked > 4;
        if refused { Intervention::Error(-32005, "rate limit of 4 requests exceeded") } else { Intervention::Pass }
    })
    .await;
    let evm = world.evm(&[&stingy.url]);
    let (mut blocks, started) = (Vec::new(), Instant::now());
    while blocks.len() < honest.len() {
        assert!(started.elapsed() < Duration::from_secs(60), "{} blocks were read", blocks.len());
        let next = u64::try_from(blocks.len()).unwrap();
        match evm.blocks(next, head, &world.watched).await {
            Ok(more) => blocks.extend(more),
            Err(error) => assert!(matches!(error, SourceError::Unavailable(_)), "{error}"),
        }
    }
    assert_eq!(blocks, honest);
}

#[tokio::test]
async fn no_batch_is_larger_than_a_second_allows() {
    let world = World::start().await;
    world.anvil.mine(10).await.unwrap();
    let (proxy, head) =
        (Proxy::start(&world.anvil.url(), |_, _| Intervention::Pass).await, world.anvil.height().await.unwrap());
    let mut config = world.config(&[&proxy.url], Trace::None);
    let limits = Limits { per_second: Some(20), per_day: None };
    config.pool.endpoints = config.pool.endpoints.into_iter().map(|endpoint| endpoint.with_limits(limits)).collect();
    read(&Evm::new(config.clone()).unwrap(), 0, head, &world.watched).await;
    assert_eq!(proxy.largest_batch(), 10);

    let slow = Proxy::start(&world.anvil.url(), |_, _| Intervention::Pass).await;
    let limits = Limits { per_second: Some(3), per_day: None };
    config.pool.endpoints = vec![Endpoint::new(&slow.url).unwrap().with_limits(limits)];
    read(&Evm::new(config).unwrap(), 0, 8, &world.watched).await;
    assert_eq!(slow.largest_batch(), 3);
}
