//! A payment in the mempool is shown. When another transaction replaces it, only the replacement counts.

use chain::Amount;
use serde_json::json;

use super::{COIN, DEEP, NODE, Onchain, sats, split};

ways! {
    async fn a_replaced_payment_is_forgotten_and_its_replacement_pays(world: Onchain) {
        let order = world.place_order().await;
        let coin = world.payer.take_utxo();
        let (less, _) = split(order.due, 1, 2);
        let first = world.payer.sign_payment(coin, &[(&order.address, sats(less))], 2_000, true).unwrap();
        world.payer.broadcast_payment(world.node(), &first).await.unwrap();
        world.run_until_idle().await;
        let answer = world.status(&order.id).await;
        assert_eq!(answer.text_at("payment.tx_hash"), first.txid, "{}", answer.text);
        world.assert_received(&order, less).await;

        let second = world.payer.sign_payment(coin, &[(&order.address, sats(order.due))], 20_000, true).unwrap();
        world.payer.broadcast_payment(world.node(), &second).await.unwrap();
        world.run_until_idle().await;
        world.assert_received(&order, order.due).await;
        let answer = world.assert_status(&order, "pending", "confirming").await;
        assert_eq!(answer.text_at("payment.tx_hash"), second.txid, "{}", answer.text);
        world.mine(1).await;
        world.assert_status(&order, "completed", "paid").await;
        world.mine(DEEP).await;
        assert_eq!(world.merchant_available(COIN).await, order.due);
    }

    async fn a_double_spent_unconfirmed_payment_never_counts(world: Onchain) {
        let order = world.place_order().await;
        let coin = world.payer.take_utxo();
        let payment = world.payer.sign_payment(coin, &[(&order.address, sats(order.due))], 2_000, true).unwrap();
        world.payer.broadcast_payment(world.node(), &payment).await.unwrap();
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        // The replacement pays back to the payer, first in the mempool and then in a block.
        let theft = world.payer.sign_payment(coin, &[(&world.payer.address(), 5_000)], 30_000, true).unwrap();
        world.payer.broadcast_payment(world.node(), &theft).await.unwrap();
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        world.assert_received(&order, Amount::ZERO).await;
        world.mine(DEEP).await;
        world.assert_status(&order, "pending", "pending").await;
        assert_eq!(world.merchant_available(COIN).await, Amount::ZERO);
    }

    async fn a_double_spend_in_another_branch_takes_the_credit_back(world: Onchain) {
        let order = world.place_order().await;
        let coin = world.payer.take_utxo();
        let payment = world.payer.sign_payment(coin, &[(&order.address, sats(order.due))], 2_000, false).unwrap();
        world.payer.broadcast_payment(world.node(), &payment).await.unwrap();
        world.mine(2).await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_pending(COIN).await, order.due);
        // A longer branch contains a transaction that spends the same output to another address.
        world.node().rollback(2).await.expect(NODE);
        let theft = world.payer.sign_payment(coin, &[(&world.payer.address(), 5_000)], 30_000, false).unwrap();
        world.node().mine_only(&[theft.hex]).await.expect(NODE);
        world.mine(3).await;
        assert_eq!(world.merchant_pending(COIN).await, Amount::ZERO, "no credit outlives its block");
        world.assert_received(&order, Amount::ZERO).await;
        let spent = world.node().call_rpc("gettxout", json!([payment.txid, 0])).await.expect(NODE);
        assert!(spent.is_null(), "the payment is gone for good: {spent}");
        assert!(world.audit().await.has_no_findings());
    }
}
