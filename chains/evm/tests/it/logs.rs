//! Logs that no receipt proves are a hint where to look, whatever they say.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use alloy_primitives::Address;
use axum::http::StatusCode;
use chain::{Source, SourceError};
use evm::{Evm, EvmConfig, Trace};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use crate::lying::{Lie, busy, edit};
use crate::world::{NODE, World, read, transfers};

#[tokio::test]
async fn nodes_without_receipts_by_block_are_asked_for_each_one() {
    let (world, head, honest) = busy().await;
    let hiding = Proxy::without_methods(&world.anvil.url(), &["eth_getBlockReceipts"]).await;
    let evm = world.evm(&[&hiding.url]);
    assert_eq!(read(&evm, head, head, &world.watched).await, honest);
    assert_eq!(read(&evm, head, head, &world.watched).await, honest);
    assert_eq!(hiding.request_count("eth_getBlockReceipts"), 1, "a missing method is not asked for again");
    assert_eq!(
        hiding.request_count("eth_getLogs"),
        0,
        "the block pays us by its transactions, so that receipts are needed anyway"
    );
}

#[tokio::test]
async fn receipts_are_asked_by_number_where_no_hash_is_taken() {
    let (world, head, honest) = busy().await;
    let choosy = Proxy::start(&world.anvil.url(), |method, params| match (method, params[0].as_str()) {
        ("eth_getBlockReceipts", Some(text)) if text.len() > 20 => Intervention::Error(-32602, "hex number > 64 bits"),
        _ => Intervention::Pass,
    })
    .await;
    assert_eq!(read(&world.evm(&[&choosy.url]), head, head, &world.watched).await, honest);
    assert_eq!(choosy.request_count("eth_getBlockReceipts"), 2);
}

#[tokio::test]
async fn no_single_receipt_is_believed_either() {
    let (world, head, honest) = busy().await;
    let url = world.anvil.url();
    let lies: [Lie; 3] = [
        // A payment that failed, or one that did not.
        |receipt| receipt["status"] = if receipt["status"] == "0x0" { json!("0x1") } else { json!("0x0") },
        |receipt| receipt["logs"] = json!([]),
        |receipt| receipt["transactionHash"] = receipt["blockHash"].clone(),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        let liar = Proxy::start(&url, move |method, _| match method {
            "eth_getBlockReceipts" => Intervention::Error(-32601, "method not found"),
            "eth_getTransactionReceipt" => Intervention::Edit(Box::new(lie)),
            _ => Intervention::Pass,
        })
        .await;
        let refused = world.evm(&[&liar.url]).blocks(head, head, &world.watched).await;
        assert!(refused.is_err(), "lie {n}: {refused:?}");
        assert_eq!(read(&world.evm(&[&liar.url, &url]), head, head, &world.watched).await, honest, "lie {n}");
    }
}

#[tokio::test]
async fn an_unwell_node_is_no_reason_to_believe_less() {
    let (world, head, honest) = busy().await;
    let words = [(-32603, "internal error"), (-32000, "not available on your plan")];
    for (code, message) in words {
        let unwell = Proxy::start(&world.anvil.url(), move |method, _| match method {
            "eth_getBlockReceipts" => Intervention::Error(code, message),
            _ => Intervention::Pass,
        })
        .await;
        assert_eq!(read(&world.evm(&[&unwell.url]), head, head, &world.watched).await, honest, "{message}");
        assert!(unwell.request_count("eth_getTransactionReceipt") > 0);
        assert_eq!(unwell.request_count("eth_getLogs"), 0, "single receipts are as proven, and logs are not");

        let worse = Proxy::start(&world.anvil.url(), move |method, _| match method {
            "eth_getBlockReceipts" | "eth_getTransactionReceipt" => Intervention::Error(code, message),
            _ => Intervention::Pass,
        })
        .await;
        let refused = world.evm(&[&worse.url]).blocks(head, head, &world.watched).await;
        assert!(matches!(refused, Err(SourceError::Unavailable(_))), "{refused:?}");
    }
}

/// A block in which one token payment reaches us, and what an honest node leads to.
async fn paid() -> (World, u64, Vec<chain::Block>) {
    let world = World::start().await;
    world.pay_token(world.usdt, world.ours[1], 5).await;
    world.anvil.mine(1).await.expect(NODE);
    let head = world.anvil.height().await.expect(NODE);
    let honest = read(&world.evm(&[&world.anvil.url()]), head, head, &world.watched).await;
    assert_eq!(transfers(&honest).len(), 1);
    (world, head, honest)
}

/// A node that gives receipts one by one only, and does so with a question for logs.
async fn without_receipts(url: &str, logs: impl Fn() -> Intervention + Send + Sync + 'static) -> Proxy {
    Proxy::start(url, move |method, _| match method {
        "eth_getBlockReceipts" => Intervention::Error(-32601, "method not found"),
        "eth_getLogs" => logs(),
        _ => Intervention::Pass,
    })
    .await
}

#[tokio::test]
async fn an_address_in_the_bloom_is_looked_for_in_receipts_and_not_in_logs() {
    let (world, head, honest) = paid().await;
    let url = world.anvil.url();
    let liar = || without_receipts(&url, || Intervention::Result(json!([])));
    let (one, two) = (liar().await, liar().await);
    assert_eq!(read(&world.evm(&[&one.url, &two.url]), head, head, &world.watched).await, honest);
    assert_eq!(one.request_count("eth_getLogs") + two.request_count("eth_getLogs"), 0);
}

#[tokio::test]
async fn no_endpoint_alone_says_that_nothing_reached_us() {
    let (world, head, honest) = paid().await;
    let url = world.anvil.url();
    world.watch_strangers();
    for (n, lie) in OMISSIONS.into_iter().enumerate() {
        let liar = || without_receipts(&url, move || Intervention::Edit(Box::new(lie)));
        let (liar, same) = (liar().await, liar().await);
        assert_eq!(read(&world.evm(&[&liar.url]), head, head, &world.watched).await, honest, "lie {n} alone");
        assert_eq!(liar.request_count("eth_getLogs"), 0, "nobody could contradict");

        let others: [fn() -> Intervention; 3] = [
            || Intervention::Pass,
            || Intervention::Error(-32000, "not available on your plan"),
            || Intervention::Http(StatusCode::TOO_MANY_REQUESTS, vec![("retry-after", "120")], String::new()),
        ];
        for (other, act) in others.into_iter().enumerate() {
            let other_one = without_receipts(&url, act).await;
            let evm = world.evm(&[&liar.url, &other_one.url]);
            assert_eq!(read(&evm, head, head, &world.watched).await, honest, "lie {n} beside {other}");
            assert_eq!(other_one.request_count("eth_getLogs"), 1);
        }
        let honest_one = without_receipts(&url, || Intervention::Pass).await;
        let outvoted = world.evm(&[&liar.url, &same.url, &honest_one.url]);
        let blocks = read(&outvoted, head, head, &world.watched).await;
        let unlike_the_bloom = n != 2;
        assert_eq!(blocks == honest, unlike_the_bloom, "lie {n} of two: only what the bloom bears out needs no third");
    }
}

#[tokio::test]
async fn a_busy_block_without_us_costs_no_single_receipts() {
    let world = World::start().await;
    world.pay_token(world.usdt, Address::repeat_byte(0x55), 5).await;
    world.anvil.mine(1).await.unwrap();
    let (url, head) = (world.anvil.url(), world.anvil.height().await.unwrap());
    world.watch_strangers();
    let nodes: [Proxy; 3] = [
        without_receipts(&url, || Intervention::Pass).await,
        without_receipts(&url, || Intervention::Pass).await,
        without_receipts(&url, || Intervention::Pass).await,
    ];
    let evm = world.evm(&[&nodes[0].url, &nodes[1].url, &nodes[2].url]);
    assert_eq!(transfers(&read(&evm, head, head, &world.watched).await), []);
    assert_eq!(nodes.each_ref().map(|node| node.request_count("eth_getLogs")), [1, 1, 0], "two agree");
    assert_eq!(nodes.each_ref().map(|node| node.request_count("eth_getTransactionReceipt")), [0; 3]);

    // Against the bloom, which may err, they are believed if nobody is left who could know better.
    let empty = || without_receipts(&url, || Intervention::Result(json!([])));
    let (one, two) = (empty().await, empty().await);
    assert_eq!(transfers(&read(&world.evm(&[&one.url, &two.url]), head, head, &world.watched).await), []);
    assert_eq!(one.request_count("eth_getTransactionReceipt") + two.request_count("eth_getTransactionReceipt"), 0);
}

/// Edits of a range answer that leave something out.
const OMISSIONS: [Lie; 4] = [
    |logs| *logs = json!([]),
    |logs| {
        for log in logs.as_array_mut().into_iter().flatten() {
            log["blockHash"] = json!(format!("0x{}", "77".repeat(32)));
        }
    },
    // Every contract is still named, but not for us.
    |logs| logs.as_array_mut().into_iter().flatten().for_each(|log| log["topics"][2] = log["topics"][1].clone()),
    |logs| drop(logs.as_array_mut().and_then(Vec::pop)),
];

#[tokio::test]
async fn a_range_that_leaves_logs_out_is_healed_by_the_blooms() {
    let (world, head, honest) = busy().await;
    world.watch_strangers();
    let url = world.anvil.url();
    for (n, lie) in OMISSIONS.into_iter().enumerate() {
        let liar = Proxy::start(&url, edit("eth_getLogs", lie)).await;
        let evm = world.by_range(&[&liar.url, &url], Trace::None).await;
        let blocks = read(&evm, head - 2, head, &world.watched).await;
        assert_eq!(blocks[2..], honest[..], "lie {n}");
        assert_eq!(liar.request_count("eth_getLogs"), 1);

        let alone = world.by_range(&[&liar.url], Trace::None).await;
        let blocks = read(&alone, head - 2, head, &world.watched).await;
        assert_eq!(blocks[2..], honest[..], "lie {n} alone");
        assert_eq!(liar.request_count("eth_getLogs"), 1, "nobody could contradict, so receipts are read");
    }
}

#[tokio::test]
async fn invented_logs_are_not_credited() {
    let world = World::start().await;
    world.pay_token(world.usdt, Address::repeat_byte(0x55), 5).await;
    world.anvil.mine(1).await.unwrap();
    let (url, head) = (world.anvil.url(), world.anvil.height().await.unwrap());
    let ours = format!("0x{}{}", "00".repeat(12), "b1".repeat(20));
    let invent = move |logs: &mut Value| {
        let mut log = logs[0].clone();
        log["topics"][2] = json!(ours);
        logs.as_array_mut().unwrap().push(log);
    };
    let trick = move |method: &str, _: &Value| match method {
        "eth_getLogs" => Intervention::Edit(Box::new(invent.clone())),
        _ => Intervention::Pass,
    };
    let liar = Proxy::start(&url, trick.clone()).await;
    let without_receipts = Proxy::start(&url, move |method, params| match method {
        "eth_getBlockReceipts" => Intervention::Error(-32601, "method not found"),
        _ => trick(method, params),
    })
    .await;
    for strangers in [false, true] {
        if strangers {
            world.watch_strangers();
        }
        for urls in [
            &[liar.url.as_str()][..],
            &[&liar.url, &url],
            &[&liar.url, &liar.url],
            &[&without_receipts.url, &without_receipts.url],
        ] {
            for evm in [world.evm(urls), world.by_range(urls, Trace::None).await] {
                assert_eq!(transfers(&read(&evm, head - 1, head, &world.watched).await), [], "{urls:?}");
            }
        }
    }
    assert!(liar.request_count("eth_getLogs") > 0 && without_receipts.request_count("eth_getLogs") > 0);
}

#[tokio::test]
async fn a_made_up_head_does_not_settle_the_chain() {
    let (world, head, honest) = busy().await;
    world.watch_strangers();
    let url = world.anvil.url();
    let dreaming = Arc::new(AtomicUsize::new(1));
    let dreams = dreaming.clone();
    let far = move |block: &mut Value| {
        let mut header: alloy_consensus::Header = serde_json::from_value(block.clone()).unwrap();
        header.number = 1 << 60;
        block["number"] = json!(format!("{:#x}", header.number));
        block["hash"] = json!(header.hash_slow());
    };
    let dreamer = Proxy::start(&url, move |method, params| {
        if method == "eth_getBlockByNumber" && params[0] == "latest" && dreams.load(Ordering::Relaxed) == 1 {
            return Intervention::Edit(Box::new(far));
        }
        Intervention::Pass
    })
    .await;
    let config = EvmConfig { range_depth: 1_000, ..world.config(&[&dreamer.url, &url], Trace::None) };
    let evm = Evm::new(config).unwrap();
    assert_eq!(evm.tip().await.unwrap().head.height, 1 << 60);
    assert_eq!(evm.blocks(head, 1 << 60, &world.watched).await.unwrap(), honest, "correct all the same");
    dreaming.store(0, Ordering::Relaxed);
    evm.tip().await.unwrap();
    let before = dreamer.request_count("eth_getLogs");
    world.anvil.mine(1).await.unwrap();
    evm.blocks(head, head, &world.watched).await.unwrap();
    evm.blocks(head + 1, head + 1, &world.watched).await.unwrap();
    assert_eq!(dreamer.request_count("eth_getLogs"), before, "the head is not read by range");
}

#[tokio::test]
async fn ranges_shrink_to_what_the_node_takes() {
    let (world, head, _) = busy().await;
    world.watch_strangers();
    world.anvil.mine(60).await.unwrap();
    let head = head + 60;
    let url = world.anvil.url();
    let honest = read(&world.evm(&[&url]), 0, head, &world.watched).await;
    let narrow = Proxy::start(&url, |method, params| {
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
    let evm = world.by_range(&[&narrow.url, &url], Trace::None).await;
    assert_eq!(read(&evm, 0, head, &world.watched).await, honest);
    assert!(narrow.request_count("eth_getLogs") < 30, "learnt once, kept");

    let nothing = Proxy::start(&url, |method, _| match method {
        "eth_getLogs" => Intervention::Error(-32005, "query returned more than 10000 results"),
        _ => Intervention::Pass,
    })
    .await;
    let evm = world.by_range(&[&url, &nothing.url], Trace::None).await;
    assert_eq!(read(&evm, 0, head, &world.watched).await, honest, "block by block where no range is taken");
}
