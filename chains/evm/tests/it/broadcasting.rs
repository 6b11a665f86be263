//! Tests of the outcome of a broadcast.

use alloy_primitives::{Address, keccak256};
use axum::http::StatusCode;
use chain::{BroadcastOutcome, Sender};
use proxy::{Intervention, Proxy};
use rpc::{Endpoint, Role};
use serde_json::json;

use crate::test_chain::TestChain;

/// Signs a transfer of one wei with the given nonce and gas price.
async fn sign_transfer(chain: &TestChain, nonce: u64, gwei: u64) -> Vec<u8> {
    let price = format!("{:#x}", gwei * 1_000_000_000);
    let tx = json!({ "from": chain.funded[8], "to": Address::repeat_byte(0x99), "value": "0x1", "gas": "0x5208",
        "nonce": format!("{nonce:#x}"), "gasPrice": price, "chainId": "0x7a69" });
    let raw = chain.anvil.call_rpc("eth_signTransaction", json!([tx])).await.expect("anvil signs for its accounts");
    alloy_primitives::hex::decode(raw.as_str().expect("the signature is a string"))
        .expect("the signature is hexadecimal")
}

fn is_rejected_as(outcome: &BroadcastOutcome, class: &str) -> bool {
    matches!(outcome, BroadcastOutcome::Rejected(reason) if reason.starts_with(class))
}

#[tokio::test]
async fn a_broadcast_returns_what_the_node_answered() {
    let chain = TestChain::start_chain().await;
    let evm = chain.build_driver(&[&chain.anvil.url()]);
    let raw = sign_transfer(&chain, 0, 20).await;
    assert_eq!(evm.broadcast(&raw).await, BroadcastOutcome::Accepted);
    assert_eq!(evm.broadcast(&raw).await, BroadcastOutcome::AlreadyKnown);

    let cheaper = evm.broadcast(&sign_transfer(&chain, 0, 20 - 1).await).await;
    assert!(is_rejected_as(&cheaper, "replacement_underpriced"), "{cheaper:?}");
    chain.anvil.mine(1).await.unwrap();
    assert!(chain.anvil.find_receipt(keccak256(&raw)).await.unwrap().is_some());
    let nonce_used = evm.broadcast(&sign_transfer(&chain, 0, 90).await).await;
    assert!(is_rejected_as(&nonce_used, "nonce_too_low"), "{nonce_used:?}");

    chain.anvil.set_balance(chain.funded[8], alloy_primitives::U256::from(5)).await.unwrap();
    let unfunded = evm.broadcast(&sign_transfer(&chain, 1, 20).await).await;
    assert!(is_rejected_as(&unfunded, "insufficient_funds"), "{unfunded:?}");
    assert!(matches!(
        evm.broadcast(b"not a transaction").await,
        BroadcastOutcome::Unknown(_) | BroadcastOutcome::Rejected(_)
    ));
}

#[tokio::test]
async fn one_accepting_endpoint_is_enough_and_silence_is_not_a_rejection() {
    let chain = TestChain::start_chain().await;
    let url = chain.anvil.url();
    let failing_proxy =
        Proxy::start_proxy(&url, |_, _| Intervention::Http(StatusCode::BAD_GATEWAY, vec![], String::new())).await;
    let false_proxy =
        Proxy::start_proxy(&url, |_, _| Intervention::Result(json!(format!("0x{}", "11".repeat(32))))).await;
    let refusing = Proxy::start_proxy(&url, |_, _| Intervention::Error(-32000, "transaction underpriced")).await;
    let raw = sign_transfer(&chain, 0, 20).await;

    for lone in [&failing_proxy, &false_proxy] {
        let outcome = chain.build_driver(&[&lone.url]).broadcast(&raw).await;
        assert!(matches!(outcome, BroadcastOutcome::Unknown(_)), "{outcome:?}");
    }
    let mixed = chain.build_driver(&[&refusing.url, &failing_proxy.url]).broadcast(&raw).await;
    assert!(matches!(mixed, BroadcastOutcome::Unknown(_)), "{mixed:?}");
    assert!(is_rejected_as(&chain.build_driver(&[&refusing.url]).broadcast(&raw).await, "fee_too_low"));
    assert_eq!(
        chain.build_driver(&[&failing_proxy.url, &refusing.url, &false_proxy.url, &url]).broadcast(&raw).await,
        BroadcastOutcome::Accepted
    );
}

#[tokio::test]
async fn only_endpoints_with_the_broadcast_role_get_the_transaction() {
    let chain = TestChain::start_chain().await;
    let url = chain.anvil.url();
    let reader = Proxy::start_proxy(&url, |_, _| Intervention::Pass).await;
    let mut config = chain.build_config(&[&url], evm::TraceApi::None);
    config.pool.endpoints.insert(0, Endpoint::new(&reader.url).unwrap().with_roles(&[Role::Read]));
    let evm = evm::Evm::from_config(config).unwrap();
    assert_eq!(evm.broadcast(&sign_transfer(&chain, 0, 20).await).await, BroadcastOutcome::Accepted);
    assert_eq!(reader.request_count("eth_sendRawTransaction"), 0);
}
