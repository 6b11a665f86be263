//! Tests that unproven logs only show which blocks need their receipts read, and that false logs change nothing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use alloy_primitives::Address;
use axum::http::StatusCode;
use chain::{Source, SourceError};
use evm::{Evm, EvmConfig, TraceApi};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use crate::false_answers::{Edit, edit_answer, start_with_busy_block};
use crate::test_chain::{ANVIL, TestChain, collect_transfers, read_blocks};

#[tokio::test]
async fn without_receipts_by_block_each_receipt_is_requested() {
    let (chain, head, expected) = start_with_busy_block().await;
    let without_method_proxy = Proxy::start_without_methods(&chain.anvil.url(), &["eth_getBlockReceipts"]).await;
    let evm = chain.build_driver(&[&without_method_proxy.url]);
    assert_eq!(read_blocks(&evm, head, head, &chain.watched).await, expected);
    assert_eq!(read_blocks(&evm, head, head, &chain.watched).await, expected);
    assert_eq!(
        without_method_proxy.request_count("eth_getBlockReceipts"),
        1,
        "a missing method is requested only once"
    );
    assert_eq!(
        without_method_proxy.request_count("eth_getLogs"),
        0,
        "the block has native payments, so its receipts are needed in any case"
    );
}

#[tokio::test]
async fn receipts_are_requested_by_number_when_the_hash_is_rejected() {
    let (chain, head, expected) = start_with_busy_block().await;
    let by_number_proxy = Proxy::start_proxy(&chain.anvil.url(), |method, params| match (method, params[0].as_str()) {
        ("eth_getBlockReceipts", Some(text)) if text.len() > 20 => Intervention::Error(-32602, "hex number > 64 bits"),
        _ => Intervention::Pass,
    })
    .await;
    assert_eq!(read_blocks(&chain.build_driver(&[&by_number_proxy.url]), head, head, &chain.watched).await, expected);
    assert_eq!(by_number_proxy.request_count("eth_getBlockReceipts"), 2);
}

#[tokio::test]
async fn a_false_single_receipt_is_detected() {
    let (chain, head, expected) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let edits: [Edit; 3] = [
        // A successful transaction reported as failed, or the reverse.
        |receipt| receipt["status"] = if receipt["status"] == "0x0" { json!("0x1") } else { json!("0x0") },
        |receipt| receipt["logs"] = json!([]),
        |receipt| receipt["transactionHash"] = receipt["blockHash"].clone(),
    ];
    for (n, edit) in edits.into_iter().enumerate() {
        let false_proxy = Proxy::start_proxy(&url, move |method, _| match method {
            "eth_getBlockReceipts" => Intervention::Error(-32601, "method not found"),
            "eth_getTransactionReceipt" => Intervention::Edit(Box::new(edit)),
            _ => Intervention::Pass,
        })
        .await;
        let refused = chain.build_driver(&[&false_proxy.url]).blocks(head, head, &chain.watched).await;
        assert!(refused.is_err(), "edit {n}: {refused:?}");
        assert_eq!(
            read_blocks(&chain.build_driver(&[&false_proxy.url, &url]), head, head, &chain.watched).await,
            expected,
            "edit {n}"
        );
    }
}

#[tokio::test]
async fn rejected_receipts_are_not_replaced_by_unproven_logs() {
    let (chain, head, expected) = start_with_busy_block().await;
    let errors = [(-32603, "internal error"), (-32000, "not available on your plan")];
    for (code, message) in errors {
        let refusing_proxy = Proxy::start_proxy(&chain.anvil.url(), move |method, _| match method {
            "eth_getBlockReceipts" => Intervention::Error(code, message),
            _ => Intervention::Pass,
        })
        .await;
        assert_eq!(
            read_blocks(&chain.build_driver(&[&refusing_proxy.url]), head, head, &chain.watched).await,
            expected,
            "{message}"
        );
        assert!(refusing_proxy.request_count("eth_getTransactionReceipt") > 0);
        assert_eq!(
            refusing_proxy.request_count("eth_getLogs"),
            0,
            "single receipts prove as much, and logs prove nothing"
        );

        let refusing_all_proxy = Proxy::start_proxy(&chain.anvil.url(), move |method, _| match method {
            "eth_getBlockReceipts" | "eth_getTransactionReceipt" => Intervention::Error(code, message),
            _ => Intervention::Pass,
        })
        .await;
        let refused = chain.build_driver(&[&refusing_all_proxy.url]).blocks(head, head, &chain.watched).await;
        assert!(matches!(refused, Err(SourceError::Unavailable(_))), "{refused:?}");
    }
}

/// Starts a chain with one block that has one token payment to a watched address. Returns the chain, its height and the
/// block as read from the node itself.
async fn start_with_token_payment() -> (TestChain, u64, Vec<chain::Block>) {
    let chain = TestChain::start_chain().await;
    chain.pay_token(chain.usdt, chain.watched_addresses[1], 5).await;
    chain.anvil.mine(1).await.expect(ANVIL);
    let head = chain.anvil.fetch_height().await.expect(ANVIL);
    let expected = read_blocks(&chain.build_driver(&[&chain.anvil.url()]), head, head, &chain.watched).await;
    assert_eq!(collect_transfers(&expected).len(), 1);
    (chain, head, expected)
}

/// Starts a proxy that offers only single receipts and answers `eth_getLogs` with `logs`.
async fn start_proxy_without_receipts(url: &str, logs: impl Fn() -> Intervention + Send + Sync + 'static) -> Proxy {
    Proxy::start_proxy(url, move |method, _| match method {
        "eth_getBlockReceipts" => Intervention::Error(-32601, "method not found"),
        "eth_getLogs" => logs(),
        _ => Intervention::Pass,
    })
    .await
}

#[tokio::test]
async fn an_address_in_the_bloom_is_searched_in_receipts_and_not_in_logs() {
    let (chain, head, expected) = start_with_token_payment().await;
    let url = chain.anvil.url();
    let start_false_proxy = || start_proxy_without_receipts(&url, || Intervention::Result(json!([])));
    let (one, two) = (start_false_proxy().await, start_false_proxy().await);
    assert_eq!(read_blocks(&chain.build_driver(&[&one.url, &two.url]), head, head, &chain.watched).await, expected);
    assert_eq!(one.request_count("eth_getLogs") + two.request_count("eth_getLogs"), 0);
}

#[tokio::test]
async fn a_single_endpoint_cannot_hide_a_transfer_by_omitting_logs() {
    let (chain, head, expected) = start_with_token_payment().await;
    let url = chain.anvil.url();
    chain.watch_many_addresses();
    for (n, edit) in OMISSIONS.into_iter().enumerate() {
        let start_false_proxy = || start_proxy_without_receipts(&url, move || Intervention::Edit(Box::new(edit)));
        let (false_proxy, same) = (start_false_proxy().await, start_false_proxy().await);
        assert_eq!(
            read_blocks(&chain.build_driver(&[&false_proxy.url]), head, head, &chain.watched).await,
            expected,
            "edit {n} alone"
        );
        assert_eq!(false_proxy.request_count("eth_getLogs"), 0, "no second endpoint could contradict the logs");

        let others: [fn() -> Intervention; 3] = [
            || Intervention::Pass,
            || Intervention::Error(-32000, "not available on your plan"),
            || Intervention::Http(StatusCode::TOO_MANY_REQUESTS, vec![("retry-after", "120")], String::new()),
        ];
        for (other, intervention) in others.into_iter().enumerate() {
            let other_proxy = start_proxy_without_receipts(&url, intervention).await;
            let evm = chain.build_driver(&[&false_proxy.url, &other_proxy.url]);
            assert_eq!(read_blocks(&evm, head, head, &chain.watched).await, expected, "edit {n} beside {other}");
            assert_eq!(other_proxy.request_count("eth_getLogs"), 1);
        }
        let correct_proxy = start_proxy_without_receipts(&url, || Intervention::Pass).await;
        let evm_with_two_false = chain.build_driver(&[&false_proxy.url, &same.url, &correct_proxy.url]);
        let blocks = read_blocks(&evm_with_two_false, head, head, &chain.watched).await;
        let contradicts_bloom = n != 2;
        assert_eq!(
            blocks == expected,
            contradicts_bloom,
            "edit {n} by two endpoints: a third is asked only when the logs contradict the bloom"
        );
    }
}

#[tokio::test]
async fn a_busy_block_without_watched_transfers_needs_no_single_receipts() {
    let chain = TestChain::start_chain().await;
    chain.pay_token(chain.usdt, Address::repeat_byte(0x55), 5).await;
    chain.anvil.mine(1).await.unwrap();
    let (url, head) = (chain.anvil.url(), chain.anvil.fetch_height().await.unwrap());
    chain.watch_many_addresses();
    let nodes: [Proxy; 3] = [
        start_proxy_without_receipts(&url, || Intervention::Pass).await,
        start_proxy_without_receipts(&url, || Intervention::Pass).await,
        start_proxy_without_receipts(&url, || Intervention::Pass).await,
    ];
    let evm = chain.build_driver(&[&nodes[0].url, &nodes[1].url, &nodes[2].url]);
    assert_eq!(collect_transfers(&read_blocks(&evm, head, head, &chain.watched).await), []);
    assert_eq!(nodes.each_ref().map(|node| node.request_count("eth_getLogs")), [1, 1, 0], "two endpoints agree");
    assert_eq!(nodes.each_ref().map(|node| node.request_count("eth_getTransactionReceipt")), [0; 3]);

    // Logs that contradict the bloom are used when all endpoints agree, because a bloom has false positives.
    let empty = || start_proxy_without_receipts(&url, || Intervention::Result(json!([])));
    let (one, two) = (empty().await, empty().await);
    assert_eq!(
        collect_transfers(&read_blocks(&chain.build_driver(&[&one.url, &two.url]), head, head, &chain.watched).await),
        []
    );
    assert_eq!(one.request_count("eth_getTransactionReceipt") + two.request_count("eth_getTransactionReceipt"), 0);
}

/// Changes of an `eth_getLogs` answer that hide transfers.
const OMISSIONS: [Edit; 4] = [
    |logs| *logs = json!([]),
    |logs| {
        for log in logs.as_array_mut().into_iter().flatten() {
            log["blockHash"] = json!(format!("0x{}", "77".repeat(32)));
        }
    },
    // Every contract still has a log, but none names a watched address.
    |logs| logs.as_array_mut().into_iter().flatten().for_each(|log| log["topics"][2] = log["topics"][1].clone()),
    |logs| drop(logs.as_array_mut().and_then(Vec::pop)),
];

#[tokio::test]
async fn omitted_logs_of_a_range_are_detected_by_the_blooms() {
    let (chain, head, expected) = start_with_busy_block().await;
    chain.watch_many_addresses();
    let url = chain.anvil.url();
    for (n, edit) in OMISSIONS.into_iter().enumerate() {
        let false_proxy = Proxy::start_proxy(&url, edit_answer("eth_getLogs", edit)).await;
        let evm = chain.build_range_driver(&[&false_proxy.url, &url], TraceApi::None).await;
        let blocks = read_blocks(&evm, head - 2, head, &chain.watched).await;
        assert_eq!(blocks[2..], expected[..], "edit {n}");
        assert_eq!(false_proxy.request_count("eth_getLogs"), 1);

        let alone = chain.build_range_driver(&[&false_proxy.url], TraceApi::None).await;
        let blocks = read_blocks(&alone, head - 2, head, &chain.watched).await;
        assert_eq!(blocks[2..], expected[..], "edit {n} alone");
        assert_eq!(
            false_proxy.request_count("eth_getLogs"),
            1,
            "no second endpoint could contradict the logs, so receipts are read"
        );
    }
}

#[tokio::test]
async fn invented_logs_are_not_credited() {
    let chain = TestChain::start_chain().await;
    chain.pay_token(chain.usdt, Address::repeat_byte(0x55), 5).await;
    chain.anvil.mine(1).await.unwrap();
    let (url, head) = (chain.anvil.url(), chain.anvil.fetch_height().await.unwrap());
    let watched_topic = format!("0x{}{}", "00".repeat(12), "b1".repeat(20));
    let add_log = move |logs: &mut Value| {
        let mut log = logs[0].clone();
        log["topics"][2] = json!(watched_topic);
        logs.as_array_mut().unwrap().push(log);
    };
    let intervene = move |method: &str, _: &Value| match method {
        "eth_getLogs" => Intervention::Edit(Box::new(add_log.clone())),
        _ => Intervention::Pass,
    };
    let false_proxy = Proxy::start_proxy(&url, intervene.clone()).await;
    let refuse_receipts = move |method: &str, params: &Value| match method {
        "eth_getBlockReceipts" => Intervention::Error(-32601, "method not found"),
        _ => intervene(method, params),
    };
    let without_receipts = Proxy::start_proxy(&url, refuse_receipts.clone()).await;
    let also_without_receipts = Proxy::start_proxy(&url, refuse_receipts).await;
    for has_many_addresses in [false, true] {
        if has_many_addresses {
            chain.watch_many_addresses();
        }
        for urls in [
            &[false_proxy.url.as_str()][..],
            &[&false_proxy.url, &url],
            &[&false_proxy.url, &false_proxy.url],
            &[&without_receipts.url, &without_receipts.url],
            &[&without_receipts.url, &also_without_receipts.url],
        ] {
            for evm in [chain.build_driver(urls), chain.build_range_driver(urls, TraceApi::None).await] {
                assert_eq!(collect_transfers(&read_blocks(&evm, head - 1, head, &chain.watched).await), [], "{urls:?}");
            }
        }
    }
    assert!(false_proxy.request_count("eth_getLogs") > 0 && without_receipts.request_count("eth_getLogs") > 0);
}

#[tokio::test]
async fn an_invented_head_does_not_make_recent_blocks_stable() {
    let (chain, head, expected) = start_with_busy_block().await;
    chain.watch_many_addresses();
    let url = chain.anvil.url();
    let reports_false_head = Arc::new(AtomicUsize::new(1));
    let is_false_now = reports_false_head.clone();
    let raise_height = move |block: &mut Value| {
        let mut header: alloy_consensus::Header = serde_json::from_value(block.clone()).unwrap();
        header.number = 1 << 60;
        block["number"] = json!(format!("{:#x}", header.number));
        block["hash"] = json!(header.hash_slow());
    };
    let false_head_proxy = Proxy::start_proxy(&url, move |method, params| {
        if method == "eth_getBlockByNumber" && params[0] == "latest" && is_false_now.load(Ordering::Relaxed) == 1 {
            return Intervention::Edit(Box::new(raise_height));
        }
        Intervention::Pass
    })
    .await;
    let config = EvmConfig { range_depth: 1_000, ..chain.build_config(&[&false_head_proxy.url, &url], TraceApi::None) };
    let evm = Evm::from_config(config).unwrap();
    assert_eq!(evm.tip().await.unwrap().head.height, 1 << 60);
    assert_eq!(
        evm.blocks(head, 1 << 60, &chain.watched).await.unwrap(),
        expected,
        "the blocks are correct in any case"
    );
    reports_false_head.store(0, Ordering::Relaxed);
    evm.tip().await.unwrap();
    let before = false_head_proxy.request_count("eth_getLogs");
    chain.anvil.mine(1).await.unwrap();
    evm.blocks(head, head, &chain.watched).await.unwrap();
    evm.blocks(head + 1, head + 1, &chain.watched).await.unwrap();
    assert_eq!(false_head_proxy.request_count("eth_getLogs"), before, "the head is not read by range");
}

#[tokio::test]
async fn log_ranges_shrink_to_what_the_endpoint_accepts() {
    let (chain, head, _) = start_with_busy_block().await;
    chain.watch_many_addresses();
    chain.anvil.mine(60).await.unwrap();
    let head = head + 60;
    let url = chain.anvil.url();
    let expected = read_blocks(&chain.build_driver(&[&url]), 0, head, &chain.watched).await;
    let narrow_proxy = Proxy::start_proxy(&url, |method, params| {
        let number =
            |field: &str| u64::from_str_radix(params[0][field].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        match method {
            "eth_getLogs" if params[0].get("fromBlock").is_some() && number("toBlock") - number("fromBlock") >= 10 => {
                Intervention::Error(-32005, "query returned more than 10000 results")
            }
            _ => Intervention::Pass,
        }
    })
    .await;
    let evm = chain.build_range_driver(&[&narrow_proxy.url, &url], TraceApi::None).await;
    assert_eq!(read_blocks(&evm, 0, head, &chain.watched).await, expected);
    assert!(narrow_proxy.request_count("eth_getLogs") < 30, "the accepted size is remembered");

    let no_logs_proxy = Proxy::start_proxy(&url, |method, _| match method {
        "eth_getLogs" => Intervention::Error(-32005, "query returned more than 10000 results"),
        _ => Intervention::Pass,
    })
    .await;
    let evm = chain.build_range_driver(&[&url, &no_logs_proxy.url], TraceApi::None).await;
    assert_eq!(
        read_blocks(&evm, 0, head, &chain.watched).await,
        expected,
        "blocks are read one by one when no range is accepted"
    );
}
