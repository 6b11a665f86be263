//! Traces that are too large, forgotten or refused hold up no block.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::http::StatusCode;
use chain::{InternalTransfers, Source, SourceError};
use evm::{Evm, Trace};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use crate::lying::busy;
use crate::world::{read, transfers};

#[tokio::test]
async fn no_trace_holds_up_a_block() {
    let (world, head, without) = busy().await;
    let url = world.anvil.url();
    let honest = read(&Evm::new(world.config(&[&url], Trace::Debug)).unwrap(), head, head, &world.watched).await;
    assert_eq!(transfers(&honest).len(), transfers(&without).len() + 4);
    let acts: [fn() -> Intervention; 6] = [
        || Intervention::Http(StatusCode::OK, vec![], format!("{{\"result\":\"{}\"}}", "0".repeat(70 << 20))),
        || Intervention::Error(-32000, "required historical state unavailable (reexec=128)"),
        || Intervention::Error(-32000, "response size exceeded"),
        || Intervention::Error(-32601, "method not found"),
        || Intervention::Error(-32000, "execution aborted"),
        || Intervention::Edit(Box::new(|traces| traces[0] = json!({ "error": "execution timeout" }))),
    ];
    for (n, act) in acts.into_iter().enumerate() {
        let failing = Arc::new(AtomicUsize::new(1));
        let fails = failing.clone();
        let sick = Proxy::start(&url, move |method, _| match method {
            "debug_traceBlockByHash" if fails.load(Ordering::Relaxed) == 1 => act(),
            _ => Intervention::Pass,
        })
        .await;
        let evm = Evm::new(world.config(&[&sick.url], Trace::Debug)).unwrap();
        assert_eq!(evm.internal_transfers(), InternalTransfers::Included);
        assert_eq!(read(&evm, head, head, &world.watched).await, without, "act {n}");
        assert_eq!(evm.internal_transfers(), InternalTransfers::ByBalance, "act {n}");
        assert_eq!(
            read(&Evm::new(world.config(&[&sick.url, &url], Trace::Debug)).unwrap(), head, head, &world.watched).await,
            honest
        );

        let before = sick.request_count("debug_traceBlockByHash");
        for _ in 0..5 {
            // A caught liar rests; a new question waits for it no longer than the driver has patience.
            let _ = evm.blocks(head, head, &world.watched).await;
        }
        assert!(
            sick.request_count("debug_traceBlockByHash") - before <= 2,
            "act {n}: what always fails is not asked for always"
        );

        failing.store(0, Ordering::Relaxed);
        let well = Evm::new(world.config(&[&sick.url], Trace::Debug)).unwrap();
        assert_eq!(read(&well, head, head, &world.watched).await, honest, "act {n}");
        assert_eq!(well.internal_transfers(), InternalTransfers::Included);
    }
}

#[tokio::test]
async fn a_silent_node_is_asked_for_its_traces_again() {
    let (world, head, _) = busy().await;
    let silent = Proxy::start(&world.anvil.url(), |method, _| match method {
        "debug_traceBlockByHash" => Intervention::Http(StatusCode::BAD_GATEWAY, vec![], String::new()),
        _ => Intervention::Pass,
    })
    .await;
    let evm = Evm::new(world.config(&[&silent.url], Trace::Debug)).unwrap();
    let refused = evm.blocks(head, head, &world.watched).await;
    assert!(matches!(refused, Err(SourceError::Unavailable(_))), "{refused:?}");
    assert_eq!(evm.internal_transfers(), InternalTransfers::Included, "no block went without");
}

#[tokio::test]
async fn a_made_up_trace_is_held_against_balances() {
    let (world, head, without) = busy().await;
    let url = world.anvil.url();
    let invent = |traces: &mut Value| {
        let ours = format!("0x{}", "b1".repeat(20));
        let call = json!({ "type": "CALL", "from": ours.replace("b1", "77"), "to": ours, "value": "0x5" });
        traces[0]["result"]["calls"] = json!([call]);
    };
    let trick = move |method: &str, _: &Value| match method {
        "debug_traceBlockByHash" => Intervention::Edit(Box::new(invent)),
        _ => Intervention::Pass,
    };
    let liar = Proxy::start(&url, trick).await;
    let hiding = Proxy::start(&url, move |method, params| match method {
        "eth_getProof" => Intervention::Error(-32601, "method not found"),
        _ => trick(method, params),
    })
    .await;
    let honest = read(&Evm::new(world.config(&[&url], Trace::Debug)).unwrap(), head, head, &world.watched).await;
    for urls in [&[liar.url.as_str()][..], &[&hiding.url, &url]] {
        let evm = Evm::new(world.config(urls, Trace::Debug)).unwrap();
        assert_eq!(read(&evm, head, head, &world.watched).await, honest, "the others are real");
        assert_eq!(evm.internal_transfers(), InternalTransfers::ByBalance);
    }
    assert!(transfers(&honest).len() > transfers(&without).len());
    // Two headers and two batches for the three addresses that contracts seem to have paid.
    assert_eq!((liar.request_count("eth_getBlockByHash"), liar.request_count("eth_getProof")), (2, 6));
}
