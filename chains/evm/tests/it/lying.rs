//! A node that omits, invents, lags, throttles or babbles costs time, never a payment.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use alloy_primitives::Address;
use axum::http::StatusCode;
use chain::{AssetKind, Internals, Part, Source, SourceError};
use evm::{Evm, EvmConfig, Trace, Verify};
use proxy::{Act, Proxy};
use serde_json::{Value, json};

use crate::world::{self, ETHER, World, read, transfers};

/// A world with one busy block, and what an honest reading of it finds.
async fn busy() -> (World, u64, Vec<chain::Block>) {
    let world = World::start().await;
    world.busy_block().await;
    let head = world.anvil.height().await.expect("anvil answers");
    let honest = read(&world.evm(&[&world.anvil.url()]), head, head, &world.watched).await;
    assert_eq!(transfers(&honest).len(), 6);
    (world, head, honest)
}

type Lie = fn(&mut Value);

fn edit(method: &'static str, edit: Lie) -> impl Fn(&str, &Value) -> Act + Send + Sync {
    move |asked, _| if asked == method { Act::Edit(Box::new(edit)) } else { Act::Pass }
}

#[tokio::test]
async fn every_contradiction_is_noticed_and_another_endpoint_asked() {
    let (world, head, honest) = busy().await;
    let url = world.anvil.url();
    let lies: [(&str, Lie); 9] = [
        ("eth_getBlockByNumber", |block| block["timestamp"] = json!("0x1")),
        ("eth_getBlockByNumber", |block| block["logsBloom"] = json!(format!("0x{}", "00".repeat(256)))),
        ("eth_getBlockByNumber", |block| drop(block["transactions"].as_array_mut().unwrap().remove(0))),
        ("eth_getBlockByNumber", |block| block["transactions"][0]["value"] = json!("0xde0b6b3a7640001")),
        ("eth_getBlockByNumber", |block| block["number"] = json!("0x1")),
        ("eth_getBlockReceipts", |receipts| {
            let logged = receipts.as_array_mut().unwrap().iter_mut().find(|receipt| receipt["logs"][0].is_object());
            drop(logged.unwrap()["logs"].as_array_mut().unwrap().remove(0));
        }),
        ("eth_getBlockReceipts", |receipts| receipts[0]["status"] = json!("0x0")),
        ("eth_getBlockReceipts", |receipts| drop(receipts.as_array_mut().unwrap().pop())),
        ("eth_getBlockReceipts", |receipts| *receipts = json!("garbage")),
    ];
    for (n, (method, lie)) in lies.into_iter().enumerate() {
        let liar = Proxy::start(&url, edit(method, lie)).await;
        let both = world.evm(&[&liar.url, &url]);
        assert_eq!(read(&both, head, head, &world.watched).await, honest, "lie {n}");
        assert!(liar.asked(method) > 0, "lie {n} was told");

        let alone = world.evm(&[&liar.url]);
        let refused = alone.blocks(head, head, &world.watched).await;
        assert!(matches!(refused, Err(SourceError::Wrong(_))), "lie {n} alone: {refused:?}");
    }
}

#[tokio::test]
async fn a_made_up_transaction_type_does_not_switch_the_proof_off() {
    let (world, head, honest) = busy().await;
    let url = world.anvil.url();
    let lies: [Lie; 3] = [
        |block| {
            block["transactions"][0]["to"] = json!(format!("0x{}", "12".repeat(20)));
            block["transactions"][1]["type"] = json!("0x77");
        },
        |block| block["transactions"][1]["type"] = json!("0x77"),
        // Ether that nobody sent us.
        |block| {
            let tx = &mut block["transactions"][1];
            tx["type"] = json!("0x77");
            tx["to"] = json!(format!("0x{}", "b1".repeat(20)));
        },
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        let liar = Proxy::start(&url, edit("eth_getBlockByNumber", lie)).await;
        assert_eq!(read(&world.evm(&[&liar.url, &url]), head, head, &world.watched).await, honest, "lie {n}");
        let alone = world.evm(&[&liar.url]).blocks(head, head, &world.watched).await;
        assert!(matches!(alone, Err(SourceError::Wrong(_))), "lie {n} alone: {alone:?}");
        // Nobody has the bytes that would prove it: what transactions carry is left to balances, the rest is proven.
        let hiding = Proxy::start(&url, move |method, _| match method {
            "eth_getBlockByNumber" => Act::Edit(Box::new(lie)),
            "eth_getRawTransactionByHash" => Act::Error(-32601, "method not found"),
            _ => Act::Pass,
        })
        .await;
        match world.evm(&[&hiding.url]).blocks(head, head, &world.watched).await {
            Ok(blocks) => {
                assert!(transfers(&blocks).iter().all(|found| matches!(found.place.part, Part::Log(_))), "lie {n}");
                assert_eq!(transfers(&blocks).len(), 5, "lie {n}");
            }
            Err(error) => assert!(matches!(error, SourceError::Wrong(_)), "lie {n}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_made_up_type_of_receipts_does_not_either() {
    let (world, head, _) = busy().await;
    let url = world.anvil.url();
    let mut config = world.config(&[&url], Trace::None);
    config.assets.retain(|asset| !asset.is_native());
    let honest = read(&Evm::new(config.clone()).unwrap(), head, head, &world.watched).await;
    assert_eq!(transfers(&honest).len(), 5);
    let lie = |receipts: &mut Value| {
        receipts[0]["type"] = json!("0x77");
        let paid = receipts.as_array().unwrap().iter().find(|receipt| receipt["logs"][0].is_object()).unwrap().clone();
        receipts[0]["logs"] = paid["logs"].clone();
    };
    let liar = Proxy::start(&url, edit("eth_getBlockReceipts", lie)).await;
    config.pool.endpoints = world.config(&[&liar.url], Trace::None).pool.endpoints;
    let alone = Evm::new(config.clone()).unwrap().blocks(head, head, &world.watched).await;
    assert!(matches!(alone, Err(SourceError::Unsupported(_))), "{alone:?}");
    config.pool.endpoints = world.config(&[&liar.url, &url], Trace::None).pool.endpoints;
    assert_eq!(read(&Evm::new(config).unwrap(), head, head, &world.watched).await, honest);
}

/// Changes one character of an answer, at a place that `step` names.
fn smudge(answer: &mut Value, step: usize) {
    let mut text = answer.to_string().into_bytes();
    let at = step % text.len();
    text[at] = match text[at] {
        b'0' => b'1',
        b'f' => b'0',
        b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':' => b' ',
        other => other ^ 1,
    };
    *answer = serde_json::from_slice(&text).unwrap_or_else(|_| json!("torn"));
}

#[tokio::test]
async fn no_changed_character_changes_what_is_credited() {
    let (world, head, honest) = busy().await;
    let url = world.anvil.url();
    for method in ["eth_getBlockByNumber", "eth_getBlockReceipts"] {
        let step = Arc::new(AtomicUsize::new(0));
        let steps = step.clone();
        let smudging = Proxy::start(&url, move |asked, _| {
            let step = steps.load(Ordering::Relaxed);
            if asked == method { Act::Edit(Box::new(move |answer| smudge(answer, step))) } else { Act::Pass }
        })
        .await;
        let mut noticed = 0;
        for n in 0..150 {
            step.store(n * 211, Ordering::Relaxed);
            // A new driver each time, because a caught liar rests.
            match world.evm(&[&smudging.url]).blocks(head, head, &world.watched).await {
                Ok(blocks) => assert_eq!(blocks, honest, "{method}, character {}", n * 211),
                Err(_) => noticed += 1,
            }
        }
        assert!(noticed > 75, "{noticed} of 150 changes of {method} were noticed, the others meant nothing");
    }
}

#[tokio::test]
async fn nodes_without_receipts_by_block_are_asked_for_each_one() {
    let (world, head, honest) = busy().await;
    let hiding = Proxy::hiding(&world.anvil.url(), &["eth_getBlockReceipts"]).await;
    let evm = world.evm(&[&hiding.url]);
    assert_eq!(read(&evm, head, head, &world.watched).await, honest);
    assert_eq!(read(&evm, head, head, &world.watched).await, honest);
    assert_eq!(hiding.asked("eth_getBlockReceipts"), 1, "a missing method is not asked for again");
    assert_eq!(
        hiding.asked("eth_getLogs"),
        0,
        "the block pays us by its transactions, so that receipts are needed anyway"
    );
}

#[tokio::test]
async fn receipts_are_asked_by_number_where_no_hash_is_taken() {
    let (world, head, honest) = busy().await;
    let choosy = Proxy::start(&world.anvil.url(), |method, params| match (method, params[0].as_str()) {
        ("eth_getBlockReceipts", Some(text)) if text.len() > 20 => Act::Error(-32602, "hex number > 64 bits"),
        _ => Act::Pass,
    })
    .await;
    assert_eq!(read(&world.evm(&[&choosy.url]), head, head, &world.watched).await, honest);
    assert_eq!(choosy.asked("eth_getBlockReceipts"), 2);
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
            "eth_getBlockReceipts" => Act::Error(-32601, "method not found"),
            "eth_getTransactionReceipt" => Act::Edit(Box::new(lie)),
            _ => Act::Pass,
        })
        .await;
        let refused = world.evm(&[&liar.url]).blocks(head, head, &world.watched).await;
        assert!(refused.is_err(), "lie {n}: {refused:?}");
        assert_eq!(read(&world.evm(&[&liar.url, &url]), head, head, &world.watched).await, honest, "lie {n}");
    }
}

#[tokio::test]
async fn an_unwell_node_is_no_reason_to_believe_less() {
    let (world, head, _) = busy().await;
    let unwell = Proxy::start(&world.anvil.url(), |method, _| match method {
        "eth_getBlockReceipts" => Act::Error(-32603, "internal error"),
        _ => Act::Pass,
    })
    .await;
    let refused = world.evm(&[&unwell.url]).blocks(head, head, &world.watched).await;
    assert!(matches!(refused, Err(SourceError::Unavailable(_))), "{refused:?}");
    assert_eq!(unwell.asked("eth_getLogs") + unwell.asked("eth_getTransactionReceipt"), 0);
}

#[tokio::test]
async fn empty_logs_against_the_bloom_are_not_believed() {
    let world = World::start().await;
    world.pay_token(world.usdt, world.ours[1], 5).await;
    world.anvil.mine(1).await.unwrap();
    let (url, head) = (world.anvil.url(), world.anvil.height().await.unwrap());
    let honest = read(&world.evm(&[&url]), head, head, &world.watched).await;
    assert_eq!(transfers(&honest).len(), 1);
    let trick = |method: &str, _: &Value| match method {
        "eth_getBlockReceipts" => Act::Error(-32601, "method not found"),
        "eth_getLogs" => Act::Result(json!([])),
        _ => Act::Pass,
    };
    let liar = Proxy::start(&url, trick).await;
    let hiding = Proxy::hiding(&url, &["eth_getBlockReceipts"]).await;
    let evm = world.evm(&[&liar.url, &hiding.url]);
    assert_eq!(read(&evm, head, head, &world.watched).await, honest);
    assert_eq!((liar.asked("eth_getLogs"), hiding.asked("eth_getLogs")), (1, 1));

    let agreed = world.evm(&[&liar.url]);
    let blocks = read(&agreed, head, head, &world.watched).await;
    assert_eq!(transfers(&blocks), [], "if all agree, the bloom may be chance");
}

/// Edits of a range answer that leave something out.
const OMISSIONS: [Lie; 4] = [
    |logs| *logs = json!([]),
    |logs| {
        for log in logs.as_array_mut().unwrap() {
            log["blockHash"] = json!(format!("0x{}", "77".repeat(32)));
        }
    },
    // Every contract is still named, but not for us.
    |logs| logs.as_array_mut().unwrap().iter_mut().for_each(|log| log["topics"][2] = log["topics"][1].clone()),
    |logs| drop(logs.as_array_mut().unwrap().pop()),
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
        assert_eq!(liar.asked("eth_getLogs"), 1);

        let alone = world.by_range(&[&liar.url], Trace::None).await;
        let blocks = read(&alone, head - 2, head, &world.watched).await;
        assert_eq!(blocks[2..], honest[..], "lie {n} alone");
        assert_eq!(liar.asked("eth_getLogs"), 1, "nobody could contradict, so receipts are read");
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
        "eth_getLogs" => Act::Edit(Box::new(invent.clone())),
        _ => Act::Pass,
    };
    let liar = Proxy::start(&url, trick.clone()).await;
    let without_receipts = Proxy::start(&url, move |method, params| match method {
        "eth_getBlockReceipts" => Act::Error(-32601, "method not found"),
        _ => trick(method, params),
    })
    .await;
    for strangers in [false, true] {
        if strangers {
            world.watch_strangers();
        }
        for urls in [&[liar.url.as_str()][..], &[&liar.url, &url], &[&liar.url, &liar.url], &[&without_receipts.url]] {
            for evm in [world.evm(urls), world.by_range(urls, Trace::None).await] {
                assert_eq!(transfers(&read(&evm, head - 1, head, &world.watched).await), [], "{urls:?}");
            }
        }
    }
    assert!(liar.asked("eth_getLogs") > 0 && without_receipts.asked("eth_getLogs") > 0);
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
            return Act::Edit(Box::new(far));
        }
        Act::Pass
    })
    .await;
    let config = EvmConfig { range_depth: 1_000, ..world.config(&[&dreamer.url, &url], Trace::None) };
    let evm = Evm::new(config).unwrap();
    assert_eq!(evm.tip().await.unwrap().head.height, 1 << 60);
    assert_eq!(evm.blocks(head, 1 << 60, &world.watched).await.unwrap(), honest, "correct all the same");
    dreaming.store(0, Ordering::Relaxed);
    evm.tip().await.unwrap();
    let before = dreamer.asked("eth_getLogs");
    world.anvil.mine(1).await.unwrap();
    evm.blocks(head, head, &world.watched).await.unwrap();
    evm.blocks(head + 1, head + 1, &world.watched).await.unwrap();
    assert_eq!(dreamer.asked("eth_getLogs"), before, "the head is not read by range");
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
                Act::Error(-32005, "query returned more than 10000 results")
            }
            _ => Act::Pass,
        }
    })
    .await;
    let evm = world.by_range(&[&narrow.url, &url], Trace::None).await;
    assert_eq!(read(&evm, 0, head, &world.watched).await, honest);
    assert!(narrow.asked("eth_getLogs") < 30, "learnt once, kept");

    let nothing = Proxy::start(&url, |method, _| match method {
        "eth_getLogs" => Act::Error(-32005, "query returned more than 10000 results"),
        _ => Act::Pass,
    })
    .await;
    let evm = world.by_range(&[&url, &nothing.url], Trace::None).await;
    assert_eq!(read(&evm, 0, head, &world.watched).await, honest, "block by block where no range is taken");
}

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
    let acts: [fn() -> Act; 7] = [
        || Act::Http(StatusCode::OK, vec![], "<html>503</html>".to_owned()),
        || Act::Http(StatusCode::OK, vec![], String::new()),
        || Act::Http(StatusCode::BAD_GATEWAY, vec![], "bad gateway".to_owned()),
        || Act::Http(StatusCode::FOUND, vec![("location", "http://127.0.0.1:1/")], String::new()),
        || Act::Http(StatusCode::OK, vec![], format!("{{\"result\":\"{}\"}}", "0".repeat(70 << 20))),
        || Act::Result(json!({ "number": {} })),
        || Act::Error(-32603, "internal error"),
    ];
    for (n, act) in acts.into_iter().enumerate() {
        let sick =
            Proxy::start(&url, move |method, _| if method == "eth_getBlockByNumber" { act() } else { Act::Pass }).await;
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
        "eth_getBlockByNumber" => Act::Http(StatusCode::TOO_MANY_REQUESTS, vec![("retry-after", "120")], String::new()),
        _ => Act::Pass,
    })
    .await;
    let evm = world.evm(&[&throttled.url, &url]);
    for _ in 0..5 {
        assert_eq!(read(&evm, head, head, &world.watched).await, honest);
    }
    assert_eq!(throttled.asked("eth_getBlockByNumber"), 1);
    let alone = world.evm(&[&throttled.url]);
    for _ in 0..3 {
        let said = alone.blocks(head, head, &world.watched).await.unwrap_err();
        assert!(matches!(&said, SourceError::Unavailable(why) if why.contains("429")), "{said}");
    }
    assert_eq!(throttled.asked("eth_getBlockByNumber"), 2);
}

#[tokio::test]
async fn a_node_of_another_chain_is_never_believed() {
    let (world, head, honest) = busy().await;
    let url = world.anvil.url();
    let foreign = Proxy::start(&url, |method, _| match method {
        "eth_chainId" => Act::Result(json!("0x1")),
        _ => Act::Pass,
    })
    .await;
    let evm = world.evm(&[&foreign.url, &url]);
    assert_eq!(read(&evm, head, head, &world.watched).await, honest);
    assert_eq!(foreign.asked("eth_getBlockByNumber"), 0);
    assert!(matches!(evm.identity().await, Err(SourceError::Wrong(_))));
}

#[tokio::test]
async fn a_node_that_lags_does_not_hold_the_others_back() {
    let (world, _, _) = busy().await;
    let url = world.anvil.url();
    let stale_head = Arc::new(AtomicU64::new(3));
    let stuck_at = stale_head.clone();
    let lagging = Proxy::start(&url, move |method, params| {
        let stuck_at = stuck_at.load(Ordering::Relaxed);
        let number = params[0].as_str().and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
        match (method, number) {
            ("eth_getBlockByNumber", Some(height)) if height > stuck_at => Act::Result(Value::Null),
            _ => Act::Pass,
        }
    })
    .await;
    world.pay_ether(1, world.ours[0], ETHER).await;
    world.anvil.mine(1).await.unwrap();
    let head = world.anvil.height().await.unwrap();
    let evm = world.evm(&[&lagging.url, &url]);
    assert_eq!(transfers(&read(&evm, head, head, &world.watched).await).len(), 1);
    assert_eq!(world.evm(&[&lagging.url]).blocks(head, head, &world.watched).await, Err(SourceError::NotThere(head)));
}

#[tokio::test]
async fn chains_that_cannot_be_proven_are_still_held_against_their_bloom() {
    let (world, head, honest) = busy().await;
    let url = world.anvil.url();
    let config = |urls: &[&str]| EvmConfig {
        verify: Verify { header: true, transactions: false, receipts: false },
        ..world.config(urls, Trace::None)
    };
    let evm = Evm::new(config(&[&url])).unwrap();
    assert_eq!(read(&evm, head, head, &world.watched).await, honest);
    let liar = Proxy::start(
        &url,
        edit("eth_getBlockReceipts", |receipts| {
            receipts.as_array_mut().unwrap().iter_mut().for_each(|receipt| receipt["logs"] = json!([]));
        }),
    )
    .await;
    let evm = Evm::new(config(&[&liar.url, &url])).unwrap();
    assert_eq!(read(&evm, head, head, &world.watched).await, honest);

    let blind = EvmConfig {
        verify: Verify { header: false, transactions: false, receipts: false },
        ..world.config(&[&url], Trace::None)
    };
    assert_eq!(read(&Evm::new(blind).unwrap(), head, head, &world.watched).await, honest);
}

#[tokio::test]
async fn no_trace_holds_up_a_block() {
    let (world, head, without) = busy().await;
    let url = world.anvil.url();
    let honest = read(&Evm::new(world.config(&[&url], Trace::Debug)).unwrap(), head, head, &world.watched).await;
    assert_eq!(transfers(&honest).len(), transfers(&without).len() + 4);
    let acts: [fn() -> Act; 6] = [
        || Act::Http(StatusCode::OK, vec![], format!("{{\"result\":\"{}\"}}", "0".repeat(70 << 20))),
        || Act::Error(-32000, "required historical state unavailable (reexec=128)"),
        || Act::Error(-32000, "response size exceeded"),
        || Act::Error(-32601, "method not found"),
        || Act::Error(-32000, "execution aborted"),
        || Act::Edit(Box::new(|traces| traces[0] = json!({ "error": "execution timeout" }))),
    ];
    for (n, act) in acts.into_iter().enumerate() {
        let failing = Arc::new(AtomicUsize::new(1));
        let fails = failing.clone();
        let sick = Proxy::start(&url, move |method, _| match method {
            "debug_traceBlockByHash" if fails.load(Ordering::Relaxed) == 1 => act(),
            _ => Act::Pass,
        })
        .await;
        let evm = Evm::new(world.config(&[&sick.url], Trace::Debug)).unwrap();
        assert_eq!(evm.internals(), Internals::Included);
        assert_eq!(read(&evm, head, head, &world.watched).await, without, "act {n}");
        assert_eq!(evm.internals(), Internals::ByBalance, "act {n}");
        assert_eq!(
            read(&Evm::new(world.config(&[&sick.url, &url], Trace::Debug)).unwrap(), head, head, &world.watched).await,
            honest
        );

        let before = sick.asked("debug_traceBlockByHash");
        for _ in 0..5 {
            // A caught liar rests; a new question waits for it no longer than the driver has patience.
            let _ = evm.blocks(head, head, &world.watched).await;
        }
        assert!(
            sick.asked("debug_traceBlockByHash") - before <= 2,
            "act {n}: what always fails is not asked for always"
        );

        failing.store(0, Ordering::Relaxed);
        let well = Evm::new(world.config(&[&sick.url], Trace::Debug)).unwrap();
        assert_eq!(read(&well, head, head, &world.watched).await, honest, "act {n}");
        assert_eq!(well.internals(), Internals::Included);
    }
}

#[tokio::test]
async fn a_silent_node_is_asked_for_its_traces_again() {
    let (world, head, _) = busy().await;
    let silent = Proxy::start(&world.anvil.url(), |method, _| match method {
        "debug_traceBlockByHash" => Act::Http(StatusCode::BAD_GATEWAY, vec![], String::new()),
        _ => Act::Pass,
    })
    .await;
    let evm = Evm::new(world.config(&[&silent.url], Trace::Debug)).unwrap();
    let refused = evm.blocks(head, head, &world.watched).await;
    assert!(matches!(refused, Err(SourceError::Unavailable(_))), "{refused:?}");
    assert_eq!(evm.internals(), Internals::Included, "no block went without");
}

/// The balances of all watched addresses at the head, by a driver that asks `urls`.
async fn balances(world: &World, urls: &[&str], asset: &AssetKind) -> Result<Vec<u64>, SourceError> {
    let last = read(&world.evm(&[&world.anvil.url()]), 0, world.anvil.height().await.unwrap(), &world.watched).await;
    let last = last.last().unwrap().header.position();
    let addresses: Vec<chain::Address> = world.ours.iter().map(|ours| world::address(*ours)).collect();
    let found = world.evm(urls).balances(&last, asset, &addresses).await?;
    Ok(found.iter().map(|amount| amount.units().to::<u64>()).collect())
}

#[tokio::test]
async fn a_made_up_balance_is_not_believed() {
    let (world, _, _) = busy().await;
    let url = world.anvil.url();
    let ether = u64::try_from(ETHER).unwrap();
    let lies: [Lie; 5] = [
        |proof| proof["balance"] = json!("0xde0b6b3a7640001"),
        |proof| proof["nonce"] = json!("0x7"),
        |proof| proof["accountProof"] = json!([]),
        |proof| drop(proof["accountProof"].as_array_mut().unwrap().pop()),
        // The state of the next block would be just as well proven, by another root.
        |proof| proof["accountProof"].as_array_mut().unwrap().reverse(),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        let liar = Proxy::start(&url, edit("eth_getProof", lie)).await;
        let found = balances(&world, &[&liar.url, &url], &AssetKind::Native).await;
        assert_eq!(found, Ok(vec![ether, 0, 8, 15]), "lie {n}");
        assert!(liar.asked("eth_getProof") > 0);
        let alone = balances(&world, &[&liar.url], &AssetKind::Native).await;
        assert!(matches!(alone, Err(SourceError::Wrong(_) | SourceError::Unavailable(_))), "lie {n} alone: {alone:?}");
        assert_eq!(liar.asked("eth_getBalance"), 0, "a liar is not asked for less");
    }
}

#[tokio::test]
async fn a_node_that_tells_its_newest_balance_instead_is_not_believed() {
    let (world, head, _) = busy().await;
    let url = world.anvil.url();
    let last = read(&world.evm(&[&url]), head, head, &world.watched).await[0].header.position();
    world.pay_ether(1, world.ours[0], ETHER).await;
    world.pay_token(world.usdt, world.ours[1], 5).await;
    world.anvil.mine(1).await.unwrap();
    let newest = |method: &str, params: &Value| match method {
        "eth_getProof" => Act::Ask(json!([params[0], params[1], "latest"])),
        "eth_getBalance" | "eth_call" => Act::Ask(json!([params[0], "latest"])),
        _ => Act::Pass,
    };
    let forgetful = [Proxy::start(&url, newest).await, Proxy::start(&url, newest).await];
    let evm = world.evm(&[&forgetful[0].url, &forgetful[1].url]);
    let ours = world::address(world.ours[0]);
    let native = evm.balances(&last, &AssetKind::Native, std::slice::from_ref(&ours)).await;
    assert!(matches!(native, Err(SourceError::Wrong(_))), "{native:?}");
    let evm = world.evm(&[&forgetful[0].url, &forgetful[1].url]);
    let token = evm.balances(&last, &token(&world), &[world::address(world.ours[1])]).await;
    assert!(matches!(token, Err(SourceError::Unsupported(_))), "{token:?}");
}

fn token(world: &World) -> AssetKind {
    AssetKind::Token { contract: world.usdt.to_checksum(None) }
}

#[tokio::test]
async fn what_nothing_proves_two_endpoints_must_tell() {
    let (world, _, _) = busy().await;
    let url = world.anvil.url();
    let ether = u64::try_from(ETHER).unwrap();
    let plain = || Proxy::hiding(&url, &["eth_getProof"]);
    let (one, two) = (plain().await, plain().await);
    let both = [one.url.as_str(), &two.url];
    assert_eq!(balances(&world, &both, &AssetKind::Native).await, Ok(vec![ether, 0, 8, 15]));
    // Each is asked once besides whether it heeds which block is meant.
    assert_eq!((one.asked("eth_getBalance"), two.asked("eth_getBalance")), (4 + 1, 3 + 1), "zeros need no second word");
    assert_eq!(balances(&world, &both, &token(&world)).await, Ok(vec![40, 1_500_020, 0, 0]));

    let more = |method: &str, _: &Value| match method {
        "eth_getProof" => Act::Error(-32601, "method not found"),
        "eth_getBalance" | "eth_call" => Act::Edit(Box::new(|answer| {
            let text = answer.as_str().unwrap().to_owned();
            let last = if text.ends_with('f') { "e" } else { "f" };
            *answer = json!(format!("{}{last}", &text[..text.len() - 1]));
        })),
        _ => Act::Pass,
    };
    let liar = Proxy::start(&url, more).await;
    for urls in [[liar.url.as_str(), &one.url], [&one.url, &liar.url]] {
        for asset in [AssetKind::Native, token(&world)] {
            let found = balances(&world, &urls, &asset).await;
            assert!(matches!(found, Err(SourceError::Wrong(_))), "{found:?}");
        }
    }
    for asset in [AssetKind::Native, token(&world)] {
        let alone = balances(&world, &[&one.url], &asset).await;
        assert!(matches!(alone, Err(SourceError::Unsupported(_))), "{alone:?}");
    }
    // Nothing is no rise, whoever says it.
    let bep20 = AssetKind::Token { contract: world.fake.to_checksum(None) };
    assert_eq!(balances(&world, &[&one.url], &bep20).await, Ok(vec![0; 4]));
}
