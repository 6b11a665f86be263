//! Stories of money that is on its way and in no block yet, on the model chain of Bitcoin.

use chain::{Amount, ChainId};
use money::ledger::{Account, Suspense};
use shop::orders::{self, CancelError};
use simnet::ReplacedTxs;

use crate::world::{Answer, World};

struct Placed {
    id: String,
    address: String,
    due: String,
}

async fn place(world: &World) -> Placed {
    let answer = world.order(2, "btc").await;
    Placed {
        id: answer.text_at("order.id"),
        address: answer.text_at("payment.address"),
        due: answer.text_at("payment.expected_amount"),
    }
}

fn bitcoin(world: &World) -> ChainId {
    world.chain_of("btc")
}

async fn expect(world: &World, placed: &Placed, status: &str, payment_status: &str) -> Answer {
    world.run_until_idle().await;
    let answer = world.status(&placed.id).await;
    let states = (answer.text_at("status"), answer.text_at("payment_status"));
    assert_eq!(states, (status.to_owned(), payment_status.to_owned()), "{}", answer.text);
    answer
}

async fn cancel(world: &World, placed: &Placed) -> Result<(), CancelError> {
    let (now, id) = (world.clock.now(), placed.id.clone());
    let cancelled = world.db.write("cancel", move |tx| {
        Box::pin(async move {
            let found = orders::find_by_number_or_id(tx, &id).await?.ok_or(CancelError::NotFound)?;
            orders::cancel(tx, now, found.order.id).await
        })
    });
    cancelled.await
}

both! {
    async fn money_in_the_mempool_shows_and_confirms_nothing(world: World) {
        let placed = place(&world).await;
        let txid = world.pay("btc", &placed.address, &placed.due);
        let answer = expect(&world, &placed, "pending", "confirming").await;
        assert_eq!(answer.text_at("payment.received_amount"), placed.due);
        assert_eq!(answer.text_at("payment.tx_hash"), txid.to_string());
        assert_eq!(answer.body["payment"]["confirmations"], 0);
        let incoming = Account::MerchantIncoming(world.shop.merchant);
        let booked = world.account(world.shop.mode, incoming, world.asset("btc").id).await;
        assert_eq!((booked.credits_posted, booked.credits_pending), (Amount::ZERO, Amount::ZERO), "it is no money yet");
        world.mine("btc", 1);
        let answer = expect(&world, &placed, "completed", "paid").await;
        assert_eq!(answer.text_at("payment.received_amount"), placed.due, "it is not counted twice");
    }

    async fn a_dropped_transaction_is_forgotten_and_another_one_pays(world: World) {
        let placed = place(&world).await;
        world.pay("btc", &placed.address, &placed.due);
        expect(&world, &placed, "pending", "confirming").await;
        world.simnet.drop_mempool(&bitcoin(&world));
        let answer = expect(&world, &placed, "pending", "pending").await;
        assert_eq!(answer.text_at("payment.received_amount"), "0");
        assert!(answer.body["payment"].get("tx_hash").is_none_or(serde_json::Value::is_null), "{}", answer.text);
        world.pay("btc", &placed.address, &placed.due);
        expect(&world, &placed, "pending", "confirming").await;
        world.mine("btc", 1);
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn what_was_seen_in_time_pays_whenever_it_is_mined(world: World) {
        let placed = place(&world).await;
        let other = place(&world).await;
        world.simnet.set_mempool_held(&bitcoin(&world), true);
        world.pay("btc", &placed.address, &placed.due);
        expect(&world, &placed, "pending", "confirming").await;
        world.advance_seconds(3 * 3_600);
        world.mine("btc", 3);
        expect(&world, &placed, "pending", "confirming").await;
        expect(&world, &other, "expired", "expired").await;
        world.simnet.set_mempool_held(&bitcoin(&world), false);
        world.mine("btc", 1);
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn what_was_seen_in_the_grace_is_in_time_too(world: World) {
        let placed = place(&world).await;
        world.simnet.set_mempool_held(&bitcoin(&world), true);
        world.advance_seconds(30 * 60 + 30);
        world.pay("btc", &placed.address, &placed.due);
        expect(&world, &placed, "pending", "confirming").await;
        world.advance_seconds(3_600);
        world.mine("btc", 1);
        expect(&world, &placed, "pending", "confirming").await;
        world.simnet.set_mempool_held(&bitcoin(&world), false);
        world.mine("btc", 1);
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn an_order_cannot_be_taken_back_while_money_is_on_its_way(world: World) {
        let placed = place(&world).await;
        world.pay("btc", &placed.address, &placed.due);
        expect(&world, &placed, "pending", "confirming").await;
        assert!(matches!(cancel(&world, &placed).await, Err(CancelError::MoneyArrived)));
        world.simnet.drop_mempool(&bitcoin(&world));
        expect(&world, &placed, "pending", "pending").await;
        cancel(&world, &placed).await.unwrap();
        expect(&world, &placed, "cancelled", "expired").await;
    }

    async fn dust_on_its_way_holds_up_nothing(world: World) {
        let placed = place(&world).await;
        world.pay("btc", &placed.address, "0.00000001");
        expect(&world, &placed, "pending", "pending").await;
        cancel(&world, &placed).await.unwrap();
        world.mine_deep("btc");
        expect(&world, &placed, "cancelled", "expired").await;
    }

    async fn nothing_more_is_asked_for_when_the_window_is_over(world: World) {
        let placed = place(&world).await;
        let due = Amount::parse_decimal(&placed.due, 8).unwrap();
        world.simnet.set_mempool_held(&bitcoin(&world), true);
        world.pay("btc", &placed.address, &due.checked_mul_ratio(1, 2).unwrap().to_decimal(8));
        let answer = expect(&world, &placed, "pending", "confirming").await;
        assert!(answer.text_at("payment.qr_code").starts_with("bitcoin:"), "the rest: {}", answer.text);
        world.advance_seconds(30 * 60 + 1);
        let answer = expect(&world, &placed, "pending", "confirming").await;
        assert!(answer.body["payment"]["qr_code"].is_null(), "{}", answer.text);
    }

    async fn what_nobody_mines_for_a_day_holds_nothing_any_more(world: World) {
        let placed = place(&world).await;
        world.simnet.set_mempool_held(&bitcoin(&world), true);
        world.pay("btc", &placed.address, &placed.due);
        expect(&world, &placed, "pending", "confirming").await;
        world.advance_seconds(25 * 3_600);
        world.mine("btc", 1);
        expect(&world, &placed, "expired", "expired").await;
        world.simnet.set_mempool_held(&bitcoin(&world), false);
        world.mine_deep("btc");
        expect(&world, &placed, "expired", "expired").await;
        let late = Account::Suspense(world.shop.merchant, Suspense::Late);
        let kept = world.account(world.shop.mode, late, world.asset("btc").id).await.available();
        assert_eq!(kept.to_decimal(8), placed.due, "and still it is booked");
    }

    async fn what_a_reorganisation_puts_back_is_on_its_way_again(world: World) {
        let placed = place(&world).await;
        world.pay("btc", &placed.address, &placed.due);
        expect(&world, &placed, "pending", "confirming").await;
        world.mine("btc", 1);
        expect(&world, &placed, "completed", "paid").await;
        world.simnet.set_mempool_held(&bitcoin(&world), true);
        world.simnet.reorg(&bitcoin(&world), 1, ReplacedTxs::Remine, world.clock.now().unix_seconds());
        expect(&world, &placed, "completed", "confirming").await;
        world.simnet.set_mempool_held(&bitcoin(&world), false);
        world.mine("btc", 1);
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn a_transaction_on_its_way_to_two_orders_shows_at_both(world: World) {
        let (first, second) = (place(&world).await, place(&world).await);
        let asset = world.asset("btc");
        let payments = [&first, &second].map(|placed| {
            (asset.id.clone(), placed.address.clone(), Amount::parse_decimal(&placed.due, asset.decimals).unwrap())
        });
        world.simnet.pay_many(&asset.chain, payments.to_vec()).unwrap();
        expect(&world, &first, "pending", "confirming").await;
        expect(&world, &second, "pending", "confirming").await;
        world.mine("btc", 1);
        expect(&world, &first, "completed", "paid").await;
        expect(&world, &second, "completed", "paid").await;
    }
}
