//! Tests that a balance is used only if it is proven or returned by two endpoints, so that one endpoint cannot invent a
//! balance.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::http::StatusCode;
use chain::{AssetKind, Source, SourceError};
use evm::{Evm, TraceApi};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use crate::false_answers::{Edit, edit_answer, start_with_busy_block};
use crate::test_chain::{self, ANVIL, ETHER, TestChain, read_blocks};

/// Reads the balances of all watched addresses at the head with a driver that uses the endpoints `urls`.
async fn read_balances(chain: &TestChain, urls: &[&str], asset: &AssetKind) -> Result<Vec<u64>, SourceError> {
    let last = read_blocks(
        &chain.build_driver(&[&chain.anvil.url()]),
        0,
        chain.anvil.fetch_height().await.expect(ANVIL),
        &chain.watched,
    )
    .await;
    let last = last.last().expect("a block was read").header.block_ref();
    let addresses: Vec<chain::Address> =
        chain.watched_addresses.iter().map(|watched_address| test_chain::to_chain_address(*watched_address)).collect();
    let found = chain.build_driver(urls).balances(&last, asset, &addresses).await?;
    Ok(found.iter().map(|amount| amount.units().to::<u64>()).collect())
}

#[tokio::test]
async fn an_invented_balance_is_rejected() {
    let (chain, _, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let ether = u64::try_from(ETHER).unwrap();
    let edits: [Edit; 5] = [
        |proof| proof["balance"] = json!("0xde0b6b3a7640001"),
        |proof| proof["nonce"] = json!("0x7"),
        |proof| proof["accountProof"] = json!([]),
        |proof| drop(proof["accountProof"].as_array_mut().unwrap().pop()),
        // A proof for another state root would be rejected in the same way.
        |proof| proof["accountProof"].as_array_mut().unwrap().reverse(),
    ];
    for (n, edit) in edits.into_iter().enumerate() {
        let false_proxy = Proxy::start_proxy(&url, edit_answer("eth_getProof", edit)).await;
        let found = read_balances(&chain, &[&false_proxy.url, &url], &AssetKind::Native).await;
        assert_eq!(found, Ok(vec![ether, 0, 8, 15]), "edit {n}");
        assert!(false_proxy.request_count("eth_getProof") > 0);
        let alone = read_balances(&chain, &[&false_proxy.url], &AssetKind::Native).await;
        assert!(
            matches!(alone, Err(SourceError::InvalidResponse(_) | SourceError::Unavailable(_))),
            "edit {n} alone: {alone:?}"
        );
        assert_eq!(
            false_proxy.request_count("eth_getBalance"),
            0,
            "an endpoint with a false proof is not asked for an unproven balance"
        );
    }
}

#[tokio::test]
async fn the_latest_balance_is_rejected_when_an_older_block_was_requested() {
    let (chain, head, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let last = read_blocks(&chain.build_driver(&[&url]), head, head, &chain.watched).await[0].header.block_ref();
    chain.pay_ether(1, chain.watched_addresses[0], ETHER).await;
    chain.pay_token(chain.usdt, chain.watched_addresses[1], 5).await;
    chain.anvil.mine(1).await.unwrap();
    let use_latest_block = |method: &str, params: &Value| match method {
        "eth_getProof" => Intervention::ReplaceParams(json!([params[0], params[1], "latest"])),
        "eth_getBalance" | "eth_call" => Intervention::ReplaceParams(json!([params[0], "latest"])),
        _ => Intervention::Pass,
    };
    let latest_only_proxies =
        [Proxy::start_proxy(&url, use_latest_block).await, Proxy::start_proxy(&url, use_latest_block).await];
    let evm = chain.build_driver(&[&latest_only_proxies[0].url, &latest_only_proxies[1].url]);
    let watched_address = test_chain::to_chain_address(chain.watched_addresses[0]);
    let native = evm.balances(&last, &AssetKind::Native, std::slice::from_ref(&watched_address)).await;
    assert!(matches!(native, Err(SourceError::InvalidResponse(_))), "{native:?}");
    let evm = chain.build_driver(&[&latest_only_proxies[0].url, &latest_only_proxies[1].url]);
    let token =
        evm.balances(&last, &usdt_asset(&chain), &[test_chain::to_chain_address(chain.watched_addresses[1])]).await;
    assert!(matches!(token, Err(SourceError::Unsupported(_))), "{token:?}");
}

/// Replies that a gateway sends once, when the driver tests the support of block hashes. After that reply the gateway
/// ignores block hashes.
const EVASIONS: [fn() -> Intervention; 4] = [
    || Intervention::Hang,
    || Intervention::Error(-32005, "daily request count exceeded"),
    || Intervention::Http(StatusCode::OK, vec![], "<html>try again</html>".to_owned()),
    || Intervention::Http(StatusCode::BAD_GATEWAY, vec![], String::new()),
];

#[tokio::test]
async fn one_failed_test_of_block_hashes_does_not_count_as_support() {
    let (chain, head, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let last = read_blocks(&chain.build_driver(&[&url]), head, head, &chain.watched).await[0].header.block_ref();
    chain.pay_token(chain.usdt, chain.watched_addresses[1], 5).await;
    chain.anvil.mine(1).await.unwrap();
    for (n, evasion) in EVASIONS.into_iter().enumerate() {
        let start_evasive_proxy = || async {
            let evaded = AtomicBool::new(false);
            Proxy::start_proxy(&url, move |method, params| match method {
                "eth_getBalance" if !evaded.swap(true, Ordering::Relaxed) => evasion(),
                "eth_getBalance" | "eth_call" => Intervention::ReplaceParams(json!([params[0], "latest"])),
                _ => Intervention::Pass,
            })
            .await
        };
        let (one, two) = (start_evasive_proxy().await, start_evasive_proxy().await);
        let mut config = chain.build_config(&[&one.url, &two.url], TraceApi::None);
        config.pool.deadline = Duration::from_secs(2);
        let evm = Evm::from_config(config).unwrap();
        let watched_address = [test_chain::to_chain_address(chain.watched_addresses[1])];
        let evaded = evm.balances(&last, &usdt_asset(&chain), &watched_address).await;
        assert!(
            matches!(evaded, Err(SourceError::Unavailable(_) | SourceError::InvalidResponse(_))),
            "evasion {n}: {evaded:?}"
        );
        let second_try = evm.balances(&last, &usdt_asset(&chain), &watched_address).await;
        assert!(matches!(second_try, Err(SourceError::Unsupported(_))), "evasion {n}: {second_try:?}");
    }
}

fn usdt_asset(chain: &TestChain) -> AssetKind {
    AssetKind::Token { contract: chain.usdt.to_checksum(None) }
}

#[tokio::test]
async fn an_unproven_balance_must_be_returned_by_two_endpoints() {
    let (chain, _, _) = start_with_busy_block().await;
    let url = chain.anvil.url();
    let ether = u64::try_from(ETHER).unwrap();
    let start_without_proofs = || Proxy::start_without_methods(&url, &["eth_getProof"]);
    let (one, two) = (start_without_proofs().await, start_without_proofs().await);
    let both = [one.url.as_str(), &two.url];
    assert_eq!(read_balances(&chain, &both, &AssetKind::Native).await, Ok(vec![ether, 0, 8, 15]));
    // Each endpoint also gets one request that tests its support of block hashes.
    assert_eq!(
        (one.request_count("eth_getBalance"), two.request_count("eth_getBalance")),
        (4 + 1, 3 + 1),
        "a zero balance needs no confirmation"
    );
    assert_eq!(read_balances(&chain, &both, &usdt_asset(&chain)).await, Ok(vec![40, 1_500_020, 0, 0]));

    let change_last_digit = |method: &str, _: &Value| match method {
        "eth_getProof" => Intervention::Error(-32601, "method not found"),
        "eth_getBalance" | "eth_call" => Intervention::Edit(Box::new(|answer| {
            let text = answer.as_str().unwrap().to_owned();
            let last = if text.ends_with('f') { "e" } else { "f" };
            *answer = json!(format!("{}{last}", &text[..text.len() - 1]));
        })),
        _ => Intervention::Pass,
    };
    let false_proxy = Proxy::start_proxy(&url, change_last_digit).await;
    for urls in [[false_proxy.url.as_str(), &one.url], [&one.url, &false_proxy.url]] {
        for asset in [AssetKind::Native, usdt_asset(&chain)] {
            let found = read_balances(&chain, &urls, &asset).await;
            assert!(matches!(found, Err(SourceError::InvalidResponse(_))), "{found:?}");
        }
    }
    for asset in [AssetKind::Native, usdt_asset(&chain)] {
        let alone = read_balances(&chain, &[&one.url], &asset).await;
        assert!(matches!(alone, Err(SourceError::Unsupported(_))), "{alone:?}");
    }
    // A zero balance needs no confirmation.
    let bep20 = AssetKind::Token { contract: chain.fake.to_checksum(None) };
    assert_eq!(read_balances(&chain, &[&one.url], &bep20).await, Ok(vec![0; 4]));
}
