//! CO-52 to CO-59 and CO-64: the order status from creation to delivery.

use std::collections::BTreeSet;

use chain::Amount;
use serde_json::json;

use super::{EMAIL, created, credentials, ip, on_chain, refused, with_method};
use crate::placed_order::PlacedOrder;
use crate::world::World;

async fn place_order(world: &World, quantity: u32, coin: &'static str) -> PlacedOrder {
    let answer = world.post("/api/orders", &on_chain(&world.product, quantity, coin)).await;
    created(&answer);
    PlacedOrder::parse(&answer.body, coin, &world.asset(coin))
}

/// Underpays by the smallest amount possible.
fn subtract_one_unit(due: Amount) -> Amount {
    due.checked_sub(Amount::from_units(1)).expect("more than one unit")
}

async fn states(world: &World, id: &str) -> (String, String, String) {
    let answer = world.status(id).await;
    (answer.text_at("status"), answer.text_at("payment_status"), answer.text_at("fulfillment_status"))
}

fn to_status_triple(status: &str, payment: &str, fulfillment: &str) -> (String, String, String) {
    (status.into(), payment.into(), fulfillment.into())
}

both! {
    async fn co_52_the_status_has_a_payment_and_a_fulfilment_state(world: World) {
        let order = place_order(&world, 2, "trc20_usdt").await;
        let answer = world.status(&order.id).await;
        let expected = json!({
            "success": true, "order_id": order.id, "status": "pending", "payment_status": "pending",
            "fulfillment_status": "pending",
            "payment": {
                "coin": "trc20_usdt", "address": order.address, "expected_amount": world.decimal(order.coin, order.due), "received_amount": "0",
                "confirmations": 0, "required_confirmations": 1, "tx_hash": null, "qr_code": order.address, "expires_at": "2026-02-11T12:30:00Z",
            },
        });
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, expected);
    }

    async fn co_53_the_status_tells_nothing_about_the_buyer(world: World) {
        let (user, token) = world.user_with_balance(1_000, 0).await;
        let paid = world.post_as(&token, "/api/orders", &with_method(&world.product, 2, "balance_cny")).await;
        let order = place_order(&world, 2, "eth").await;
        world.pay_order(&order, order.due);
        world.mine_deep("eth");
        world.run_until_idle().await;
        let mut secrets = vec![EMAIL.to_owned(), "example.com".to_owned(), token, format!("\"{user}\""), order.order_no.clone()];
        for (n, order_no) in (1..).zip([paid.text_at("order.order_no"), order.order_no.clone()]) {
            secrets.extend(credentials(&world, &ip(n), &order_no).await);
        }
        for id in [paid.text_at("order.id"), order.id] {
            let answer = world.status(&id).await;
            assert_eq!(answer.text_at("status"), "completed");
            for secret in &secrets {
                assert!(!answer.text.contains(secret.as_str()), "{secret} in {}", answer.text);
            }
            for word in ["credential", "email", "user", "token"] {
                assert!(!answer.text.contains(word), "{word} in {}", answer.text);
            }
        }
    }

    async fn co_54_an_unknown_order_has_no_status(world: World) {
        let order = place_order(&world, 1, "eth").await;
        let unknown = uuid::Uuid::new_v4().to_string();
        for id in [unknown.as_str(), &order.order_no, "1", "%00", "%ff", "query", &order.id[..35]] {
            refused(&world.status(id).await, 404, "order_not_found");
        }
    }

    async fn co_55_a_confirmed_payment_completes_the_order(world: World) {
        let order = place_order(&world, 3, "erc20_usdt").await;
        assert_eq!(states(&world, &order.id).await, to_status_triple("pending", "pending", "pending"));
        let txid = world.pay_order(&order, order.due);
        world.mine("erc20_usdt", 1);
        world.run_until_idle().await;
        let answer = world.status(&order.id).await;
        assert_eq!(answer.text_at("payment_status"), "confirming");
        assert_eq!(answer.text_at("payment.received_amount"), world.decimal(order.coin, order.due));
        assert_eq!(answer.body["payment"]["confirmations"], json!(1));
        assert_eq!(answer.text_at("payment.tx_hash"), format!("0x{txid}"));
        world.mine("erc20_usdt", world.required_confirmations(&order).await - 1);
        world.run_until_idle().await;
        assert_eq!(states(&world, &order.id).await, to_status_triple("completed", "paid", "delivered"));
        assert_eq!(credentials(&world, &ip(1), &order.order_no).await.len(), 3);
    }

    async fn co_56_too_little_is_not_paid(world: World) {
        for coin in ["erc20_usdt", "btc"] {
            let order = place_order(&world, 2, coin).await;
            world.pay_order(&order, subtract_one_unit(order.due));
            world.mine_deep(coin);
            world.run_until_idle().await;
            assert_eq!(states(&world, &order.id).await, to_status_triple("pending", "underpaid", "pending"), "{coin}");
        }
    }

    async fn co_57_two_transfers_pay_together(world: World) {
        let order = place_order(&world, 2, "bep20_usdt").await;
        world.pay_order(&order, subtract_one_unit(order.due));
        world.mine_deep("bep20_usdt");
        world.run_until_idle().await;
        assert_eq!(states(&world, &order.id).await.1, "underpaid");
        world.pay("bep20_usdt", &order.address, "0.000000000000000001");
        world.mine_deep("bep20_usdt");
        world.run_until_idle().await;
        assert_eq!(states(&world, &order.id).await, to_status_triple("completed", "paid", "delivered"));
        assert_eq!(world.status(&order.id).await.text_at("payment.received_amount"), world.decimal(order.coin, order.due));
    }

    async fn co_58_too_few_confirmations_are_not_paid(world: World) {
        for coin in ["trc20_usdt", "erc20_usdt", "bnb"] {
            let order = place_order(&world, 2, coin).await;
            world.pay_order(&order, order.due);
            let needed = world.required_confirmations(&order).await;
            for confirmations in 1..needed {
                world.mine(coin, 1);
                world.run_until_idle().await;
                let answer = world.status(&order.id).await;
                assert_eq!(answer.text_at("payment_status"), "confirming", "{coin} {confirmations}");
                assert_eq!(answer.body["payment"]["confirmations"], json!(confirmations), "{coin}");
            }
            world.mine(coin, 1);
            world.run_until_idle().await;
            assert_eq!(states(&world, &order.id).await.1, "paid", "{coin}");
        }
    }

    async fn co_59_an_unpaid_order_expires_and_frees_its_stock(world: World) {
        let order = place_order(&world, 30, "trx").await;
        assert_eq!(world.stock(&world.product).await, 270);
        world.advance_seconds(30 * 60 - 1);
        world.mine("trx", 1);
        world.run_until_idle().await;
        assert_eq!(states(&world, &order.id).await.0, "pending", "the window is open to its end");
        assert_eq!(world.stock(&world.product).await, 270);
        world.advance_seconds(62);
        world.mine("trx", 1);
        world.run_until_idle().await;
        assert_eq!(states(&world, &order.id).await, to_status_triple("expired", "expired", "pending"));
        assert_eq!(world.stock(&world.product).await, 300);
        world.pay_order(&order, order.due);
        world.mine_deep("trx");
        world.run_until_idle().await;
        assert_eq!(states(&world, &order.id).await.0, "expired", "nothing leaves that state");
    }

    async fn co_64_no_item_is_delivered_twice(world: World) {
        let product = world.new_product("shared", 100, 1, 40).await;
        let (_, token) = world.user_with_balance(100_000, 0).await;
        let mut numbers = Vec::new();
        for quantity in [1, 2, 5, 3] {
            let answer = world.post_as(&token, "/api/orders", &with_method(&product, quantity, "balance_cny")).await;
            created(&answer);
            numbers.push(answer.text_at("order.order_no"));
            let order = world.post("/api/orders", &on_chain(&product, quantity, "eth")).await;
            created(&order);
            world.pay("eth", &order.text_at("payment.address"), &order.text_at("payment.expected_amount"));
            numbers.push(order.text_at("order.order_no"));
        }
        world.mine_deep("eth");
        world.crash_and_boot().await;
        world.run_until_idle().await;
        let (mut delivered, mut distinct) = (0, BTreeSet::new());
        for (n, order_no) in (1..).zip(&numbers) {
            let lines = credentials(&world, &ip(n), order_no).await;
            delivered += lines.len();
            distinct.extend(lines);
        }
        assert_eq!((delivered, distinct.len()), (22, 22));
        assert_eq!(world.stock(&product).await, 18);
    }

    async fn an_external_order_expires_too(world: World = |config| {
        config.surfaces.checkout.alipay_url = "https://pay.example/{order_no}".into();
    }) {
        let answer = world.post("/api/orders", &with_method(&world.product, 5, "alipay")).await;
        let id = created(&answer);
        assert_eq!(world.stock(&world.product).await, 295);
        world.advance_seconds(30 * 60 + 61);
        world.run_until_idle().await;
        assert_eq!(states(&world, &id).await, to_status_triple("expired", "expired", "pending"));
        assert_eq!(world.stock(&world.product).await, 300);
    }
}
