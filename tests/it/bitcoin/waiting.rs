//! What waits in the mempool is shown; what replaces it is what counts.

use chain::Amount;
use serde_json::json;

use super::{COIN, DEEP, NODE, Onchain, sats, split};

ways! {
    async fn a_replaced_payment_is_forgotten_and_its_replacement_pays(world: Onchain) {
        let placed = world.place().await;
        let coin = world.payer.take_utxo();
        let (less, _) = split(placed.due, 1, 2);
        let first = world.payer.sign(coin, &[(&placed.address, sats(less))], 2_000, true).unwrap();
        world.payer.send(world.node(), &first).await.unwrap();
        world.run_until_idle().await;
        let answer = world.status(&placed.id).await;
        assert_eq!(answer.text_at("payment.tx_hash"), first.txid, "{}", answer.text);
        world.expect_received(&placed, less).await;

        let second = world.payer.sign(coin, &[(&placed.address, sats(placed.due))], 20_000, true).unwrap();
        world.payer.send(world.node(), &second).await.unwrap();
        world.run_until_idle().await;
        world.expect_received(&placed, placed.due).await;
        let answer = world.expect(&placed, "pending", "confirming").await;
        assert_eq!(answer.text_at("payment.tx_hash"), second.txid, "{}", answer.text);
        world.mine(1).await;
        world.expect(&placed, "completed", "paid").await;
        world.mine(DEEP).await;
        assert_eq!(world.earned(COIN).await, placed.due);
    }

    async fn a_payment_that_is_spent_otherwise_never_counts(world: Onchain) {
        let placed = world.place().await;
        let coin = world.payer.take_utxo();
        let payment = world.payer.sign(coin, &[(&placed.address, sats(placed.due))], 2_000, true).unwrap();
        world.payer.send(world.node(), &payment).await.unwrap();
        world.run_until_idle().await;
        world.expect(&placed, "pending", "confirming").await;
        // Back to the payer himself, in the mempool and then in a block.
        let theft = world.payer.sign(coin, &[(&world.payer.address(), 5_000)], 30_000, true).unwrap();
        world.payer.send(world.node(), &theft).await.unwrap();
        world.run_until_idle().await;
        world.expect(&placed, "pending", "pending").await;
        world.expect_received(&placed, Amount::ZERO).await;
        world.mine(DEEP).await;
        world.expect(&placed, "pending", "pending").await;
        assert_eq!(world.earned(COIN).await, Amount::ZERO);
    }

    async fn a_double_spend_in_another_branch_takes_the_credit_back(world: Onchain) {
        let placed = world.place().await;
        let coin = world.payer.take_utxo();
        let payment = world.payer.sign(coin, &[(&placed.address, sats(placed.due))], 2_000, false).unwrap();
        world.payer.send(world.node(), &payment).await.unwrap();
        world.mine(2).await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.pending(COIN).await, placed.due);
        // The same coin goes elsewhere in a longer branch.
        world.node().rollback(2).await.expect(NODE);
        let theft = world.payer.sign(coin, &[(&world.payer.address(), 5_000)], 30_000, false).unwrap();
        world.node().mine_only(&[theft.hex]).await.expect(NODE);
        world.mine(3).await;
        assert_eq!(world.pending(COIN).await, Amount::ZERO, "no credit outlives its block");
        world.expect_received(&placed, Amount::ZERO).await;
        let spent = world.node().rpc("gettxout", json!([payment.txid, 0])).await.expect(NODE);
        assert!(spent.is_null(), "the payment is gone for good: {spent}");
        assert!(world.audit().await.is_clean());
    }
}
