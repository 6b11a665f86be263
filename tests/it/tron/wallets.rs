//! Unmodified third-party wallets pay with only what the API returned. They encode, hash and sign with their own code,
//! so they verify the stand-in node, and with it the driver.

use provision::{node, python};
use serde_json::json;

use super::node::evm;
use super::{Onchain, PlacedOrder, account};

/// Returns the payment request for a wallet script: the data of the API's answer and the token's contract address.
fn build_payment_request(world: &Onchain, order: &PlacedOrder) -> serde_json::Value {
    let mut wish = json!({
        "node": world.gateways[0].url,
        "secret": "02".repeat(32),
        "to": order.address,
        "amount": order.due.to_string(),
        "now_ms": world.tron.node.model().head().header.timestamp,
    });
    if order.coin == "trc20_usdt" {
        wish["token"] = json!(chain::address::encode_tron_address(world.tron.usdt).text);
    }
    wish
}

/// Gives tokens to the second funded account.
async fn fund_second_account(world: &Onchain) {
    let (to, value) = (evm(world.tron.rich[1].account), alloy_primitives::U256::from(1_000_000_000_u64));
    world.tron.call(0, world.tron.usdt, provision::contracts::abi::Trc20Like::mintCall { to, value });
    world.settle().await;
}

async fn confirm(world: &Onchain, order: &PlacedOrder, paid: serde_json::Value) {
    let txid = paid["txid"].as_str().unwrap_or_else(|| panic!("{paid}"));
    world.produce(1).await;
    let answer = world.assert_status(order, "pending", "confirming").await;
    assert_eq!(answer.text_at("payment.tx_hash"), txid);
    world.settle().await;
    world.assert_status(order, "completed", "paid").await;
    assert_eq!(world.merchant_available(order.coin).await, order.due);
}

/// Returns the order's deposit address in the 20-byte form of the virtual machine.
fn recipient(order: &PlacedOrder) -> String {
    evm(account(order)).to_checksum(None)
}

/// Returns the transfer logs that viem reads through JSON-RPC, each with transaction, recipient and amount.
async fn logs_by_viem(world: &Onchain, orders: &[&PlacedOrder]) -> serde_json::Value {
    let recipients: Vec<String> = orders.iter().map(|order| recipient(order)).collect();
    let token = evm(world.tron.usdt).to_checksum(None);
    let question = json!({ "node": world.gateways[0].url, "token": token, "recipients": recipients });
    node::run_node_script("trc20-logs", question).await.unwrap_or_else(|e| panic!("{e}"))
}

both! {
    async fn viem_finds_the_logs_that_were_booked_and_a_phantom(world: Onchain) {
        let orders = [world.place_order("trc20_usdt").await, world.place_order("trc20_usdt").await, world.place_order("trc20_usdt").await];
        let [first, second, third] = &orders;
        let direct = world.pay(first, first.due);
        let batch = world.pay_by_contract(&[(second, second.due), (third, third.due)]);
        // OUT_OF_TIME: the transfer is not executed, but the node still returns its log.
        let phantom = world.pay(first, first.due);
        world.tron.node.force_out_of_time(phantom);
        world.settle().await;
        let said = logs_by_viem(&world, &[first, second, third]).await;
        let log = |txid: [u8; 32], order: &PlacedOrder| {
            let (txid, value) = (chain::TxId(txid).to_string(), order.due.to_string());
            json!({ "txid": txid, "to": recipient(order), "value": value })
        };
        let expected =
            json!([log(direct, first), log(batch, second), log(batch, third), log(phantom, first)]);
        assert_eq!(said["logs"], expected);
        for order in &orders {
            world.assert_status(order, "completed", "paid").await;
            world.assert_received(order, order.due).await;
        }
        let paid = chain::Amount::checked_sum(orders.iter().map(|order| order.due)).unwrap();
        assert_eq!(world.merchant_available("trc20_usdt").await, paid);
        let refused = json!({ "order": -32_602, "topics": -32_602, "hash": -32_602, "tag": -32_602, "send": -32_601 });
        assert_eq!(said["refused"], refused);
    }

    async fn tronweb_pays_trx_and_usdt(world: Onchain) {
        fund_second_account(&world).await;
        for coin in ["trx", "trc20_usdt"] {
            let order = world.place_order(coin).await;
            let paid = node::run_node_script("tronweb", build_payment_request(&world, &order)).await.unwrap_or_else(|e| panic!("{e}"));
            confirm(&world, &order, paid).await;
        }
    }

    async fn tronpy_pays_trx_and_usdt(world: Onchain) {
        fund_second_account(&world).await;
        for coin in ["trx", "trc20_usdt"] {
            let order = world.place_order(coin).await;
            let paid = python::run_python_script("tronpay", build_payment_request(&world, &order)).await.unwrap_or_else(|e| panic!("{e}"));
            confirm(&world, &order, paid).await;
        }
    }
}
