//! What is read from an expected node is what happened.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

use alloy_primitives::Address;
use axum::http::StatusCode;
use chain::source::CrossCheckResult;
use chain::{Amount, AssetKind, BlockHash, BlockRef, InternalTransfers, Source, SourceError, TxPart};
use evm::TraceApi;

use crate::test_chain::{self, ETHER, TestChain, read_blocks, sum_by_asset, transfers};
use proxy::{Intervention, Proxy};

#[tokio::test]
async fn everything_that_reached_us_is_found_and_nothing_else() {
    let chain = TestChain::start().await;
    chain.mine_busy_block().await;
    chain.anvil.mine(3).await.unwrap();
    chain.mine_busy_block().await;
    let head = chain.anvil.height().await.unwrap();
    let url = chain.anvil.url();
    let expected = chain.balances_on_node().await;

    let mut by_trace = Vec::new();
    for trace in [TraceApi::Debug, TraceApi::Parity] {
        let near = evm::Evm::new(chain.config(&[&url], trace)).unwrap();
        assert_eq!(near.internal_transfers(), InternalTransfers::Included);
        let near = read_blocks(&near, 0, head, &chain.watched).await;
        assert_eq!(sum_by_asset(&transfers(&near)), expected, "{trace:?}");
        let settled = read_blocks(&chain.evm_by_range(&[&url], trace).await, 0, head, &chain.watched).await;
        assert_eq!(near, settled, "by hash and by range are one honest_node");
        by_trace.push(near);
    }
    assert_eq!(by_trace[0], by_trace[1], "both trace interfaces name the same movements");

    let found = transfers(&by_trace[0]);
    let mut places = HashSet::new();
    for block in &by_trace[0] {
        for transfer in &block.transfers {
            assert!(places.insert((block.header.height, transfer.index)), "{transfer:?} stands where another does");
        }
    }
    let parts = |wanted: fn(&TxPart) -> bool| found.iter().filter(|found| wanted(&found.index.part)).count();
    assert_eq!(parts(|part| matches!(part, TxPart::Value)), 2);
    assert_eq!(parts(|part| matches!(part, TxPart::Log(_))), 2 * 5);
    assert_eq!(parts(|part| matches!(part, TxPart::Internal(_))), 2 * 4);
    assert!(found.iter().all(|found| found.from.as_ref().is_some_and(|from| from.starts_with("0x"))));
}

#[tokio::test]
async fn without_traces_internal_payments_show_in_balances_only() {
    let chain = TestChain::start().await;
    chain.mine_busy_block().await;
    let head = chain.anvil.height().await.unwrap();
    let evm = chain.evm(&[&chain.anvil.url()]);
    assert_eq!(evm.internal_transfers(), InternalTransfers::ByBalance);
    let blocks = read_blocks(&evm, 0, head, &chain.watched).await;
    let seen = sum_by_asset(&transfers(&blocks));

    let addresses: Vec<chain::Address> =
        chain.watched_addresses.iter().map(|address| test_chain::to_chain_address(*address)).collect();
    let last = blocks.last().unwrap().header.block_ref();
    let balances = evm.balances(&last, &AssetKind::Native, &addresses).await.unwrap();
    let native = chain.config(&[], TraceApi::None).assets[0].id.clone();
    let hidden: Vec<Amount> = addresses
        .iter()
        .zip(&balances)
        .map(|(address, balance)| {
            balance.saturating_sub(*seen.get(&(native.clone(), address.key)).unwrap_or(&Amount::ZERO))
        })
        .collect();
    assert_eq!(hidden, [0u64, 0, 8, 15].map(Amount::from));

    // The first block of this node has no state root.
    let before = evm.balances(&blocks[1].header.block_ref(), &AssetKind::Native, &addresses).await.unwrap();
    assert_eq!(before, vec![Amount::ZERO; 4]);
    let gone = BlockRef { height: last.height, hash: chain::BlockHash([9; 32]) };
    assert!(evm.balances(&gone, &AssetKind::Native, &addresses).await.is_err());
}

#[tokio::test]
async fn many_balances_are_asked_in_batches_and_what_one_endpoint_refuses_another_tells() {
    let chain = TestChain::start().await;
    chain.mine_busy_block().await;
    let (url, head) = (chain.anvil.url(), chain.anvil.height().await.unwrap());
    let last = read_blocks(&chain.evm(&[&url]), head, head, &chain.watched).await[0].header.block_ref();
    // Ours stand among strangers that have nothing.
    let strangers = (1..=246u8).map(|n| Address::with_last_byte(n).create(u64::from(n)));
    let mut asked: Vec<Address> = strangers.collect();
    for (n, ours) in chain.watched_addresses.iter().enumerate() {
        asked.insert(60 * n, *ours);
    }
    let addresses: Vec<chain::Address> = asked.iter().map(|address| test_chain::to_chain_address(*address)).collect();
    let refused = addresses[60].text.clone();
    let limited_proxy = Proxy::start(&url, move |method, params| match (method, params[0].as_str()) {
        ("eth_getProof", Some(address)) if address == refused => Intervention::Error(-32000, "not this one"),
        _ => Intervention::Pass,
    })
    .await;
    let evm = chain.evm(&[&limited_proxy.url, &url]);
    let before = evm.requests();
    let balances = evm.balances(&last, &AssetKind::Native, &addresses).await.unwrap();
    for (address, balance) in asked.iter().zip(&balances) {
        assert_eq!(balance.units(), chain.anvil.balance(*address).await.unwrap(), "{address}");
    }
    // Two proofs of the chain, one header, 250 items of batches, and the one that was refused once more at both endpoints.
    assert_eq!((balances.len(), evm.requests() - before), (250, 250 + 2 + 1 + 2));
    assert_eq!(limited_proxy.request_count("eth_getProof"), 250 + 1);

    let again = evm.balances(&last, &AssetKind::Native, &addresses[..1]).await.unwrap();
    assert_eq!((again, evm.requests() - before), (balances[..1].to_vec(), 250 + 2 + 1 + 2 + 1), "the header is known");
}

#[tokio::test]
async fn quiet_blocks_cost_one_request_and_paid_ones_two() {
    let chain = TestChain::start().await;
    chain.anvil.mine(40).await.unwrap();
    chain.pay_token(chain.usdt, Address::repeat_byte(0x55), 5).await;
    chain.anvil.mine(1).await.unwrap();
    let evm = chain.evm(&[&chain.anvil.url()]);
    let head = chain.anvil.height().await.unwrap();
    let (from, proof) = (head - 40, 1);
    assert!(transfers(&read_blocks(&evm, from, head, &chain.watched).await).is_empty());
    assert_eq!(evm.requests(), 41 + proof, "the bloom proves that a transfer to somebody else is not ours");

    chain.pay_token(chain.usdt, chain.watched_addresses[0], 5).await;
    chain.anvil.mine(1).await.unwrap();
    assert_eq!(transfers(&read_blocks(&evm, head + 1, head + 1, &chain.watched).await).len(), 1);
    assert_eq!(evm.requests(), 41 + proof + 2);

    let settled = chain.evm_by_range(&[&chain.anvil.url()], TraceApi::None).await;
    let before = settled.requests();
    assert_eq!(transfers(&read_blocks(&settled, from, head + 1, &chain.watched).await).len(), 1);
    assert_eq!(
        settled.requests() - before,
        42 + 1,
        "receipts of the start_with_token_payment block, and no logs at all"
    );

    chain.watch_many_addresses();
    let url = chain.anvil.url();
    let wide = chain.evm_by_range(&[&url, &url], TraceApi::None).await;
    let before = wide.requests();
    assert_eq!(transfers(&read_blocks(&wide, from, head + 1, &chain.watched).await).len(), 1);
    assert_eq!(wide.requests() - before, 42 + 2 + 1, "one range of logs from two endpoints for all blocks");
}

#[tokio::test]
async fn a_reorganised_chain_is_read_as_it_now_is() {
    let chain = TestChain::start().await;
    let evm = chain.evm(&[&chain.anvil.url()]);
    chain.anvil.mine(2).await.unwrap();
    chain.pay_ether(1, chain.watched_addresses[0], ETHER).await;
    chain.anvil.mine(3).await.unwrap();
    let head = chain.anvil.height().await.unwrap();
    let before = read_blocks(&evm, head - 5, head, &chain.watched).await;
    assert_eq!(transfers(&before).len(), 1);

    chain.anvil.reorg(4).await.unwrap();
    let after = read_blocks(&evm, head - 5, head, &chain.watched).await;
    assert!(transfers(&after).is_empty());
    assert_eq!(before[1], after[1], "below the fork nothing changed");
    assert_ne!(before[5].header.hash, after[5].header.hash);
    assert_eq!(evm.header(head - 4).await.unwrap(), Some(after[1].header));
    assert_eq!(evm.header(head + 1).await.unwrap(), None);
    assert_eq!(evm.blocks(head + 1, head + 2, &chain.watched).await, Err(SourceError::BlockNotFound(head + 1)));
    assert_eq!(evm.blocks(head, head + 9, &chain.watched).await.unwrap().len(), 1, "as far as the node goes");
}

#[tokio::test]
async fn the_tip_has_a_final_mark_that_can_be_withdrawn() {
    let chain = TestChain::start_with_args(&["--slots-in-an-epoch", "2"]).await;
    chain.anvil.mine(20).await.unwrap();
    let url = chain.anvil.url();
    let evm = chain.evm(&[&url, &url]);
    let tip = evm.tip().await.unwrap();
    let head = chain.anvil.height().await.unwrap();
    assert_eq!(tip.head.height, head);
    let mark = tip.finalized.unwrap();
    assert!(mark.height > 0 && mark.height < head);
    assert_eq!(evm.header(mark.height).await.unwrap().map(|header| header.block_ref()), Some(mark));

    let asked = evm.requests();
    assert_eq!(evm.tip().await.unwrap(), tip);
    assert_eq!(evm.requests(), asked + 1, "an unmoved head costs one request");

    chain.anvil.rollback(5).await.unwrap();
    let back = evm.tip().await.unwrap();
    assert_eq!(back.head.height, head - 5);
    assert!(back.finalized.unwrap().height < mark.height);
    chain.anvil.mine(30).await.unwrap();
    evm.tip().await.unwrap();
    chain.anvil.mine(1).await.unwrap();
    assert!(evm.tip().await.unwrap().finalized.unwrap().height > mark.height);
}

#[tokio::test]
async fn a_second_endpoint_is_asked_whether_it_has_a_block_too() {
    let chain = TestChain::start().await;
    chain.anvil.mine(3).await.unwrap();
    let (url, height) = (chain.anvil.url(), chain.anvil.height().await.unwrap());
    let evm = chain.evm(&[&url, &url]);
    let block = read_blocks(&evm, height, height, &chain.watched).await[0].header.block_ref();
    let asked = evm.requests();
    assert_eq!((evm.independent_endpoints(), evm.cross_check(&block).await), (2, CrossCheckResult::Confirmed));
    assert_eq!(evm.requests() - asked, 1 + 1, "and the proof that it is of our chain");
    let asked = evm.requests();
    assert_eq!(evm.cross_check(&block).await, CrossCheckResult::Confirmed);
    assert_eq!(evm.requests() - asked, 1);

    let made_up = BlockRef { hash: BlockHash([7; 32]), ..block };
    let differs = evm.cross_check(&made_up).await;
    assert!(matches!(&differs, CrossCheckResult::Conflicting { hash, .. } if *hash == block.hash), "{differs:?}");
    let above = evm.cross_check(&BlockRef { height: height + 1, ..block }).await;
    assert!(matches!(&above, CrossCheckResult::Behind { head, .. } if head.block_ref() == block), "{above:?}");

    let alone = chain.evm(&[&url]);
    let silent = alone.cross_check(&block).await;
    assert!(alone.independent_endpoints() == 1 && matches!(silent, CrossCheckResult::NoAnswer(_)), "{silent:?}");
}

#[tokio::test]
async fn a_second_opinion_is_waited_for_behind_a_throttle() {
    let chain = TestChain::start().await;
    chain.anvil.mine(3).await.unwrap();
    let (url, height) = (chain.anvil.url(), chain.anvil.height().await.unwrap());
    let origin_proxy = Proxy::start(&url, |_, _| Intervention::Pass).await;
    let was_throttled = AtomicBool::new(false);
    let throttled_proxy = Proxy::start(&url, move |method, _| match method {
        "eth_getBlockByNumber" if !was_throttled.swap(true, Ordering::Relaxed) => {
            Intervention::Http(StatusCode::TOO_MANY_REQUESTS, vec![], String::new())
        }
        _ => Intervention::Pass,
    })
    .await;
    let evm = chain.evm(&[&origin_proxy.url, &throttled_proxy.url]);
    let block = read_blocks(&evm, height, height, &chain.watched).await[0].header.block_ref();
    let asked = origin_proxy.request_count("eth_getBlockByNumber");
    assert_eq!(evm.cross_check(&block).await, CrossCheckResult::Confirmed);
    assert_eq!(origin_proxy.request_count("eth_getBlockByNumber"), asked, "what it thinks of its own block is known");
    assert_eq!(throttled_proxy.request_count("eth_getBlockByNumber"), 2);
}

#[tokio::test]
async fn a_wide_watch_set_reads_the_same() {
    let chain = TestChain::start().await;
    chain.mine_busy_block().await;
    chain.anvil.mine(2).await.unwrap();
    let head = chain.anvil.height().await.unwrap();
    let url = chain.anvil.url();
    let few = read_blocks(&chain.evm(&[&url]), 0, head, &chain.watched).await;
    chain.watch_many_addresses();
    let near = read_blocks(&chain.evm(&[&url]), 0, head, &chain.watched).await;
    let settled = read_blocks(&chain.evm_by_range(&[&url, &url], TraceApi::None).await, 0, head, &chain.watched).await;
    assert_eq!((&few, &few), (&near, &settled));
}

#[tokio::test]
async fn blocks_of_every_fork_and_transactions_of_every_type_are_proven() {
    for fork in ["london", "paris", "shanghai", "cancun", "prague", "osaka"] {
        let chain = TestChain::start_with_args(&["--hardfork", fork]).await;
        let (to, funded) = (chain.watched_addresses[0], chain.funded[4]);
        let list = serde_json::json!([{ "address": chain.usdt, "storageKeys": [format!("0x{}", "00".repeat(32))] }]);
        for kind in [
            serde_json::json!({ "type": "0x0", "gasPrice": "0x77359400" }),
            serde_json::json!({ "type": "0x1", "gasPrice": "0x77359400", "accessList": list }),
            serde_json::json!({ "type": "0x2", "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x1", "accessList": list }),
        ] {
            let mut tx =
                serde_json::json!({ "from": funded, "to": to, "value": "0x5", "gas": "0x7000", "data": "0x00ff" });
            tx.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
            chain.anvil.rpc("eth_sendTransaction", serde_json::json!([tx])).await.unwrap();
        }
        chain.anvil.mine(1).await.unwrap();
        let head = chain.anvil.height().await.unwrap();
        let found = transfers(&read_blocks(&chain.evm(&[&chain.anvil.url()]), 0, head, &chain.watched).await);
        assert_eq!(found.len(), 3, "{fork}");
        let payer = test_chain::to_chain_address(funded).text;
        assert!(found.iter().all(|found| found.from.as_ref() == Some(&payer)), "signers are recovered: {found:?}");
    }
}

#[tokio::test]
async fn the_chain_is_named_and_endpoints_are_judged_one_by_one() {
    let chain = TestChain::start().await;
    let url = chain.anvil.url();
    let without_method_proxy = Proxy::without_methods(&url, &["eth_getBlockReceipts"]).await;
    let evm =
        evm::Evm::new(chain.config(&[&url, &without_method_proxy.url, "http://127.0.0.1:9/key"], TraceApi::Debug))
            .unwrap();
    assert_eq!(evm.identity().await.unwrap().id, "31337");
    assert_eq!(evm.decimals(&chain.usdt.to_checksum(None)).await, Ok(6));
    assert_eq!(evm.decimals(&chain.bep20.to_checksum(None)).await, Ok(18));
    assert!(evm.decimals(&chain.batcher.to_checksum(None)).await.is_err());

    let reports = evm.check_endpoints().await;
    let texts: Vec<String> = reports.iter().map(|report| format!("{} {:?}", report.endpoint, report.outcome)).collect();
    assert!(texts[0].contains("chain 31337") && texts[0].contains("receipts by block: yes"), "{}", texts[0]);
    assert!(texts[0].contains("traces: yes") && texts[0].contains("proofs of balances: yes"), "{}", texts[0]);
    assert!(texts[1].contains("receipts by block: no"), "{}", texts[1]);
    assert!(texts[2].starts_with("127.0.0.1:9 Err") && !texts[2].contains("key"), "{}", texts[2]);
    let by_label: HashMap<&str, bool> =
        reports.iter().map(|report| (report.endpoint.as_str(), report.outcome.is_ok())).collect();
    assert_eq!(by_label.len(), 3);
}
