//! Unchanged wallets pay with nothing but what the API returned. They encode, hash and sign by code that nobody here
//! wrote, so they judge the stand-in, and with it the driver.

use provision::{node, python};
use serde_json::json;

use super::{Onchain, Placed};

/// What a wallet is told, and the contract of the coin, which everybody knows.
fn wish(world: &Onchain, placed: &Placed) -> serde_json::Value {
    let mut wish = json!({
        "node": world.gateways[0].url,
        "secret": "02".repeat(32),
        "to": placed.address,
        "amount": placed.due.to_string(),
        "now_ms": world.tron.node.model().head().header.timestamp,
    });
    if placed.coin == "trc20_usdt" {
        wish["token"] = json!(chain::derive::tron_address(world.tron.usdt).text);
    }
    wish
}

/// Gives the second rich account tokens of its own.
async fn fill(world: &Onchain) {
    let (to, value) = (super::evm(world.tron.rich[1].account), alloy_primitives::U256::from(1_000_000_000_u64));
    world.tron.call(0, world.tron.usdt, provision::contracts::abi::Trc20Like::mintCall { to, value });
    world.settle().await;
}

async fn confirm(world: &Onchain, placed: &Placed, paid: serde_json::Value) {
    let txid = paid["txid"].as_str().unwrap_or_else(|| panic!("{paid}"));
    world.produce(1).await;
    let answer = world.expect(placed, "pending", "confirming").await;
    assert_eq!(answer.text_at("payment.tx_hash"), txid);
    world.settle().await;
    world.expect(placed, "completed", "paid").await;
    assert_eq!(world.earned(placed.coin).await, placed.due);
}

both! {
    async fn tronweb_pays_trx_and_usdt(world: Onchain) {
        fill(&world).await;
        for coin in ["trx", "trc20_usdt"] {
            let placed = world.place(coin).await;
            let paid = node::run("tronweb", wish(&world, &placed)).await.unwrap_or_else(|e| panic!("{e}"));
            confirm(&world, &placed, paid).await;
        }
    }

    async fn tronpy_pays_trx_and_usdt(world: Onchain) {
        fill(&world).await;
        for coin in ["trx", "trc20_usdt"] {
            let placed = world.place(coin).await;
            let paid = python::run("tronpay", wish(&world, &placed)).await.unwrap_or_else(|e| panic!("{e}"));
            confirm(&world, &placed, paid).await;
        }
    }
}
