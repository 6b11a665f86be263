//! Tests with a node that answers correctly, directly or behind a proxy.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

use alloy_primitives::Address;
use axum::http::StatusCode;
use chain::source::CrossCheckResult;
use chain::{Amount, AssetKind, BlockHash, BlockRef, InternalTransfers, Source, SourceError, TxPart};
use evm::TraceApi;

use crate::test_chain::{self, ETHER, TestChain, collect_transfers, read_blocks, sum_by_asset};
use proxy::{Intervention, Proxy};

#[tokio::test]
async fn exactly_the_transfers_to_watched_addresses_are_found() {
    let chain = TestChain::start_chain().await;
    chain.mine_busy_block().await;
    chain.anvil.mine(3).await.unwrap();
    chain.mine_busy_block().await;
    let head = chain.anvil.fetch_height().await.unwrap();
    let url = chain.anvil.url();
    let expected = chain.fetch_node_balances().await;

    let mut by_trace = Vec::new();
    for trace in [TraceApi::Debug, TraceApi::Parity] {
        let by_block = evm::Evm::from_config(chain.build_config(&[&url], trace)).unwrap();
        assert_eq!(by_block.internal_transfers(), InternalTransfers::Included);
        let by_block = read_blocks(&by_block, 0, head, &chain.watched).await;
        assert_eq!(sum_by_asset(&collect_transfers(&by_block)), expected, "{trace:?}");
        let by_range = read_blocks(&chain.build_range_driver(&[&url], trace).await, 0, head, &chain.watched).await;
        assert_eq!(by_block, by_range, "reading by hash and by range finds the same blocks");
        by_trace.push(by_block);
    }
    assert_eq!(by_trace[0], by_trace[1], "both trace methods find the same transfers");

    let found = collect_transfers(&by_trace[0]);
    let mut positions = HashSet::new();
    for block in &by_trace[0] {
        for transfer in &block.transfers {
            assert!(
                positions.insert((block.header.height, transfer.index)),
                "{transfer:?} has the same position as another transfer"
            );
        }
    }
    let count_parts = |wanted: fn(&TxPart) -> bool| found.iter().filter(|found| wanted(&found.index.part)).count();
    assert_eq!(count_parts(|part| matches!(part, TxPart::Value)), 2);
    assert_eq!(count_parts(|part| matches!(part, TxPart::Log(_))), 2 * 5);
    assert_eq!(count_parts(|part| matches!(part, TxPart::Internal(_))), 2 * 4);
    assert!(found.iter().all(|found| found.from.as_ref().is_some_and(|from| from.starts_with("0x"))));
}

#[tokio::test]
async fn without_traces_internal_transfers_are_visible_only_in_balances() {
    let chain = TestChain::start_chain().await;
    chain.mine_busy_block().await;
    let head = chain.anvil.fetch_height().await.unwrap();
    let evm = chain.build_driver(&[&chain.anvil.url()]);
    assert_eq!(evm.internal_transfers(), InternalTransfers::ByBalance);
    let blocks = read_blocks(&evm, 0, head, &chain.watched).await;
    let found = sum_by_asset(&collect_transfers(&blocks));

    let addresses: Vec<chain::Address> =
        chain.watched_addresses.iter().map(|address| test_chain::to_chain_address(*address)).collect();
    let last = blocks.last().unwrap().header.block_ref();
    let balances = evm.balances(&last, &AssetKind::Native, &addresses).await.unwrap();
    let native = chain.build_config(&[], TraceApi::None).assets[0].id.clone();
    let missing: Vec<Amount> = addresses
        .iter()
        .zip(&balances)
        .map(|(address, balance)| {
            balance.saturating_sub(*found.get(&(native.clone(), address.key)).unwrap_or(&Amount::ZERO))
        })
        .collect();
    assert_eq!(missing, [0u64, 0, 8, 15].map(Amount::from));

    // The first block of anvil has no state root, so the second one is read.
    let before = evm.balances(&blocks[1].header.block_ref(), &AssetKind::Native, &addresses).await.unwrap();
    assert_eq!(before, vec![Amount::ZERO; 4]);
    let unknown_block = BlockRef { height: last.height, hash: chain::BlockHash([9; 32]) };
    assert!(evm.balances(&unknown_block, &AssetKind::Native, &addresses).await.is_err());
}

#[tokio::test]
async fn balances_are_read_in_batches_and_a_rejected_item_from_another_endpoint() {
    let chain = TestChain::start_chain().await;
    chain.mine_busy_block().await;
    let (url, head) = (chain.anvil.url(), chain.anvil.fetch_height().await.unwrap());
    let last = read_blocks(&chain.build_driver(&[&url]), head, head, &chain.watched).await[0].header.block_ref();
    // In the list, the watched addresses are between addresses without a balance.
    let empty_addresses = (1..=246u8).map(|n| Address::with_last_byte(n).create(u64::from(n)));
    let mut requested: Vec<Address> = empty_addresses.collect();
    for (n, watched_address) in chain.watched_addresses.iter().enumerate() {
        requested.insert(60 * n, *watched_address);
    }
    let addresses: Vec<chain::Address> =
        requested.iter().map(|address| test_chain::to_chain_address(*address)).collect();
    let refused = addresses[60].text.clone();
    let limited_proxy = Proxy::start_proxy(&url, move |method, params| match (method, params[0].as_str()) {
        ("eth_getProof", Some(address)) if address == refused => {
            Intervention::Error(-32000, "this address is not served")
        }
        _ => Intervention::Pass,
    })
    .await;
    let evm = chain.build_driver(&[&limited_proxy.url, &url]);
    let before = evm.requests();
    let balances = evm.balances(&last, &AssetKind::Native, &addresses).await.unwrap();
    for (address, balance) in requested.iter().zip(&balances) {
        assert_eq!(balance.units(), chain.anvil.fetch_balance(*address).await.unwrap(), "{address}");
    }
    // Two checks of the chain id, one header, 250 items in batches, and the rejected item once more at both endpoints.
    assert_eq!((balances.len(), evm.requests() - before), (250, 250 + 2 + 1 + 2));
    assert_eq!(limited_proxy.request_count("eth_getProof"), 250 + 1);

    let again = evm.balances(&last, &AssetKind::Native, &addresses[..1]).await.unwrap();
    assert_eq!(
        (again, evm.requests() - before),
        (balances[..1].to_vec(), 250 + 2 + 1 + 2 + 1),
        "the state root is cached"
    );
}

#[tokio::test]
async fn a_block_without_transfers_costs_one_request_and_one_with_transfers_two() {
    let chain = TestChain::start_chain().await;
    chain.anvil.mine(40).await.unwrap();
    chain.pay_token(chain.usdt, Address::repeat_byte(0x55), 5).await;
    chain.anvil.mine(1).await.unwrap();
    let evm = chain.build_driver(&[&chain.anvil.url()]);
    let head = chain.anvil.fetch_height().await.unwrap();
    let (from, chain_check) = (head - 40, 1);
    assert!(collect_transfers(&read_blocks(&evm, from, head, &chain.watched).await).is_empty());
    assert_eq!(evm.requests(), 41 + chain_check, "the bloom proves that no watched address was paid");

    chain.pay_token(chain.usdt, chain.watched_addresses[0], 5).await;
    chain.anvil.mine(1).await.unwrap();
    assert_eq!(collect_transfers(&read_blocks(&evm, head + 1, head + 1, &chain.watched).await).len(), 1);
    assert_eq!(evm.requests(), 41 + chain_check + 2);

    let by_range = chain.build_range_driver(&[&chain.anvil.url()], TraceApi::None).await;
    let before = by_range.requests();
    assert_eq!(collect_transfers(&read_blocks(&by_range, from, head + 1, &chain.watched).await).len(), 1);
    assert_eq!(by_range.requests() - before, 42 + 1, "the receipts of the paid block, and no logs");

    chain.watch_many_addresses();
    let (url, other) = (chain.anvil.url(), Proxy::start_proxy(&chain.anvil.url(), |_, _| Intervention::Pass).await);
    let with_many = chain.build_range_driver(&[&url, &other.url], TraceApi::None).await;
    let before = with_many.requests();
    assert_eq!(collect_transfers(&read_blocks(&with_many, from, head + 1, &chain.watched).await).len(), 1);
    assert_eq!(
        with_many.requests() - before,
        42 + 2 + 1,
        "one range of logs from each of two endpoints for all blocks"
    );
}

#[tokio::test]
async fn after_a_reorg_the_new_branch_is_read() {
    let chain = TestChain::start_chain().await;
    let evm = chain.build_driver(&[&chain.anvil.url()]);
    chain.anvil.mine(2).await.unwrap();
    chain.pay_ether(1, chain.watched_addresses[0], ETHER).await;
    chain.anvil.mine(3).await.unwrap();
    let head = chain.anvil.fetch_height().await.unwrap();
    let before = read_blocks(&evm, head - 5, head, &chain.watched).await;
    assert_eq!(collect_transfers(&before).len(), 1);

    chain.anvil.reorg(4).await.unwrap();
    let after = read_blocks(&evm, head - 5, head, &chain.watched).await;
    assert!(collect_transfers(&after).is_empty());
    assert_eq!(before[1], after[1], "blocks below the fork are unchanged");
    assert_ne!(before[5].header.hash, after[5].header.hash);
    assert_eq!(evm.header(head - 4).await.unwrap(), Some(after[1].header));
    assert_eq!(evm.header(head + 1).await.unwrap(), None);
    assert_eq!(evm.blocks(head + 1, head + 2, &chain.watched).await, Err(SourceError::BlockNotFound(head + 1)));
    assert_eq!(
        evm.blocks(head, head + 9, &chain.watched).await.unwrap().len(),
        1,
        "blocks above the node's head are left out"
    );
}

#[tokio::test]
async fn the_finalized_block_of_the_tip_can_move_back() {
    let chain = TestChain::start_chain_with_args(&["--slots-in-an-epoch", "2"]).await;
    chain.anvil.mine(20).await.unwrap();
    let (url, other) = (chain.anvil.url(), Proxy::start_proxy(&chain.anvil.url(), |_, _| Intervention::Pass).await);
    let evm = chain.build_driver(&[&url, &other.url]);
    let tip = evm.tip().await.unwrap();
    let head = chain.anvil.fetch_height().await.unwrap();
    assert_eq!(tip.head.height, head);
    let finalized = tip.finalized.unwrap();
    assert!(finalized.height > 0 && finalized.height < head);
    assert_eq!(evm.header(finalized.height).await.unwrap().map(|header| header.block_ref()), Some(finalized));

    let request_count = evm.requests();
    assert_eq!(evm.tip().await.unwrap(), tip);
    assert_eq!(evm.requests(), request_count + 1, "an unchanged head costs one request");

    chain.anvil.rollback(5).await.unwrap();
    let rewound = evm.tip().await.unwrap();
    assert_eq!(rewound.head.height, head - 5);
    assert!(rewound.finalized.unwrap().height < finalized.height);
    chain.anvil.mine(30).await.unwrap();
    evm.tip().await.unwrap();
    chain.anvil.mine(1).await.unwrap();
    assert!(evm.tip().await.unwrap().finalized.unwrap().height > finalized.height);
}

#[tokio::test]
async fn a_cross_check_asks_a_second_endpoint_for_the_block() {
    let chain = TestChain::start_chain().await;
    chain.anvil.mine(3).await.unwrap();
    let (url, height) = (chain.anvil.url(), chain.anvil.fetch_height().await.unwrap());
    let other_proxy = Proxy::start_proxy(&url, |_, _| Intervention::Pass).await;
    let evm = chain.build_driver(&[&url, &other_proxy.url]);
    let block = read_blocks(&evm, height, height, &chain.watched).await[0].header.block_ref();
    let request_count = evm.requests();
    assert_eq!((evm.independent_provider_count(), evm.cross_check(&block).await), (2, CrossCheckResult::Confirmed));
    assert_eq!(evm.requests() - request_count, 1 + 1, "the block and a check of the chain id");
    let request_count = evm.requests();
    assert_eq!(evm.cross_check(&block).await, CrossCheckResult::Confirmed);
    assert_eq!(evm.requests() - request_count, 1);

    let invented = BlockRef { hash: BlockHash([7; 32]), ..block };
    let conflicting = evm.cross_check(&invented).await;
    assert!(
        matches!(&conflicting, CrossCheckResult::Conflicting { hash, .. } if *hash == block.hash),
        "{conflicting:?}"
    );
    let behind = evm.cross_check(&BlockRef { height: height + 1, ..block }).await;
    assert!(matches!(&behind, CrossCheckResult::Behind { head, .. } if head.block_ref() == block), "{behind:?}");

    let alone = chain.build_driver(&[&url]);
    let no_answer = alone.cross_check(&block).await;
    assert!(
        alone.independent_provider_count() == 1 && matches!(no_answer, CrossCheckResult::NoAnswer(_)),
        "{no_answer:?}"
    );
}

#[tokio::test]
async fn a_cross_check_waits_for_a_rate_limited_endpoint() {
    let chain = TestChain::start_chain().await;
    chain.anvil.mine(3).await.unwrap();
    let (url, height) = (chain.anvil.url(), chain.anvil.fetch_height().await.unwrap());
    let origin_proxy = Proxy::start_proxy(&url, |_, _| Intervention::Pass).await;
    let was_throttled = AtomicBool::new(false);
    let throttled_proxy = Proxy::start_proxy(&url, move |method, _| match method {
        "eth_getBlockByNumber" if !was_throttled.swap(true, Ordering::Relaxed) => {
            Intervention::Http(StatusCode::TOO_MANY_REQUESTS, vec![], String::new())
        }
        _ => Intervention::Pass,
    })
    .await;
    let evm = chain.build_driver(&[&origin_proxy.url, &throttled_proxy.url]);
    let block = read_blocks(&evm, height, height, &chain.watched).await[0].header.block_ref();
    let request_count = origin_proxy.request_count("eth_getBlockByNumber");
    assert_eq!(evm.cross_check(&block).await, CrossCheckResult::Confirmed);
    assert_eq!(
        origin_proxy.request_count("eth_getBlockByNumber"),
        request_count,
        "the origin of a block is not request_count to confirm it"
    );
    assert_eq!(throttled_proxy.request_count("eth_getBlockByNumber"), 2);
}

#[tokio::test]
async fn many_watched_addresses_give_the_same_blocks() {
    let chain = TestChain::start_chain().await;
    chain.mine_busy_block().await;
    chain.anvil.mine(2).await.unwrap();
    let head = chain.anvil.fetch_height().await.unwrap();
    let url = chain.anvil.url();
    let with_few = read_blocks(&chain.build_driver(&[&url]), 0, head, &chain.watched).await;
    chain.watch_many_addresses();
    let by_block = read_blocks(&chain.build_driver(&[&url]), 0, head, &chain.watched).await;
    let by_range =
        read_blocks(&chain.build_range_driver(&[&url, &url], TraceApi::None).await, 0, head, &chain.watched).await;
    assert_eq!((&with_few, &with_few), (&by_block, &by_range));
}

#[tokio::test]
async fn blocks_of_every_hard_fork_with_every_transaction_type_are_verified() {
    for fork in ["london", "paris", "shanghai", "cancun", "prague", "osaka"] {
        let chain = TestChain::start_chain_with_args(&["--hardfork", fork]).await;
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
            chain.anvil.call_rpc("eth_sendTransaction", serde_json::json!([tx])).await.unwrap();
        }
        chain.anvil.mine(1).await.unwrap();
        let head = chain.anvil.fetch_height().await.unwrap();
        let found =
            collect_transfers(&read_blocks(&chain.build_driver(&[&chain.anvil.url()]), 0, head, &chain.watched).await);
        assert_eq!(found.len(), 3, "{fork}");
        let payer = test_chain::to_chain_address(funded).text;
        assert!(found.iter().all(|found| found.from.as_ref() == Some(&payer)), "the sender is recovered: {found:?}");
    }
}

#[tokio::test]
async fn the_chain_is_identified_and_each_endpoint_is_reported() {
    let chain = TestChain::start_chain().await;
    let url = chain.anvil.url();
    let without_method_proxy = Proxy::start_without_methods(&url, &["eth_getBlockReceipts"]).await;
    let evm = evm::Evm::from_config(
        chain.build_config(&[&url, &without_method_proxy.url, "http://127.0.0.1:9/key"], TraceApi::Debug),
    )
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
