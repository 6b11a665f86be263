//! Tests with an endpoint that omits or invents payments, or lags behind. It causes a delay but never a wrong credit.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use chain::{Source, SourceError, TxPart};
use evm::{Commitments, Evm, EvmConfig, TraceApi};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use crate::test_chain::{ETHER, TestChain, collect_transfers, read_blocks};

/// Starts a chain with one busy block. Returns the chain, its height and the block as read from the node itself.
pub async fn start_with_busy_block() -> (TestChain, u64, Vec<chain::Block>) {
    let chain = TestChain::start_chain().await;
    chain.mine_busy_block().await;
    let head = chain.anvil.fetch_height().await.expect("anvil answers");
    let expected = read_blocks(&chain.build_driver(&[&chain.anvil.url()]), head, head, &chain.watched).await;
    assert_eq!(collect_transfers(&expected).len(), 6);
    (chain, head, expected)
}

/// A change of a node's answer.
pub type Edit = fn(&mut Value);

pub fn edit_answer(method: &'static str, edit: Edit) -> impl Fn(&str, &Value) -> Intervention + Send + Sync {
    move |requested, _| if requested == method { Intervention::Edit(Box::new(edit)) } else { Intervention::Pass }
}

#[tokio::test]
async fn a_false_answer_is_detected_and_another_endpoint_gets_the_request() {
    let (chain, head, expected) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let edits: [(&str, Edit); 9] = [
        ("eth_getBlockByNumber", |block| block["timestamp"] = json!("0x1")),
        ("eth_getBlockByNumber", |block| block["logsBloom"] = json!(format!("0x{}", "00".repeat(256)))),
        ("eth_getBlockByNumber", |block| drop(block["transactions"].as_array_mut().unwrap().remove(0))),
        ("eth_getBlockByNumber", |block| block["transactions"][0]["value"] = json!("0xde0b6b3a7640001")),
        ("eth_getBlockByNumber", |block| block["number"] = json!("0x1")),
        ("eth_getBlockReceipts", |receipts| {
            let with_logs = receipts.as_array_mut().unwrap().iter_mut().find(|receipt| receipt["logs"][0].is_object());
            drop(with_logs.unwrap()["logs"].as_array_mut().unwrap().remove(0));
        }),
        ("eth_getBlockReceipts", |receipts| receipts[0]["status"] = json!("0x0")),
        ("eth_getBlockReceipts", |receipts| drop(receipts.as_array_mut().unwrap().pop())),
        ("eth_getBlockReceipts", |receipts| *receipts = json!("garbage")),
    ];
    for (n, (method, edit)) in edits.into_iter().enumerate() {
        let false_proxy = Proxy::start_proxy(&url, edit_answer(method, edit)).await;
        let both = chain.build_driver(&[&false_proxy.url, &url]);
        assert_eq!(read_blocks(&both, head, head, &chain.watched).await, expected, "edit {n}");
        assert!(false_proxy.request_count(method) > 0, "edit {n} was not requested");

        let alone = chain.build_driver(&[&false_proxy.url]);
        let refused = alone.blocks(head, head, &chain.watched).await;
        assert!(matches!(refused, Err(SourceError::InvalidResponse(_))), "edit {n} alone: {refused:?}");
    }
}

#[tokio::test]
async fn an_invented_transaction_type_does_not_disable_the_verification() {
    let (chain, head, expected) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let edits: [Edit; 3] = [
        |block| {
            block["transactions"][0]["to"] = json!(format!("0x{}", "12".repeat(20)));
            block["transactions"][1]["type"] = json!("0x77");
        },
        |block| block["transactions"][1]["type"] = json!("0x77"),
        // An invented payment of ether to a watched address.
        |block| {
            let tx = &mut block["transactions"][1];
            tx["type"] = json!("0x77");
            tx["to"] = json!(format!("0x{}", "b1".repeat(20)));
        },
    ];
    for (n, edit) in edits.into_iter().enumerate() {
        let false_proxy = Proxy::start_proxy(&url, edit_answer("eth_getBlockByNumber", edit)).await;
        assert_eq!(
            read_blocks(&chain.build_driver(&[&false_proxy.url, &url]), head, head, &chain.watched).await,
            expected,
            "edit {n}"
        );
        let alone = chain.build_driver(&[&false_proxy.url]).blocks(head, head, &chain.watched).await;
        assert!(matches!(alone, Err(SourceError::InvalidResponse(_))), "edit {n} alone: {alone:?}");
        // No endpoint has the raw bytes of the transaction. Native payments are then found by comparing balances only,
        // and token transfers are still proven.
        let without_method_proxy = Proxy::start_proxy(&url, move |method, _| match method {
            "eth_getBlockByNumber" => Intervention::Edit(Box::new(edit)),
            "eth_getRawTransactionByHash" => Intervention::Error(-32601, "method not found"),
            _ => Intervention::Pass,
        })
        .await;
        match chain.build_driver(&[&without_method_proxy.url]).blocks(head, head, &chain.watched).await {
            Ok(blocks) => {
                assert!(
                    collect_transfers(&blocks).iter().all(|found| matches!(found.index.part, TxPart::Log(_))),
                    "edit {n}"
                );
                assert_eq!(collect_transfers(&blocks).len(), 5, "edit {n}");
            }
            Err(error) => assert!(matches!(error, SourceError::InvalidResponse(_)), "edit {n}: {error}"),
        }
    }
}

#[tokio::test]
async fn an_invented_receipt_type_does_not_disable_the_verification() {
    let (chain, head, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let mut config = chain.build_config(&[&url], TraceApi::None);
    config.assets.retain(|asset| !asset.is_native());
    let expected = read_blocks(&Evm::from_config(config.clone()).unwrap(), head, head, &chain.watched).await;
    assert_eq!(collect_transfers(&expected).len(), 5);
    let edit = |receipts: &mut Value| {
        receipts[0]["type"] = json!("0x77");
        let paid_receipt =
            receipts.as_array().unwrap().iter().find(|receipt| receipt["logs"][0].is_object()).unwrap().clone();
        receipts[0]["logs"] = paid_receipt["logs"].clone();
    };
    let false_proxy = Proxy::start_proxy(&url, edit_answer("eth_getBlockReceipts", edit)).await;
    config.pool.endpoints = chain.build_config(&[&false_proxy.url], TraceApi::None).pool.endpoints;
    let alone = Evm::from_config(config.clone()).unwrap().blocks(head, head, &chain.watched).await;
    assert!(matches!(alone, Err(SourceError::Unsupported(_))), "{alone:?}");
    config.pool.endpoints = chain.build_config(&[&false_proxy.url, &url], TraceApi::None).pool.endpoints;
    assert_eq!(read_blocks(&Evm::from_config(config).unwrap(), head, head, &chain.watched).await, expected);
}

/// Changes the character of an answer at position `step`, modulo its length.
fn alter_character(answer: &mut Value, step: usize) {
    let mut text = answer.to_string().into_bytes();
    let at = step % text.len();
    text[at] = match text[at] {
        b'0' => b'1',
        b'f' => b'0',
        b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':' => b' ',
        other => other ^ 1,
    };
    *answer = serde_json::from_slice(&text).unwrap_or_else(|_| json!("malformed"));
}

#[tokio::test]
async fn no_changed_character_changes_the_credited_transfers() {
    let (chain, head, expected) = start_with_busy_block().await;
    let url = chain.anvil.url();
    for method in ["eth_getBlockByNumber", "eth_getBlockReceipts"] {
        let step = Arc::new(AtomicUsize::new(0));
        let steps = step.clone();
        let altering_proxy = Proxy::start_proxy(&url, move |requested, _| {
            let step = steps.load(Ordering::Relaxed);
            if requested == method {
                Intervention::Edit(Box::new(move |answer| alter_character(answer, step)))
            } else {
                Intervention::Pass
            }
        })
        .await;
        let mut detected = 0;
        for n in 0..150 {
            step.store(n * 211, Ordering::Relaxed);
            // Each round uses a new driver, because an endpoint that gave a false answer gets no requests for a while.
            match chain.build_driver(&[&altering_proxy.url]).blocks(head, head, &chain.watched).await {
                Ok(blocks) => assert_eq!(blocks, expected, "{method}, character {}", n * 211),
                Err(_) => detected += 1,
            }
        }
        assert!(detected > 75, "only {detected} of 150 changes of {method} were detected");
    }
}

#[tokio::test]
async fn an_endpoint_of_another_chain_is_never_used() {
    let (chain, head, expected) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let foreign_proxy = Proxy::start_proxy(&url, |method, _| match method {
        "eth_chainId" => Intervention::Result(json!("0x1")),
        _ => Intervention::Pass,
    })
    .await;
    let evm = chain.build_driver(&[&foreign_proxy.url, &url]);
    assert_eq!(read_blocks(&evm, head, head, &chain.watched).await, expected);
    assert_eq!(foreign_proxy.request_count("eth_getBlockByNumber"), 0);
    // A new driver names the endpoint in the error.
    assert!(matches!(
        chain.build_driver(&[&foreign_proxy.url, &url]).identity().await,
        Err(SourceError::InvalidResponse(_))
    ));
}

#[tokio::test]
async fn an_endpoint_that_lags_behind_does_not_delay_the_others() {
    let (chain, _, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let stale_head = Arc::new(AtomicU64::new(3));
    let stuck_at = stale_head.clone();
    let lagging_proxy = Proxy::start_proxy(&url, move |method, params| {
        let stuck_at = stuck_at.load(Ordering::Relaxed);
        let number = params[0].as_str().and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
        match (method, number) {
            ("eth_getBlockByNumber", Some(height)) if height > stuck_at => Intervention::Result(Value::Null),
            _ => Intervention::Pass,
        }
    })
    .await;
    chain.pay_ether(1, chain.watched_addresses[0], ETHER).await;
    chain.anvil.mine(1).await.unwrap();
    let head = chain.anvil.fetch_height().await.unwrap();
    let evm = chain.build_driver(&[&lagging_proxy.url, &url]);
    assert_eq!(collect_transfers(&read_blocks(&evm, head, head, &chain.watched).await).len(), 1);
    assert_eq!(
        chain.build_driver(&[&lagging_proxy.url]).blocks(head, head, &chain.watched).await,
        Err(SourceError::BlockNotFound(head))
    );
}

#[tokio::test]
async fn without_provable_roots_logs_are_still_checked_against_the_bloom() {
    let (chain, head, expected) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let config = |urls: &[&str]| EvmConfig {
        verify: Commitments { header: true, transactions: false, receipts: false },
        ..chain.build_config(urls, TraceApi::None)
    };
    let evm = Evm::from_config(config(&[&url])).unwrap();
    assert_eq!(read_blocks(&evm, head, head, &chain.watched).await, expected);
    let false_proxy = Proxy::start_proxy(
        &url,
        edit_answer("eth_getBlockReceipts", |receipts| {
            receipts.as_array_mut().unwrap().iter_mut().for_each(|receipt| receipt["logs"] = json!([]));
        }),
    )
    .await;
    let evm = Evm::from_config(config(&[&false_proxy.url, &url])).unwrap();
    assert_eq!(read_blocks(&evm, head, head, &chain.watched).await, expected);

    let unverified = EvmConfig {
        verify: Commitments { header: false, transactions: false, receipts: false },
        ..chain.build_config(&[&url], TraceApi::None)
    };
    assert_eq!(read_blocks(&Evm::from_config(unverified).unwrap(), head, head, &chain.watched).await, expected);
}
