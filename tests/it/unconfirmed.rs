//! Stories of unconfirmed transfers, on the model chain of Bitcoin.

use chain::{Amount, ChainId};
use money::ledger::{Account, Suspense};
use shop::orders::{self, CancelError};
use simnet::ReplacedTxs;

use crate::placed_order::PlacedOrder;
use crate::world::{Answer, World};

fn bitcoin(world: &World) -> ChainId {
    world.chain_of("btc")
}

/// Runs the workers until they are idle, then compares the order's states.
async fn assert_status_when_idle(world: &World, order: &PlacedOrder, status: &str, payment_status: &str) -> Answer {
    world.run_until_idle().await;
    world.assert_status(order, status, payment_status).await
}

async fn cancel(world: &World, order: &PlacedOrder) -> Result<(), CancelError> {
    let (now, id) = (world.clock.now(), order.id.clone());
    let cancelled = world.db.write("cancel", move |tx| {
        Box::pin(async move {
            let found = orders::find_any_shop_order_by_number_or_id(tx, &id).await?.ok_or(CancelError::NotFound)?;
            orders::cancel_unpaid_order(tx, now, found.order.id).await
        })
    });
    cancelled.await
}

both! {
    async fn a_mempool_payment_is_shown_and_not_confirmed(world: World) {
        let order = world.place_order("btc").await;
        let txid = world.pay_order(&order, order.due);
        let answer = assert_status_when_idle(&world, &order, "pending", "confirming").await;
        assert_eq!(answer.text_at("payment.received_amount"), world.decimal("btc", order.due));
        assert_eq!(answer.text_at("payment.tx_hash"), txid.to_string());
        assert_eq!(answer.body["payment"]["confirmations"], 0);
        let incoming = Account::MerchantIncoming(world.shop.merchant);
        let booked = world.account(world.shop.mode, incoming, world.asset("btc").id).await;
        assert_eq!((booked.credits_posted, booked.credits_pending), (Amount::ZERO, Amount::ZERO), "it is no money yet");
        world.mine("btc", 1);
        let answer = assert_status_when_idle(&world, &order, "completed", "paid").await;
        assert_eq!(answer.text_at("payment.received_amount"), world.decimal("btc", order.due), "it is not counted twice");
    }

    async fn a_dropped_transaction_is_removed_and_a_new_one_pays(world: World) {
        let order = world.place_order("btc").await;
        world.pay_order(&order, order.due);
        assert_status_when_idle(&world, &order, "pending", "confirming").await;
        world.simnet.drop_mempool(&bitcoin(&world));
        let answer = assert_status_when_idle(&world, &order, "pending", "pending").await;
        assert_eq!(answer.text_at("payment.received_amount"), "0");
        assert!(answer.body["payment"].get("tx_hash").is_none_or(serde_json::Value::is_null), "{}", answer.text);
        world.pay_order(&order, order.due);
        assert_status_when_idle(&world, &order, "pending", "confirming").await;
        world.mine("btc", 1);
        assert_status_when_idle(&world, &order, "completed", "paid").await;
    }

    async fn a_payment_seen_in_time_pays_whenever_it_is_mined(world: World) {
        let order = world.place_order("btc").await;
        let other = world.place_order("btc").await;
        world.simnet.set_mempool_held(&bitcoin(&world), true);
        world.pay_order(&order, order.due);
        assert_status_when_idle(&world, &order, "pending", "confirming").await;
        world.advance_seconds(3 * 3_600);
        world.mine("btc", 3);
        assert_status_when_idle(&world, &order, "pending", "confirming").await;
        assert_status_when_idle(&world, &other, "expired", "expired").await;
        world.simnet.set_mempool_held(&bitcoin(&world), false);
        world.mine("btc", 1);
        assert_status_when_idle(&world, &order, "completed", "paid").await;
    }

    async fn a_payment_seen_in_the_grace_period_is_in_time(world: World) {
        let order = world.place_order("btc").await;
        world.simnet.set_mempool_held(&bitcoin(&world), true);
        world.advance_seconds(30 * 60 + 30);
        world.pay_order(&order, order.due);
        assert_status_when_idle(&world, &order, "pending", "confirming").await;
        world.advance_seconds(3_600);
        world.mine("btc", 1);
        assert_status_when_idle(&world, &order, "pending", "confirming").await;
        world.simnet.set_mempool_held(&bitcoin(&world), false);
        world.mine("btc", 1);
        assert_status_when_idle(&world, &order, "completed", "paid").await;
    }

    async fn an_order_cannot_be_cancelled_while_a_transfer_is_unconfirmed(world: World) {
        let order = world.place_order("btc").await;
        world.pay_order(&order, order.due);
        assert_status_when_idle(&world, &order, "pending", "confirming").await;
        assert!(matches!(cancel(&world, &order).await, Err(CancelError::MoneyArrived)));
        world.simnet.drop_mempool(&bitcoin(&world));
        assert_status_when_idle(&world, &order, "pending", "pending").await;
        cancel(&world, &order).await.unwrap();
        assert_status_when_idle(&world, &order, "cancelled", "expired").await;
    }

    async fn unconfirmed_dust_does_not_prevent_cancelling(world: World) {
        let order = world.place_order("btc").await;
        world.pay("btc", &order.address, "0.00000001");
        assert_status_when_idle(&world, &order, "pending", "pending").await;
        cancel(&world, &order).await.unwrap();
        world.mine_deep("btc");
        assert_status_when_idle(&world, &order, "cancelled", "expired").await;
    }

    async fn no_qr_code_asks_for_the_rest_after_the_window(world: World) {
        let order = world.place_order("btc").await;
        let due = order.due;
        world.simnet.set_mempool_held(&bitcoin(&world), true);
        world.pay("btc", &order.address, &due.mul_ratio_rounded_down(1, 2).unwrap().to_decimal(8));
        let answer = assert_status_when_idle(&world, &order, "pending", "confirming").await;
        assert!(answer.text_at("payment.qr_code").starts_with("bitcoin:"), "the rest: {}", answer.text);
        world.advance_seconds(30 * 60 + 1);
        let answer = assert_status_when_idle(&world, &order, "pending", "confirming").await;
        assert!(answer.body["payment"]["qr_code"].is_null(), "{}", answer.text);
    }

    async fn a_transfer_not_mined_for_a_day_does_not_delay_expiry(world: World) {
        let order = world.place_order("btc").await;
        world.simnet.set_mempool_held(&bitcoin(&world), true);
        world.pay_order(&order, order.due);
        assert_status_when_idle(&world, &order, "pending", "confirming").await;
        world.advance_seconds(25 * 3_600);
        world.mine("btc", 1);
        assert_status_when_idle(&world, &order, "expired", "expired").await;
        world.simnet.set_mempool_held(&bitcoin(&world), false);
        world.mine_deep("btc");
        assert_status_when_idle(&world, &order, "expired", "expired").await;
        let late = Account::Suspense(world.shop.merchant, Suspense::Late);
        let kept = world.account(world.shop.mode, late, world.asset("btc").id).await.available_amount();
        assert_eq!(kept, order.due, "and still it is booked");
    }

    async fn a_transfer_removed_by_a_reorg_is_unconfirmed_again(world: World) {
        let order = world.place_order("btc").await;
        world.pay_order(&order, order.due);
        assert_status_when_idle(&world, &order, "pending", "confirming").await;
        world.mine("btc", 1);
        assert_status_when_idle(&world, &order, "completed", "paid").await;
        world.simnet.set_mempool_held(&bitcoin(&world), true);
        world.simnet.reorg(&bitcoin(&world), 1, ReplacedTxs::Remine, world.clock.now().unix_seconds());
        assert_status_when_idle(&world, &order, "completed", "confirming").await;
        world.simnet.set_mempool_held(&bitcoin(&world), false);
        world.mine("btc", 1);
        assert_status_when_idle(&world, &order, "completed", "paid").await;
    }

    async fn an_unconfirmed_transaction_to_two_orders_is_shown_at_both(world: World) {
        let (first, second) = (world.place_order("btc").await, world.place_order("btc").await);
        let asset = world.asset("btc");
        let payments = [&first, &second].map(|order| {
            (asset.id.clone(), order.address.clone(), order.due)
        });
        world.simnet.pay_many(&asset.chain, payments.to_vec()).unwrap();
        assert_status_when_idle(&world, &first, "pending", "confirming").await;
        assert_status_when_idle(&world, &second, "pending", "confirming").await;
        world.mine("btc", 1);
        assert_status_when_idle(&world, &first, "completed", "paid").await;
        assert_status_when_idle(&world, &second, "completed", "paid").await;
    }
}
