//! CO-60 to CO-63: the payment configuration, error responses, malformed bodies, idempotent calls.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use super::{COINS, EMAIL, change, created, ip, on_chain, orders, query, refused, with, with_method};
use crate::world::{Answer, World};

async fn post_text(world: &World, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    world.send(world.request("POST", path).header("content-type", content_type).body(body)).await
}

async fn post_keyed(world: &World, key: &str, body: &serde_json::Value) -> Answer {
    world.send(world.request("POST", "/api/orders").header("idempotency-key", key).json(body)).await
}

both! {
    async fn co_60_the_payment_config_lists_all_five_methods(world: World) {
        let answer = world.get("/api/payment-config").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, json!({
            "success": true,
            "methods": {
                "crypto": {"enabled": true, "coins": COINS}, "balance_cny": {"enabled": true},
                "balance_crypto": {"enabled": true}, "alipay": {"enabled": false}, "wechat": {"enabled": false},
            },
        }));
    }

    async fn an_unavailable_payment_method_is_hidden_and_refused(world: World = |config| {
        config.surfaces.checkout.assets.remove("btc");
        config.chains.values_mut().find(|chain| chain.id.as_str() == "tron").expect("tron").enabled = false;
        config.rates.fixed.retain(|pair, _| pair.to_string() != "BNB/USD");
    }) {
        let answer = world.get("/api/payment-config").await;
        let offered = json!(["erc20_usdt", "bep20_usdt", "eth"]);
        assert_eq!(answer.body["methods"]["crypto"], json!({"enabled": true, "coins": offered}));
        for coin in ["btc", "trx", "trc20_usdt", "bnb"] {
            let answer = world.post("/api/orders", &on_chain(&world.product, 1, coin)).await;
            refused(&answer, 400, "payment_method_unavailable");
        }
        assert_eq!((orders(&world).await, world.stock(&world.product).await), (0, 300));
        created(&world.post("/api/orders", &on_chain(&world.product, 1, "eth")).await);
    }

    async fn co_61_every_refusal_has_one_shape(world: World = |config| {
        config.server.body_bytes_max = 4096;
    }) {
        let body = on_chain(&world.product, 1, "btc");
        let post = async |body| world.post("/api/orders", &body).await;
        let big = "x".repeat(5000);
        let (_, poor) = world.user_with_balance(0, 0).await;
        let mut codes = BTreeSet::new();
        for (answer, status, code) in [
            (post(json!({})).await, 400, "validation_error"),
            (post(with(body.clone(), "paymentMethod", json!("alipay"))).await, 400, "payment_method_unavailable"),
            (post(with(body.clone(), "couponCode", json!("NONE"))).await, 400, "coupon_invalid"),
            (post(with_method(&world.product, 1, "balance_cny")).await, 401, "unauthorized"),
            (world.post_as(&poor, "/api/orders", &with_method(&world.product, 1, "balance_cny")).await, 402, "insufficient_balance"),
            (post(with(body.clone(), "productId", json!(uuid::Uuid::nil()))).await, 404, "product_not_found"),
            (world.get("/api/products/none").await, 404, "product_not_found"),
            (world.status("none").await, 404, "order_not_found"),
            (query(&world, &ip(1), "CO1", EMAIL).await, 404, "order_not_found"),
            (world.get("/api/nothing").await, 404, "not_found"),
            (world.get("/api").await, 404, "not_found"),
            (world.get("/api/orders/a/b/c").await, 404, "not_found"),
            (world.get("/api/orders").await, 405, "method_not_allowed"),
            (world.send(world.request("DELETE", "/api/products")).await, 405, "method_not_allowed"),
            (world.send(world.request("PUT", "/api/orders/query")).await, 405, "method_not_allowed"),
            (world.post("/api/payment-config", &json!({})).await, 405, "method_not_allowed"),
            (post(with(body.clone(), "couponCode", json!(big))).await, 413, "validation_error"),
        ] {
            refused(&answer, status, code);
            assert!(answer.header("x-request-id").is_some());
            assert_eq!(answer.header("allow").is_some(), status == 405, "{}", answer.text);
            assert_eq!(answer.header("www-authenticate"), (status == 401).then_some("Bearer"));
            codes.insert(code);
        }
        let few = world.new_product("few", 100, 1, 1).await;
        refused(&post(on_chain(&few, 2, "btc")).await, 409, "insufficient_stock");
        query(&world, &ip(1), "CO2", EMAIL).await;
        query(&world, &ip(1), "CO3", EMAIL).await;
        refused(&query(&world, &ip(1), "CO4", EMAIL).await, 429, "rate_limited");
        assert_eq!(codes.len(), 9);
        assert_eq!(orders(&world).await, 0);
        // Internal errors reveal no details.
        change(&world, "alter table products rename to elsewhere").await;
        let broken = world.get("/api/products").await;
        change(&world, "alter table elsewhere rename to products").await;
        refused(&broken, 500, "internal_error");
        assert!(!broken.text.contains("products"), "{}", broken.text);
    }

    async fn co_62_malformed_json_is_refused(world: World = |config| {
        config.server.body_bytes_max = 1 << 20;
    }) {
        let deep = "[".repeat(50_000);
        let deep_object = "{\"a\":".repeat(50_000);
        let wide = format!("[{}0]", "0,".repeat(100_000));
        let bodies: [&[u8]; 16] = [
            b"", b"{", b"}", b"[]", b"null", b"\"text\"", b"1", b"{\"quantity\":}", b"{'quantity':1}", b"{} {}", b"{\"a\":1e999}",
            b"\xff\xfe", b"{\"productId\":\"\xc3\x28\"}", deep.as_bytes(), deep_object.as_bytes(), wide.as_bytes(),
        ];
        for path in ["/api/orders", "/api/orders/query"] {
            for body in bodies {
                let answer = post_text(&world, path, "application/json", body.to_vec()).await;
                refused(&answer, 400, "validation_error");
            }
            let valid = on_chain(&world.product, 1, "btc").to_string();
            for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "\u{e9}"] {
                refused(&post_text(&world, path, content_type, valid.clone()).await, 400, "validation_error");
            }
            let request = world.request("POST", path).body(valid);
            refused(&world.send(request).await, 400, "validation_error");
        }
        assert_eq!(orders(&world).await, 0);
    }

    async fn co_63_a_repeated_call_makes_no_second_order(world: World) {
        let body = on_chain(&world.product, 10, "trc20_usdt");
        let first = post_keyed(&world, "key-1", &body).await;
        created(&first);
        world.advance_seconds(5);
        // The repeated request may have the same fields in another order and spelling.
        let reordered = json!({
            "unknown": [1, 2], "coin": "trc20_usdt", "paymentMethod": "crypto", "contactEmail": EMAIL, "quantity": 10,
            "productId": world.product.id,
        });
        for again in [&body, &reordered] {
            let repeated = post_keyed(&world, "key-1", again).await;
            assert_eq!((repeated.status, &repeated.text), (first.status, &first.text));
        }
        world.crash_and_boot().await;
        assert_eq!(post_keyed(&world, "key-1", &body).await.text, first.text);
        assert_eq!((orders(&world).await, world.stock(&world.product).await), (1, 290));

        let other = with(body.clone(), "quantity", json!(11));
        refused(&post_keyed(&world, "key-1", &other).await, 409, "idempotency_conflict");
        created(&post_keyed(&world, "key-2", &body).await);
        created(&world.post("/api/orders", &body).await);
        assert_eq!(orders(&world).await, 3);
        for key in ["", " ", &"k".repeat(256), "\u{e9}"] {
            refused(&post_keyed(&world, key, &body).await, 400, "validation_error");
        }
        assert_eq!(orders(&world).await, 3);
    }

    async fn the_idempotency_key_of_a_refused_call_can_be_reused(world: World) {
        let product = world.new_product("few", 100, 1, 1).await;
        let body = on_chain(&product, 2, "eth");
        refused(&post_keyed(&world, "k", &body).await, 409, "insufficient_stock");
        world.import(&product, 1).await;
        created(&post_keyed(&world, "k", &body).await);
    }

    async fn concurrent_repeated_calls_create_one_order(world: World) {
        let (user, token) = world.user_with_balance(10_000, 0).await;
        let body = with_method(&world.product, 10, "balance_cny");
        let call = || world.request("POST", "/api/orders").header("idempotency-key", "once").bearer_auth(&token).json(&body);
        let answers = join_all((0..10).map(|_| world.send(call()))).await;
        let texts: BTreeSet<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
        assert_eq!(texts.len(), 1, "{texts:?}");
        created(&answers[0]);
        assert_eq!(orders(&world).await, 1);
        assert_eq!(world.balance(user, "CNY").await, chain::Amount::from_units(9_500));
        // The same idempotency key sent by another user counts as a different key.
        let (_, other) = world.user_with_balance(10_000, 0).await;
        let request = world.request("POST", "/api/orders").header("idempotency-key", "once").bearer_auth(&other).json(&body);
        created(&world.send(request).await);
        assert_eq!(orders(&world).await, 2);
    }
}
