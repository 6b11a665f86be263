//! Tests that an endpoint of another provider confirms true transfers and contradicts invented ones, with one lying
//! endpoint out of two in every mode: blocks, receipts, traces and balances.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use chain::{
    Amount, BlockRef, Source, Transfer, TransferIndex, TxId, TxPart,
    source::{Corroboration, CrossCheckResult},
};
use evm::{Commitments, Evm, EvmConfig, TraceApi};
use proxy::{Intervention, Proxy};
use rpc::Endpoint;
use serde_json::{Value, json};

use crate::false_answers::{edit_answer, start_with_busy_block};
use crate::test_chain::{ETHER, TestChain, read_blocks, to_address_key};

/// Reads the block at `height`, and returns it with its transfers.
async fn read_transfers(evm: &Evm, chain: &TestChain, height: u64) -> (BlockRef, Vec<Transfer>) {
    let block = read_blocks(evm, height, height, &chain.watched).await.remove(0);
    (block.header.block_ref(), block.transfers)
}

fn assert_all_shown(answers: &[Corroboration], case: &str) {
    assert!(!answers.is_empty(), "{case}");
    assert!(answers.iter().all(|answer| matches!(answer, Corroboration::Shown { .. })), "{case}: {answers:?}");
}

fn assert_all_unanswered(answers: &[Corroboration], case: &str) {
    assert!(!answers.is_empty(), "{case}");
    assert!(answers.iter().all(|answer| matches!(answer, Corroboration::CannotSay { .. })), "{case}: {answers:?}");
}

/// Asserts that an answer is a contradiction that names both endpoints.
fn assert_contradicted(answer: &Corroboration, first: &str, second: &str) {
    let Corroboration::Contradicted { endpoint, detail } = answer else { panic!("{answer:?}") };
    assert_eq!(endpoint, host_of(second));
    assert!(detail.contains(host_of(first)) && detail.contains(host_of(second)), "{detail}");
}

fn host_of(url: &str) -> &str {
    url.trim_start_matches("http://").trim_end_matches('/')
}

async fn pass(url: &str) -> Proxy {
    Proxy::start_proxy(url, |_, _| Intervention::Pass).await
}

#[tokio::test]
async fn true_transfers_are_shown_by_the_other_provider_in_every_mode() {
    let (chain, head, _) = start_with_busy_block().await;
    let (one, two) = (pass(&chain.anvil.url()).await, pass(&chain.anvil.url()).await);
    let unproven = Commitments { header: false, transactions: false, receipts: false };
    for verify in [Commitments::ALL, Commitments { receipts: false, ..Commitments::ALL }, unproven] {
        for trace in [TraceApi::None, TraceApi::Debug, TraceApi::Parity] {
            let case = format!("{verify:?} {trace:?}");
            let config = EvmConfig { verify, ..chain.build_config(&[&one.url, &two.url], trace) };
            let evm = Evm::from_config(config.clone()).unwrap();
            assert!(evm.needs_second_source() && evm.independent_provider_count() == 2);
            let (block, transfers) = read_transfers(&evm, &chain, head).await;
            assert_eq!(transfers.len(), if trace == TraceApi::None { 6 } else { 10 }, "{case}");
            assert_all_shown(&evm.confirm(&block, &transfers).await, &case);
            // After a restart, the endpoint that returned the block first is unknown, so both are asked.
            assert_all_shown(&Evm::from_config(config).unwrap().confirm(&block, &transfers).await, &case);
        }
    }
}

#[tokio::test]
async fn one_request_confirms_all_payments_that_the_header_proves() {
    let (chain, head, _) = start_with_busy_block().await;
    let (one, two) = (pass(&chain.anvil.url()).await, pass(&chain.anvil.url()).await);
    let evm = chain.build_driver(&[&one.url, &two.url]);
    let (block, transfers) = read_transfers(&evm, &chain, head).await;
    assert_all_shown(&evm.confirm(&block, &transfers).await, "the first time also checks the chain id");
    let requests = evm.requests();
    assert_all_shown(&evm.confirm(&block, &transfers).await, "again");
    assert_eq!(evm.requests(), requests + 1);
    assert!(evm.confirm(&block, &[]).await.is_empty());
}

#[tokio::test]
async fn an_invented_block_is_contradicted() {
    let (chain, liar) = (TestChain::start_chain().await, TestChain::start_chain().await);
    liar.mine_busy_block().await;
    let height = liar.anvil.fetch_height().await.unwrap();
    chain.anvil.mine(9).await.unwrap();
    let (false_url, url) = (liar.anvil.url(), chain.anvil.url());
    let config = liar.build_config(&[&false_url, &url], TraceApi::Debug);
    let evm = Evm::from_config(config.clone()).unwrap();
    let (block, transfers) = read_transfers(&evm, &liar, height).await;
    assert_eq!(transfers.len(), 10, "all commitments of the invented block are right");
    for answer in evm.confirm(&block, &transfers).await {
        assert_contradicted(&answer, &false_url, &url);
    }
    assert!(matches!(evm.cross_check(&block).await, CrossCheckResult::Conflicting { .. }));
    let after_restart = Evm::from_config(config).unwrap().confirm(&block, &transfers).await;
    assert!(
        after_restart.iter().all(|answer| matches!(answer, Corroboration::Contradicted { .. })),
        "{after_restart:?}"
    );
}

/// Multiplies the amount of the first token transfer in a list of receipts, or in one receipt, by 16.
fn raise_token_amount(receipts: &mut Value) {
    let raise = |receipt: &mut Value| {
        let Some(log) = receipt["logs"].as_array_mut().and_then(|logs| logs.first_mut()) else { return false };
        let Some(data) = log["data"].as_str().filter(|data| data.len() == 66) else { return false };
        let raised = format!("0x{}0", &data[3..]);
        log["data"] = json!(raised);
        true
    };
    let is_list = receipts.is_array();
    if is_list {
        let _ = receipts.as_array_mut().is_some_and(|receipts| receipts.iter_mut().any(raise));
    } else {
        raise(receipts);
    }
}

#[tokio::test]
async fn an_invented_token_transfer_is_contradicted_where_the_header_proves_no_receipts() {
    let (chain, head, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let edit = |method: &str, _: &Value| match method {
        "eth_getBlockReceipts" | "eth_getTransactionReceipt" => Intervention::Edit(Box::new(raise_token_amount)),
        _ => Intervention::Pass,
    };
    let false_proxy = Proxy::start_proxy(&url, edit).await;
    for verify in [
        Commitments { receipts: false, ..Commitments::ALL },
        Commitments { header: false, transactions: false, receipts: false },
    ] {
        let config = EvmConfig { verify, ..chain.build_config(&[&false_proxy.url, &url], TraceApi::None) };
        let evm = Evm::from_config(config).unwrap();
        let (block, transfers) = read_transfers(&evm, &chain, head).await;
        let answers = evm.confirm(&block, &transfers).await;
        let is_invented = |transfer: &&Transfer| transfer.amount == Amount::from(16 * 1_500_000u64);
        assert_eq!(transfers.iter().filter(is_invented).count(), 1);
        for (transfer, answer) in transfers.iter().zip(&answers) {
            if is_invented(&transfer) {
                let Corroboration::Contradicted { endpoint, detail } = answer else { panic!("{answer:?}") };
                assert_eq!(endpoint, host_of(&url));
                assert!(detail.contains("no such transfer"), "{detail}");
            } else if transfer.index.part == TxPart::Value {
                assert_all_shown(std::slice::from_ref(answer), "a true payment");
            }
        }
    }
}

fn add_invented_call(traces: &mut Value) {
    let watched_address = format!("0x{}", "b1".repeat(20));
    let call =
        json!({ "type": "CALL", "from": watched_address.replace("b1", "77"), "to": watched_address, "value": "0x5" });
    traces[0]["result"]["calls"] = json!([call]);
}

#[tokio::test]
async fn an_invented_internal_transfer_is_contradicted_by_traces_or_by_proofs() {
    let (chain, head, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let (has_proofs, has_traces) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let refuse_proofs = |has_proofs: Arc<AtomicBool>, has_traces: Arc<AtomicBool>, lies: bool| {
        move |method: &str, _: &Value| match method {
            "eth_getProof" if !has_proofs.load(Ordering::Relaxed) => {
                Intervention::Error(-32000, "distance to target block exceeds maximum proof window")
            }
            "debug_traceBlockByHash" if lies => Intervention::Edit(Box::new(add_invented_call)),
            "debug_traceBlockByHash" if !has_traces.load(Ordering::Relaxed) => {
                Intervention::Error(-32000, "historical state unavailable")
            }
            _ => Intervention::Pass,
        }
    };
    let liar = Proxy::start_proxy(&url, refuse_proofs(has_proofs.clone(), has_traces.clone(), true)).await;
    let honest = Proxy::start_proxy(&url, refuse_proofs(has_proofs.clone(), has_traces.clone(), false)).await;
    let evm = Evm::from_config(chain.build_config(&[&liar.url, &honest.url], TraceApi::Debug)).unwrap();
    let (block, transfers) = read_transfers(&evm, &chain, head).await;
    let invented = |transfer: &Transfer| {
        transfer.to == to_address_key(chain.watched_addresses[0]) && matches!(transfer.index.part, TxPart::Internal(_))
    };
    assert_eq!((transfers.len(), transfers.iter().filter(|transfer| invented(transfer)).count()), (11, 1));
    let judge = |answers: Vec<Corroboration>| {
        assert_eq!(answers.len(), transfers.len());
        for (transfer, answer) in transfers.iter().zip(&answers) {
            if invented(transfer) {
                assert_contradicted(answer, &liar.url, &honest.url);
            } else {
                assert_all_shown(std::slice::from_ref(answer), "the other transfers are true");
            }
        }
    };
    judge(evm.confirm(&block, &transfers).await);

    has_traces.store(false, Ordering::Relaxed);
    for (transfer, answer) in transfers.iter().zip(evm.confirm(&block, &transfers).await) {
        let is_internal = matches!(transfer.index.part, TxPart::Internal(_));
        assert_eq!(
            is_internal,
            matches!(answer, Corroboration::CannotSay { .. }),
            "a failed proof is no agreement: {answer:?}"
        );
    }
    has_proofs.store(true, Ordering::Relaxed);
    judge(evm.confirm(&block, &transfers).await);
}

#[tokio::test]
async fn an_invented_balance_is_contradicted_with_and_without_proofs() {
    let (chain, head, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let without_proofs = Proxy::start_without_methods(&url, &["eth_getProof"]).await;
    let liar = Proxy::start_proxy(&url, |method, params| match method {
        "eth_getProof" => Intervention::Error(-32601, "method not found"),
        _ => edit_answer("eth_getBalance", |balance| *balance = json!("0xffffffffffffffffff"))(method, params),
    })
    .await;
    let other = pass(&url).await;
    for second in [&without_proofs.url, &other.url] {
        let evm = chain.build_driver(&[&liar.url, second]);
        let (block, _) = read_transfers(&evm, &chain, head).await;
        let increase = |amount: u128| Transfer {
            txid: TxId([0; 32]),
            index: TransferIndex { tx_index: 3, part: TxPart::BalanceIncrease },
            asset: chain.build_config(&[], TraceApi::None).assets[0].id.clone(),
            to: to_address_key(chain.watched_addresses[0]),
            from: None,
            amount: Amount::from_units(amount),
        };
        let answers = evm.confirm(&block, &[increase(ETHER), increase(ETHER + 1)]).await;
        assert_all_shown(&answers[..1], second);
        assert_contradicted(&answers[1], &liar.url, second);
    }
}

#[tokio::test]
async fn a_silent_or_lagging_endpoint_or_a_second_url_of_one_provider_cannot_say() {
    let (chain, head, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let silent =
        Proxy::start_proxy(&url, |_, _| Intervention::Http(axum::http::StatusCode::BAD_GATEWAY, vec![], String::new()))
            .await;
    let lagging = Proxy::start_proxy(&url, move |method, params| match (method, params[0].as_str()) {
        ("eth_getBlockByNumber", Some("latest")) => Intervention::ReplaceParams(json!(["0x1", false])),
        ("eth_getBlockByNumber", _) => Intervention::Result(Value::Null),
        _ => Intervention::Pass,
    })
    .await;
    for (second, providers) in [(Some(&silent.url), 2), (Some(&lagging.url), 2), (Some(&url), 1), (None, 1)] {
        let urls: Vec<&str> = std::iter::once(url.as_str()).chain(second.map(String::as_str)).collect();
        let mut config = chain.build_config(&urls, TraceApi::None);
        config.pool.deadline = std::time::Duration::from_secs(1);
        let evm = Evm::from_config(config).unwrap();
        assert_eq!(evm.independent_provider_count(), providers, "{urls:?}");
        let (block, transfers) = read_transfers(&evm, &chain, head).await;
        let answers = evm.confirm(&block, &transfers).await;
        assert_all_unanswered(&answers, &format!("{urls:?}"));
        if let (Some(second), 2) = (second, providers) {
            assert!(format!("{answers:?}").contains(host_of(second)), "the reason names the endpoint: {answers:?}");
        }
    }
}

#[tokio::test]
async fn the_operators_own_node_needs_no_second_source_and_is_the_second_source_of_others() {
    let (chain, head, _) = start_with_busy_block().await;
    let (own, foreign) = (pass(&chain.anvil.url()).await, pass(&chain.anvil.url()).await);
    let endpoint = |proxy: &Proxy, own: bool| Endpoint::new(&proxy.url).unwrap().with_own(own);
    let mut config = chain.build_config(&[&own.url], TraceApi::Debug);
    config.pool.endpoints = vec![endpoint(&own, true)];
    let evm = Evm::from_config(config.clone()).unwrap();
    assert_eq!(evm.independent_provider_count(), 2, "the own node is enough");
    let (block, transfers) = read_transfers(&evm, &chain, head).await;
    let requests = evm.requests();
    assert_all_shown(&evm.confirm(&block, &transfers).await, "it returned the transfers itself");
    assert_eq!((evm.cross_check(&block).await, evm.requests()), (CrossCheckResult::Confirmed, requests));

    config.pool.endpoints =
        vec![endpoint(&foreign, false), endpoint(&pass(&chain.anvil.url()).await, false), endpoint(&own, true)];
    let evm = Evm::from_config(config).unwrap();
    let (block, transfers) = read_transfers(&evm, &chain, head).await;
    let shown = evm.confirm(&block, &transfers).await;
    assert_eq!(
        shown[0],
        Corroboration::Shown { endpoint: host_of(&own.url).to_owned() },
        "the own node is asked first"
    );
    assert_all_shown(&shown, "the own node");
}
