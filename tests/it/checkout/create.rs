//! CO-10 to CO-26 and CO-35 to CO-37: orders without an account, and refused orders.

use std::collections::BTreeSet;

use alloy_primitives::Address;
use bitcoin::base58;
use config::Config;
use serde_json::{Value, json};

use super::{COINS, change, created, on_chain, orders, refused, with, with_method, without};
use crate::world::World;

/// Asserts that the order is refused with a validation error for the field and that no order was created.
async fn invalid(world: &World, body: Value, field: &str) {
    let answer = world.post("/api/orders", &body).await;
    refused(&answer, 400, "validation_error");
    assert!(answer.text_at("message").contains(field), "{field} in {}", answer.text);
    assert_eq!(orders(world).await, 0);
    assert_eq!(world.stock(&world.product).await, 300);
}

/// Validates an address with independent code for its network.
fn is_valid(coin: &str, address: &str) -> bool {
    match coin {
        "btc" => {
            let parsed: bitcoin::Address<_> = address.parse().expect("an address");
            let known = parsed.require_network(bitcoin::Network::Bitcoin).expect("of the main network");
            known.address_type() == Some(bitcoin::AddressType::P2wpkh)
        }
        "trc20_usdt" | "trx" => {
            let bytes = base58::decode_check(address).expect("Base58Check");
            bytes.len() == 21 && bytes[0] == 0x41 && address.starts_with('T')
        }
        // The capital letters of the address are a checksum (EIP-55).
        _ => Address::parse_checksummed(address, None).is_ok(),
    }
}

both! {
    async fn co_10_the_documented_body_creates_an_order(world: World) {
        let body = on_chain(&world.product, 10, "trc20_usdt");
        let answer = world.post("/api/orders", &body).await;
        created(&answer);
        let order = &answer.body["order"];
        for (field, value) in [
            ("status", json!("pending")), ("payment_status", json!("pending")), ("fulfillment_status", json!("pending")),
            ("product_id", json!(world.product.id)), ("quantity", json!(10)), ("currency", json!("CNY")),
            ("payment_method", json!("crypto")),
            ("created_at", json!("2026-02-11T12:00:00Z")), ("expires_at", json!("2026-02-11T12:30:00Z")),
        ] {
            assert_eq!(order[field], value, "{field}");
        }
        for digits in ["\"unit_price\":0.5,", "\"original_amount\":5,", "\"discount_amount\":0,", "\"amount\":5,"] {
            assert!(answer.text.contains(digits), "{digits} in {}", answer.text);
        }
        let number = answer.text_at("order.order_no");
        let (prefix, random) = number.split_at(10);
        assert_eq!(prefix, "CO20260211");
        // Each character of the alphabet has five bits. Letters that are easily confused are not in the alphabet.
        assert!(random.len() >= 10 && random.bytes().all(|b| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&b)));
        assert_eq!(answer.body["payment"]["expires_at"], order["expires_at"]);
    }

    async fn an_amount_that_nodes_do_not_relay_is_refused(world: World = |config: &mut Config| {
        config.surfaces.checkout.min_amounts = [("eth".to_owned(), "0.0001".parse().unwrap())].into();
    }) {
        // 1 CNY is 213 sat, and nodes relay 294 sat. 1.5 CNY is 319 sat.
        let answer = world.post("/api/orders", &on_chain(&world.product, 2, "btc")).await;
        assert_eq!((answer.status, answer.text_at("error").as_str()), (400, "payment_method_unavailable"));
        let expected = "the order costs 0.00000213 BTC, and payments in BTC start at 0.00000294; choose another payment method \
                        or order more";
        assert_eq!(answer.text_at("message"), expected);
        created(&world.post("/api/orders", &on_chain(&world.product, 3, "btc")).await);
        // The operator's minimum.
        let answer = world.post("/api/orders", &on_chain(&world.product, 2, "eth")).await;
        assert_eq!((answer.status, answer.text_at("error").as_str()), (400, "payment_method_unavailable"));
        created(&world.post("/api/orders", &on_chain(&world.product, 10, "eth")).await);
        created(&world.post("/api/orders", &on_chain(&world.product, 2, "trc20_usdt")).await);
    }

    async fn co_11_a_crypto_answer_has_an_address_and_an_exact_amount(world: World) {
        // The amounts are 5 CNY at 7.24 CNY/USD, rounded up to the fewest decimal places that cost at most 0.01 %. They were
        // computed independently of this program.
        for (coin, expected) in [
            ("trc20_usdt", "0.69061"), ("erc20_usdt", "0.69061"), ("bep20_usdt", "0.69061"), ("btc", "0.00001063"),
            ("eth", "0.00021582"), ("trx", "5.7551"), ("bnb", "0.0011908"),
        ] {
            let answer = world.post("/api/orders", &on_chain(&world.product, 10, coin)).await;
            created(&answer);
            assert_eq!(answer.text_at("payment.coin"), coin);
            assert_eq!(answer.text_at("payment.expected_amount"), expected, "{coin}");
            assert!(!answer.text_at("payment.address").is_empty());
            assert_eq!(answer.body["payment"].get("pay_url"), None);
            let address = answer.text_at("payment.address");
            let scanned = if coin == "btc" { format!("bitcoin:{address}?amount={expected}") } else { address };
            assert_eq!(answer.text_at("payment.qr_code"), scanned);
        }
    }

    async fn co_12_two_orders_never_share_an_address(world: World) {
        let mut addresses = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for round in 0..3 {
            for coin in COINS {
                let answer = world.post("/api/orders", &on_chain(&world.product, 1, coin)).await;
                created(&answer);
                assert!(addresses.insert(answer.text_at("payment.address")), "{round} {coin}");
                assert!(keys.insert(answer.text_at("order.order_no")));
            }
            world.crash_and_boot().await;
        }
        assert_eq!(addresses.len(), 21);
    }

    async fn co_13_every_coin_has_a_valid_address(world: World) {
        let config = world.get("/api/payment-config").await;
        assert_eq!(config.body["methods"]["crypto"], json!({"enabled": true, "coins": COINS}));
        for coin in COINS {
            let answer = world.post("/api/orders", &on_chain(&world.product, 1, coin)).await;
            created(&answer);
            assert!(is_valid(coin, &answer.text_at("payment.address")), "{coin} {}", answer.text);
        }
    }

    async fn co_14_crypto_needs_a_coin(world: World) {
        invalid(&world, without(on_chain(&world.product, 1, "btc"), "coin"), "coin").await;
        invalid(&world, with(on_chain(&world.product, 1, "btc"), "coin", Value::Null), "coin").await;
    }

    async fn co_15_an_unlisted_coin_is_refused(world: World) {
        for coin in [json!("doge"), json!("BTC"), json!(""), json!("usdt"), json!(1), json!(["btc"])] {
            invalid(&world, with(on_chain(&world.product, 1, "btc"), "coin", coin), "coin").await;
        }
    }

    async fn co_16_an_unlisted_method_is_refused(world: World) {
        for method in [json!("cash"), json!("Crypto"), json!(""), json!("balance"), json!(true), json!({})] {
            invalid(&world, with(on_chain(&world.product, 1, "btc"), "paymentMethod", method), "paymentMethod").await;
        }
    }

    async fn co_17_a_product_id_is_needed(world: World) {
        invalid(&world, without(on_chain(&world.product, 1, "btc"), "productId"), "productId").await;
    }

    async fn co_18_a_quantity_is_needed(world: World) {
        invalid(&world, without(on_chain(&world.product, 1, "btc"), "quantity"), "quantity").await;
    }

    async fn co_19_an_email_address_is_needed(world: World) {
        invalid(&world, without(on_chain(&world.product, 1, "btc"), "contactEmail"), "contactEmail").await;
    }

    async fn co_20_a_payment_method_is_needed(world: World) {
        invalid(&world, without(on_chain(&world.product, 1, "btc"), "paymentMethod"), "paymentMethod").await;
    }

    async fn co_21_an_email_address_is_valid(world: World) {
        for email in ["buyer", "buyer@", "@example.org", "a b@example.org", "a@b", "a@example.org\n", "<a@example.org>", "a@@example.org"] {
            invalid(&world, with(on_chain(&world.product, 1, "btc"), "contactEmail", json!(email)), "contactEmail").await;
        }
        let odd = with(on_chain(&world.product, 1, "btc"), "contactEmail", json!("  First.Last+tag@Mail.Example.org "));
        created(&world.post("/api/orders", &odd).await);
    }

    async fn co_22_a_slug_is_no_product_id(world: World) {
        invalid(&world, with(on_chain(&world.product, 1, "btc"), "productId", json!(world.product.slug)), "productId").await;
        let unknown = with(on_chain(&world.product, 1, "btc"), "productId", json!(uuid::Uuid::new_v4()));
        refused(&world.post("/api/orders", &unknown).await, 404, "product_not_found");
        assert_eq!(orders(&world).await, 0);
    }

    async fn co_23_the_minimum_quantity_is_enough(world: World) {
        let product = world.new_product("by-five", 100, 5, 20).await;
        refused(&world.post("/api/orders", &on_chain(&product, 4, "btc")).await, 400, "validation_error");
        assert_eq!(world.stock(&product).await, 20);
        created(&world.post("/api/orders", &on_chain(&product, 5, "btc")).await);
        assert_eq!(world.stock(&product).await, 15);
    }

    async fn co_24_two_hundred_is_the_most(world: World) {
        let many = world.new_product("many", 50, 1, 300).await;
        change(&world, "update products set max_quantity = 500 where slug = 'many'").await;
        // The maximum of 200 holds even if the product allows more.
        for product in [&world.product, &many] {
            invalid(&world, on_chain(product, 201, "btc"), "200").await;
        }
        for product in [&world.product, &many] {
            created(&world.post("/api/orders", &on_chain(product, 200, "btc")).await);
            assert_eq!(world.stock(product).await, 100);
        }
    }

    async fn co_25_no_more_than_the_stock(world: World) {
        let product = world.new_product("few", 100, 1, 3).await;
        refused(&world.post("/api/orders", &on_chain(&product, 4, "btc")).await, 409, "insufficient_stock");
        assert_eq!(world.stock(&product).await, 3);
        assert_eq!(orders(&world).await, 0);
        created(&world.post("/api/orders", &on_chain(&product, 3, "btc")).await);
        refused(&world.post("/api/orders", &on_chain(&product, 1, "btc")).await, 409, "insufficient_stock");
        assert_eq!(world.stock(&product).await, 0);
    }

    async fn co_26_a_quantity_is_a_positive_integer(world: World) {
        for quantity in ["0", "-1", "1.5", "1.0", "1e1", "\"1\"", "true", "null", "[1]", "{}", "1e400", "99999999999999999999"] {
            let body = format!(
                r#"{{"productId":"{}","quantity":{quantity},"contactEmail":"a@example.org","paymentMethod":"crypto","coin":"btc"}}"#,
                world.product.id
            );
            let request = world.request("POST", "/api/orders").header("content-type", "application/json").body(body);
            refused(&world.send(request).await, 400, "validation_error");
        }
        for quantity in [4_294_967_296_u64, 4_294_967_297, u64::MAX] {
            invalid(&world, with(on_chain(&world.product, 1, "btc"), "quantity", json!(quantity)), "quantity").await;
        }
        assert_eq!(orders(&world).await, 0);
    }

    async fn co_35_crypto_and_external_orders_need_no_token(world: World = |config| {
        config.surfaces.checkout.alipay_url = "https://pay.example/alipay/{order_no}".into();
        config.surfaces.checkout.wechat_url = "https://pay.example/wechat/{order_no}".into();
    }) {
        created(&world.post("/api/orders", &on_chain(&world.product, 1, "btc")).await);
        for method in ["alipay", "wechat"] {
            created(&world.post("/api/orders", &with_method(&world.product, 1, method)).await);
        }
        // An invalid token is ignored if the payment method needs no token.
        for body in [on_chain(&world.product, 1, "eth"), with_method(&world.product, 1, "alipay")] {
            created(&world.post_as("expired", "/api/orders", &body).await);
        }
        assert_eq!(orders(&world).await, 5);
    }

    async fn co_36_alipay_follows_the_payment_config(world: World = |config| {
        config.surfaces.checkout.alipay_url = "https://pay.example/alipay/{order_no}".into();
    }) {
        external(&world, "alipay", "wechat").await;
    }

    async fn co_37_wechat_follows_the_payment_config(world: World = |config| {
        config.surfaces.checkout.wechat_url = "https://pay.example/wechat/{order_no}".into();
    }) {
        external(&world, "wechat", "alipay").await;
    }
}

/// Asserts that provider `on` is accepted with a link to its page and `off` is refused, as the payment configuration
/// reports.
async fn external(world: &World, on: &str, off: &str) {
    let config = world.get("/api/payment-config").await;
    assert_eq!(config.body["methods"][on], json!({"enabled": true}));
    assert_eq!(config.body["methods"][off], json!({"enabled": false}));

    let refusal = world.post("/api/orders", &with_method(&world.product, 1, off)).await;
    refused(&refusal, 400, "payment_method_unavailable");
    assert_eq!(orders(world).await, 0);

    // `coin` is ignored if the payment method is not `crypto`.
    let body = with(with_method(&world.product, 2, on), "coin", json!("nonsense"));
    let answer = world.post("/api/orders", &body).await;
    let id = created(&answer);
    let link = format!("https://pay.example/{on}/{}", answer.text_at("order.order_no"));
    assert_eq!(answer.text_at("payment.pay_url"), link);
    assert_eq!(answer.body["payment"].get("address"), None);
    assert_eq!(answer.text_at("order.payment_method"), on);
    let status = world.status(&id).await;
    assert_eq!(status.text_at("payment.pay_url"), link);
    assert_eq!(status.text_at("payment_status"), "pending");
}
