//! Tests that the driver continues with the next block when the traces of a block are too large, pruned or rejected.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::http::StatusCode;
use chain::{InternalTransfers, Source, SourceError};
use evm::{Evm, TraceApi};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use crate::false_answers::start_with_busy_block;
use crate::test_chain::{collect_transfers, read_blocks};

#[tokio::test]
async fn a_block_is_read_without_its_traces_when_they_fail() {
    let (chain, head, without_traces) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let expected = read_blocks(
        &Evm::from_config(chain.build_config(&[&url], TraceApi::Debug)).unwrap(),
        head,
        head,
        &chain.watched,
    )
    .await;
    assert_eq!(collect_transfers(&expected).len(), collect_transfers(&without_traces).len() + 4);
    let interventions: [fn() -> Intervention; 6] = [
        || Intervention::Http(StatusCode::OK, vec![], format!("{{\"result\":\"{}\"}}", "0".repeat(70 << 20))),
        || Intervention::Error(-32000, "required historical state unavailable (reexec=128)"),
        || Intervention::Error(-32000, "response size exceeded"),
        || Intervention::Error(-32601, "method not found"),
        || Intervention::Error(-32000, "execution aborted"),
        || Intervention::Edit(Box::new(|traces| traces[0] = json!({ "error": "execution timeout" }))),
    ];
    for (n, intervention) in interventions.into_iter().enumerate() {
        let failing = Arc::new(AtomicUsize::new(1));
        let fails = failing.clone();
        let failing_proxy = Proxy::start_proxy(&url, move |method, _| match method {
            "debug_traceBlockByHash" if fails.load(Ordering::Relaxed) == 1 => intervention(),
            _ => Intervention::Pass,
        })
        .await;
        let evm = Evm::from_config(chain.build_config(&[&failing_proxy.url], TraceApi::Debug)).unwrap();
        assert_eq!(evm.internal_transfers(), InternalTransfers::Included);
        assert_eq!(read_blocks(&evm, head, head, &chain.watched).await, without_traces, "intervention {n}");
        assert_eq!(evm.internal_transfers(), InternalTransfers::ByBalance, "intervention {n}");
        assert_eq!(
            read_blocks(
                &Evm::from_config(chain.build_config(&[&failing_proxy.url, &url], TraceApi::Debug)).unwrap(),
                head,
                head,
                &chain.watched
            )
            .await,
            expected
        );

        let before = failing_proxy.request_count("debug_traceBlockByHash");
        for _ in 0..5 {
            // The endpoint cools down after a false reply. A new request waits for the endpoint for a limited time.
            let _ = evm.blocks(head, head, &chain.watched).await;
        }
        assert!(
            failing_proxy.request_count("debug_traceBlockByHash") - before <= 2,
            "intervention {n}: repeated failures pause the trace requests"
        );

        failing.store(0, Ordering::Relaxed);
        let recovered = Evm::from_config(chain.build_config(&[&failing_proxy.url], TraceApi::Debug)).unwrap();
        assert_eq!(read_blocks(&recovered, head, head, &chain.watched).await, expected, "intervention {n}");
        assert_eq!(recovered.internal_transfers(), InternalTransfers::Included);
    }
}

#[tokio::test]
async fn a_block_waits_for_traces_while_the_endpoint_is_silent() {
    let (chain, head, _) = start_with_busy_block().await;
    let silent = Proxy::start_proxy(&chain.anvil.url(), |method, _| match method {
        "debug_traceBlockByHash" => Intervention::Http(StatusCode::BAD_GATEWAY, vec![], String::new()),
        _ => Intervention::Pass,
    })
    .await;
    let evm = Evm::from_config(chain.build_config(&[&silent.url], TraceApi::Debug)).unwrap();
    let refused = evm.blocks(head, head, &chain.watched).await;
    assert!(matches!(refused, Err(SourceError::Unavailable(_))), "{refused:?}");
    assert_eq!(evm.internal_transfers(), InternalTransfers::Included, "no block was read without traces");
}

#[tokio::test]
async fn an_invented_trace_is_rejected_by_the_proven_balances() {
    let (chain, head, without_traces) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let add_call = |traces: &mut Value| {
        let watched_address = format!("0x{}", "b1".repeat(20));
        let call = json!({ "type": "CALL", "from": watched_address.replace("b1", "77"), "to": watched_address, "value": "0x5" });
        traces[0]["result"]["calls"] = json!([call]);
    };
    let intervene = move |method: &str, _: &Value| match method {
        "debug_traceBlockByHash" => Intervention::Edit(Box::new(add_call)),
        _ => Intervention::Pass,
    };
    let false_proxy = Proxy::start_proxy(&url, intervene).await;
    let without_method_proxy = Proxy::start_proxy(&url, move |method, params| match method {
        "eth_getProof" => Intervention::Error(-32601, "method not found"),
        _ => intervene(method, params),
    })
    .await;
    let expected = read_blocks(
        &Evm::from_config(chain.build_config(&[&url], TraceApi::Debug)).unwrap(),
        head,
        head,
        &chain.watched,
    )
    .await;
    for urls in [&[false_proxy.url.as_str()][..], &[&without_method_proxy.url, &url]] {
        let evm = Evm::from_config(chain.build_config(urls, TraceApi::Debug)).unwrap();
        assert_eq!(read_blocks(&evm, head, head, &chain.watched).await, expected, "the other transfers are kept");
        assert_eq!(evm.internal_transfers(), InternalTransfers::ByBalance);
    }
    assert!(collect_transfers(&expected).len() > collect_transfers(&without_traces).len());
    // Two headers, and proofs in two blocks for the three addresses that contracts seem to have paid.
    assert_eq!((false_proxy.request_count("eth_getBlockByHash"), false_proxy.request_count("eth_getProof")), (2, 6));
}
