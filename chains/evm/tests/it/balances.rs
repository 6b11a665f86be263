//! What an address holds is proven or told alike by two; a balance that one node makes up is no money.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::http::StatusCode;
use chain::{AssetKind, Source, SourceError};
use evm::{Evm, Trace};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use crate::lying::{Lie, busy, edit};
use crate::world::{self, ETHER, NODE, World, read};

/// The balances of all watched addresses at the head, by a driver that asks `urls`.
async fn balances(world: &World, urls: &[&str], asset: &AssetKind) -> Result<Vec<u64>, SourceError> {
    let last =
        read(&world.evm(&[&world.anvil.url()]), 0, world.anvil.height().await.expect(NODE), &world.watched).await;
    let last = last.last().expect("a block was read").header.block_ref();
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
        assert!(liar.request_count("eth_getProof") > 0);
        let alone = balances(&world, &[&liar.url], &AssetKind::Native).await;
        assert!(
            matches!(alone, Err(SourceError::InvalidResponse(_) | SourceError::Unavailable(_))),
            "lie {n} alone: {alone:?}"
        );
        assert_eq!(liar.request_count("eth_getBalance"), 0, "a liar is not asked for less");
    }
}

#[tokio::test]
async fn a_node_that_tells_its_newest_balance_instead_is_not_believed() {
    let (world, head, _) = busy().await;
    let url = world.anvil.url();
    let last = read(&world.evm(&[&url]), head, head, &world.watched).await[0].header.block_ref();
    world.pay_ether(1, world.ours[0], ETHER).await;
    world.pay_token(world.usdt, world.ours[1], 5).await;
    world.anvil.mine(1).await.unwrap();
    let newest = |method: &str, params: &Value| match method {
        "eth_getProof" => Intervention::ReplaceParams(json!([params[0], params[1], "latest"])),
        "eth_getBalance" | "eth_call" => Intervention::ReplaceParams(json!([params[0], "latest"])),
        _ => Intervention::Pass,
    };
    let forgetful = [Proxy::start(&url, newest).await, Proxy::start(&url, newest).await];
    let evm = world.evm(&[&forgetful[0].url, &forgetful[1].url]);
    let ours = world::address(world.ours[0]);
    let native = evm.balances(&last, &AssetKind::Native, std::slice::from_ref(&ours)).await;
    assert!(matches!(native, Err(SourceError::InvalidResponse(_))), "{native:?}");
    let evm = world.evm(&[&forgetful[0].url, &forgetful[1].url]);
    let token = evm.balances(&last, &token(&world), &[world::address(world.ours[1])]).await;
    assert!(matches!(token, Err(SourceError::Unsupported(_))), "{token:?}");
}

/// What a gateway answers once to the question whether it heeds hashes, before it ignores them as ever.
const EVASIONS: [fn() -> Intervention; 4] = [
    || Intervention::Hang,
    || Intervention::Error(-32005, "daily request count exceeded"),
    || Intervention::Http(StatusCode::OK, vec![], "<html>try again</html>".to_owned()),
    || Intervention::Http(StatusCode::BAD_GATEWAY, vec![], String::new()),
];

#[tokio::test]
async fn a_gateway_that_evades_the_question_once_is_not_trusted_for_ever() {
    let (world, head, _) = busy().await;
    let url = world.anvil.url();
    let last = read(&world.evm(&[&url]), head, head, &world.watched).await[0].header.block_ref();
    world.pay_token(world.usdt, world.ours[1], 5).await;
    world.anvil.mine(1).await.unwrap();
    for (n, evasion) in EVASIONS.into_iter().enumerate() {
        let ignorant = || async {
            let evaded = AtomicBool::new(false);
            Proxy::start(&url, move |method, params| match method {
                "eth_getBalance" if !evaded.swap(true, Ordering::Relaxed) => evasion(),
                "eth_getBalance" | "eth_call" => Intervention::ReplaceParams(json!([params[0], "latest"])),
                _ => Intervention::Pass,
            })
            .await
        };
        let (one, two) = (ignorant().await, ignorant().await);
        let mut config = world.config(&[&one.url, &two.url], Trace::None);
        config.pool.deadline = Duration::from_secs(2);
        let evm = Evm::new(config).unwrap();
        let ours = [world::address(world.ours[1])];
        let evaded = evm.balances(&last, &token(&world), &ours).await;
        assert!(
            matches!(evaded, Err(SourceError::Unavailable(_) | SourceError::InvalidResponse(_))),
            "evasion {n}: {evaded:?}"
        );
        let known = evm.balances(&last, &token(&world), &ours).await;
        assert!(matches!(known, Err(SourceError::Unsupported(_))), "evasion {n}: {known:?}");
    }
}

fn token(world: &World) -> AssetKind {
    AssetKind::Token { contract: world.usdt.to_checksum(None) }
}

#[tokio::test]
async fn what_nothing_proves_two_endpoints_must_tell() {
    let (world, _, _) = busy().await;
    let url = world.anvil.url();
    let ether = u64::try_from(ETHER).unwrap();
    let plain = || Proxy::without_methods(&url, &["eth_getProof"]);
    let (one, two) = (plain().await, plain().await);
    let both = [one.url.as_str(), &two.url];
    assert_eq!(balances(&world, &both, &AssetKind::Native).await, Ok(vec![ether, 0, 8, 15]));
    // Each is asked once besides whether it heeds which block is meant.
    assert_eq!(
        (one.request_count("eth_getBalance"), two.request_count("eth_getBalance")),
        (4 + 1, 3 + 1),
        "zeros need no second word"
    );
    assert_eq!(balances(&world, &both, &token(&world)).await, Ok(vec![40, 1_500_020, 0, 0]));

    let more = |method: &str, _: &Value| match method {
        "eth_getProof" => Intervention::Error(-32601, "method not found"),
        "eth_getBalance" | "eth_call" => Intervention::Edit(Box::new(|answer| {
            let text = answer.as_str().unwrap().to_owned();
            let last = if text.ends_with('f') { "e" } else { "f" };
            *answer = json!(format!("{}{last}", &text[..text.len() - 1]));
        })),
        _ => Intervention::Pass,
    };
    let liar = Proxy::start(&url, more).await;
    for urls in [[liar.url.as_str(), &one.url], [&one.url, &liar.url]] {
        for asset in [AssetKind::Native, token(&world)] {
            let found = balances(&world, &urls, &asset).await;
            assert!(matches!(found, Err(SourceError::InvalidResponse(_))), "{found:?}");
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
