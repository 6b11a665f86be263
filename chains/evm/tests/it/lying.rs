//! A node that omits, invents or lags costs time, never a payment.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use chain::{Source, SourceError, TxPart};
use evm::{Evm, EvmConfig, Trace, Verify};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use crate::world::{ETHER, World, read, transfers};

/// A world with one busy block, and what an honest reading of it finds.
pub async fn busy() -> (World, u64, Vec<chain::Block>) {
    let world = World::start().await;
    world.busy_block().await;
    let head = world.anvil.height().await.expect("anvil answers");
    let honest = read(&world.evm(&[&world.anvil.url()]), head, head, &world.watched).await;
    assert_eq!(transfers(&honest).len(), 6);
    (world, head, honest)
}

pub type Lie = fn(&mut Value);

pub fn edit(method: &'static str, edit: Lie) -> impl Fn(&str, &Value) -> Intervention + Send + Sync {
    move |asked, _| if asked == method { Intervention::Edit(Box::new(edit)) } else { Intervention::Pass }
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
        assert!(liar.request_count(method) > 0, "lie {n} was told");

        let alone = world.evm(&[&liar.url]);
        let refused = alone.blocks(head, head, &world.watched).await;
        assert!(matches!(refused, Err(SourceError::InvalidResponse(_))), "lie {n} alone: {refused:?}");
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
        assert!(matches!(alone, Err(SourceError::InvalidResponse(_))), "lie {n} alone: {alone:?}");
        // Nobody has the bytes that would prove it: what transactions carry is left to balances, the rest is proven.
        let hiding = Proxy::start(&url, move |method, _| match method {
            "eth_getBlockByNumber" => Intervention::Edit(Box::new(lie)),
            "eth_getRawTransactionByHash" => Intervention::Error(-32601, "method not found"),
            _ => Intervention::Pass,
        })
        .await;
        match world.evm(&[&hiding.url]).blocks(head, head, &world.watched).await {
            Ok(blocks) => {
                assert!(transfers(&blocks).iter().all(|found| matches!(found.index.part, TxPart::Log(_))), "lie {n}");
                assert_eq!(transfers(&blocks).len(), 5, "lie {n}");
            }
            Err(error) => assert!(matches!(error, SourceError::InvalidResponse(_)), "lie {n}: {error}"),
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
            if asked == method {
                Intervention::Edit(Box::new(move |answer| smudge(answer, step)))
            } else {
                Intervention::Pass
            }
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
async fn a_node_of_another_chain_is_never_believed() {
    let (world, head, honest) = busy().await;
    let url = world.anvil.url();
    let foreign = Proxy::start(&url, |method, _| match method {
        "eth_chainId" => Intervention::Result(json!("0x1")),
        _ => Intervention::Pass,
    })
    .await;
    let evm = world.evm(&[&foreign.url, &url]);
    assert_eq!(read(&evm, head, head, &world.watched).await, honest);
    assert_eq!(foreign.request_count("eth_getBlockByNumber"), 0);
    // At a start, when nobody rests yet, it is named.
    assert!(matches!(world.evm(&[&foreign.url, &url]).identity().await, Err(SourceError::InvalidResponse(_))));
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
            ("eth_getBlockByNumber", Some(height)) if height > stuck_at => Intervention::Result(Value::Null),
            _ => Intervention::Pass,
        }
    })
    .await;
    world.pay_ether(1, world.ours[0], ETHER).await;
    world.anvil.mine(1).await.unwrap();
    let head = world.anvil.height().await.unwrap();
    let evm = world.evm(&[&lagging.url, &url]);
    assert_eq!(transfers(&read(&evm, head, head, &world.watched).await).len(), 1);
    assert_eq!(
        world.evm(&[&lagging.url]).blocks(head, head, &world.watched).await,
        Err(SourceError::BlockNotFound(head))
    );
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
