//! Unchanged wallets pay with nothing but what the API returned. They encode, hash and sign by code that nobody here
//! wrote, so they judge the stand-in, and with it the driver.

use provision::{node, python};
use serde_json::json;

use super::node::evm;
use super::{Onchain, Placed, account};

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
    let (to, value) = (evm(world.tron.rich[1].account), alloy_primitives::U256::from(1_000_000_000_u64));
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

/// Whom an order's payment reaches, as the virtual machine names him.
fn recipient(placed: &Placed) -> String {
    evm(account(placed)).to_checksum(None)
}

/// Logs as viem reads them through JSON-RPC: transaction, recipient, amount.
async fn logs_by_viem(world: &Onchain, orders: &[&Placed]) -> serde_json::Value {
    let recipients: Vec<String> = orders.iter().map(|placed| recipient(placed)).collect();
    let token = evm(world.tron.usdt).to_checksum(None);
    let question = json!({ "node": world.gateways[0].url, "token": token, "recipients": recipients });
    node::run_script("trc20-logs", question).await.unwrap_or_else(|e| panic!("{e}"))
}

both! {
    async fn viem_finds_the_logs_that_were_booked_and_a_phantom(world: Onchain) {
        let orders = [world.place("trc20_usdt").await, world.place("trc20_usdt").await, world.place("trc20_usdt").await];
        let [first, second, third] = &orders;
        let direct = world.pay(first, first.due);
        let batch = world.pay_by_contract(&[(second, second.due), (third, third.due)]);
        // Out of time: nothing moves, and the node shows a log of it all the same.
        let phantom = world.pay(first, first.due);
        world.tron.node.force_out_of_time(phantom);
        world.settle().await;
        let said = logs_by_viem(&world, &[first, second, third]).await;
        let log = |txid: [u8; 32], placed: &Placed| {
            let (txid, value) = (chain::TxId(txid).to_string(), placed.due.to_string());
            json!({ "txid": txid, "to": recipient(placed), "value": value })
        };
        let expected =
            json!([log(direct, first), log(batch, second), log(batch, third), log(phantom, first)]);
        assert_eq!(said["logs"], expected);
        for placed in &orders {
            world.expect(placed, "completed", "paid").await;
            world.expect_received(placed, placed.due).await;
        }
        let paid = chain::Amount::checked_sum(orders.iter().map(|placed| placed.due)).unwrap();
        assert_eq!(world.earned("trc20_usdt").await, paid);
        let refused = json!({ "order": -32_602, "topics": -32_602, "hash": -32_602, "tag": -32_602, "send": -32_601 });
        assert_eq!(said["refused"], refused);
    }

    async fn tronweb_pays_trx_and_usdt(world: Onchain) {
        fill(&world).await;
        for coin in ["trx", "trc20_usdt"] {
            let placed = world.place(coin).await;
            let paid = node::run_script("tronweb", wish(&world, &placed)).await.unwrap_or_else(|e| panic!("{e}"));
            confirm(&world, &placed, paid).await;
        }
    }

    async fn tronpy_pays_trx_and_usdt(world: Onchain) {
        fill(&world).await;
        for coin in ["trx", "trc20_usdt"] {
            let placed = world.place(coin).await;
            let paid = python::run_script("tronpay", wish(&world, &placed)).await.unwrap_or_else(|e| panic!("{e}"));
            confirm(&world, &placed, paid).await;
        }
    }
}
