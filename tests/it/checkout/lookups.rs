//! CO-42 to CO-51: Query Order needs the order number and e-mail address, and guessing is rate limited.

use serde_json::json;

use super::{EMAIL, count, created, credentials, found, ip, on_chain, query, refused, with, with_method};
use crate::world::{Answer, World};

/// Creates an order that waits for payment.
async fn open_order(world: &World) -> String {
    world.order(2, "eth").await.text_at("order.order_no")
}

/// Creates an order of `quantity` pieces that is paid and delivered.
async fn completed_order(world: &World, quantity: u32) -> String {
    let (_, token) = world.user_with_balance(100_000, 0).await;
    let answer = world.post_as(&token, "/api/orders", &with_method(&world.product, quantity, "balance_cny")).await;
    created(&answer);
    world.run_until_idle().await;
    answer.text_at("order.order_no")
}

async fn query_by_body(world: &World, ip: &str, body: serde_json::Value) -> Answer {
    world.send(world.request("POST", "/api/orders/query").header("x-forwarded-for", ip).json(&body)).await
}

fn retry_after(answer: &Answer) -> i64 {
    refused(answer, 429, "rate_limited");
    answer.header("retry-after").expect("Retry-After").parse().expect("whole seconds")
}

both! {
    async fn co_42_number_and_address_find_the_order(world: World) {
        let order = world.order(2, "eth").await;
        let order_no = order.text_at("order.order_no");
        let answer = query(&world, &ip(1), &order_no, EMAIL).await;
        found(&answer);
        let expected = json!({
            "id": order.body["order"]["id"], "order_no": order_no, "status": "pending", "payment_status": "pending",
            "fulfillment_status": "pending", "product_id": world.product.id, "quantity": 2, "amount": 1, "currency": "CNY",
            "payment_method": "crypto", "created_at": "2026-02-11T12:00:00Z", "credentials": null,
        });
        assert_eq!(answer.body["order"], expected);
        // Every spelling of the e-mail address finds the order.
        found(&query(&world, &ip(2), &order_no, "  BUYER@Example.COM ").await);
        world.advance_seconds(60);
        found(&query_by_body(&world, &ip(3), json!({"orderNo": order_no, "email": EMAIL})).await);
    }

    async fn one_address_in_two_spellings_finds_the_order(world: World) {
        let spellings = [
            "K\u{e4}ufer@b\u{fc}cher.example", "Ka\u{308}ufer@bu\u{308}cher.example", "k\u{e4}ufer@xn--bcher-kva.example",
            "K\u{c4}UFER@B\u{dc}CHER.EXAMPLE", "k\u{e4}ufer@b\u{fc}cher\u{3002}example", "k\u{e4}ufer@XN--BCHER-KVA.example",
        ];
        for ordered in spellings {
            let answer = world.post("/api/orders", &with(on_chain(&world.product, 1, "eth"), "contactEmail", json!(ordered))).await;
            created(&answer);
            let order_no = answer.text_at("order.order_no");
            for (n, searched) in (0..).zip(spellings) {
                world.advance_seconds(60);
                found(&query_by_body(&world, &ip(n), json!({"orderNo": order_no, "email": searched})).await);
            }
        }
        // The limit of look-ups counts the spellings together.
        let order_no = world.order(1, "eth").await.text_at("order.order_no");
        for (n, searched) in (10..).zip(&spellings[..2]) {
            refused(&query_by_body(&world, &ip(n), json!({"orderNo": order_no, "email": searched})).await, 404, "order_not_found");
        }
        retry_after(&query_by_body(&world, &ip(12), json!({"orderNo": order_no, "email": spellings[2]})).await);
    }

    async fn co_43_both_fields_are_needed(world: World) {
        let order_no = open_order(&world).await;
        let (number, email) = (format!("orderNo={order_no}"), "email=buyer%40example.com".to_owned());
        for (n, parts) in (0..).zip([vec![&number], vec![&email], vec![], vec![&number, &"email=".to_owned()]]) {
            let parts: Vec<&str> = parts.into_iter().map(String::as_str).collect();
            let answer = world.get_from(&ip(n), &format!("/api/orders/query?{}", parts.join("&"))).await;
            refused(&answer, 400, "validation_error");
        }
        refused(&world.get("/api/orders/query").await, 400, "validation_error");
        for (n, body) in (10..).zip([json!({"orderNo": order_no}), json!({"email": EMAIL}), json!({}), json!({"orderNo": 5, "email": EMAIL})]) {
            refused(&query_by_body(&world, &ip(n), body).await, 400, "validation_error");
        }
    }

    async fn co_44_a_wrong_address_looks_like_an_unknown_number(world: World) {
        let order_no = open_order(&world).await;
        let wrong_address = query(&world, &ip(1), &order_no, "other@example.com").await;
        let unknown_number = query(&world, &ip(2), "CO20260211AAAAAAAAAAAA", EMAIL).await;
        refused(&wrong_address, 404, "order_not_found");
        assert_eq!(wrong_address.text, unknown_number.text);
        assert_eq!(wrong_address.status, unknown_number.status);
        let names = |answer: &Answer| answer.headers.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&wrong_address), names(&unknown_number));
        refused(&query(&world, &ip(3), &order_no.to_lowercase(), "%").await, 404, "order_not_found");
    }

    async fn co_45_a_completed_order_has_its_credentials(world: World) {
        for (n, quantity) in [(1, 1_u32), (2, 3), (3, 200)] {
            let order_no = completed_order(&world, quantity).await;
            let lines = credentials(&world, &ip(n), &order_no).await;
            assert_eq!(u32::try_from(lines.len()), Ok(quantity));
            assert!(lines.iter().all(|line| line.contains("@example.org----pass-")), "{lines:?}");
            assert_eq!(lines, credentials(&world, &ip(n), &order_no).await, "the same each time");
        }
    }

    async fn co_46_an_order_that_is_not_completed_has_none(world: World) {
        let unpaid = open_order(&world).await;
        let (_, token) = world.user_with_balance(1_000, 0).await;
        let body = with_method(&world.product, 2, "balance_cny");
        // The order is paid and no worker has run since.
        let paid = world.post_as(&token, "/api/orders", &body).await.text_at("order.order_no");
        for (n, (order_no, status)) in (1..).zip([(&unpaid, "pending"), (&paid, "paid")]) {
            let answer = query(&world, &ip(n), order_no, EMAIL).await;
            found(&answer);
            assert_eq!(answer.text_at("order.status"), status);
            assert_eq!(answer.body["order"]["credentials"], json!(null));
            assert!(!answer.text.contains("pass-"));
        }
        world.advance_seconds(30 * 60 + 61);
        world.mine("eth", 1);
        world.run_until_idle().await;
        let expired = query(&world, &ip(9), &unpaid, EMAIL).await;
        assert_eq!(expired.text_at("order.status"), "expired");
        assert_eq!(expired.body["order"]["credentials"], json!(null));
    }

    async fn co_47_one_client_asks_three_times_a_minute(world: World) {
        for n in 0..3 {
            let order_no = open_order(&world).await;
            found(&query(&world, &ip(1), &order_no, EMAIL).await);
            world.advance_seconds(n);
        }
        let fourth = open_order(&world).await;
        refused(&query(&world, &ip(1), &fourth, EMAIL).await, 429, "rate_limited");
        refused(&query_by_body(&world, &ip(1), json!({"orderNo": fourth, "email": EMAIL})).await, 429, "rate_limited");
        found(&query(&world, &ip(2), &fourth, EMAIL).await);
    }

    async fn co_48_one_pair_is_asked_for_twice_a_minute(world: World) {
        let order_no = open_order(&world).await;
        found(&query(&world, &ip(1), &order_no, EMAIL).await);
        found(&query(&world, &ip(2), &order_no, "Buyer@Example.com").await);
        refused(&query(&world, &ip(3), &order_no, EMAIL).await, 429, "rate_limited");
        refused(&query_by_body(&world, &ip(4), json!({"orderNo": order_no, "email": EMAIL})).await, 429, "rate_limited");
        // Refused look-ups are not counted: the third client still has all of its look-ups.
        for _ in 0..3 {
            let other = open_order(&world).await;
            found(&query(&world, &ip(3), &other, EMAIL).await);
        }
    }

    async fn co_49_after_a_minute_both_limits_admit_again(world: World) {
        let order_no = open_order(&world).await;
        found(&query(&world, &ip(1), &order_no, EMAIL).await);
        found(&query(&world, &ip(1), &order_no, EMAIL).await);
        refused(&query(&world, &ip(2), &order_no, EMAIL).await, 429, "rate_limited");
        let other = open_order(&world).await;
        found(&query(&world, &ip(1), &other, EMAIL).await);
        refused(&query(&world, &ip(1), &other, EMAIL).await, 429, "rate_limited");
        world.advance_seconds(59);
        refused(&query(&world, &ip(1), &other, EMAIL).await, 429, "rate_limited");
        refused(&query(&world, &ip(2), &order_no, EMAIL).await, 429, "rate_limited");
        world.advance_seconds(1);
        found(&query(&world, &ip(1), &other, EMAIL).await);
        found(&query(&world, &ip(2), &order_no, EMAIL).await);
    }

    async fn co_50_a_refused_query_says_when_to_come_back(world: World) {
        let order_no = open_order(&world).await;
        found(&query(&world, &ip(1), &order_no, EMAIL).await);
        world.advance_seconds(10);
        found(&query(&world, &ip(2), &order_no, EMAIL).await);
        let wait = retry_after(&query(&world, &ip(3), &order_no, EMAIL).await);
        assert_eq!(wait, 50, "the first look-up leaves the window then");
        world.clock.advance_ms_unless_system(wait * 1000 - 1);
        assert_eq!(retry_after(&query(&world, &ip(3), &order_no, EMAIL).await), 1);
        world.clock.advance_ms_unless_system(1);
        found(&query(&world, &ip(3), &order_no, EMAIL).await);
    }

    async fn co_51_failed_lookups_count(world: World) {
        for n in 0..3 {
            refused(&query(&world, &ip(1), &format!("CO20260211AAAAAAAAAAA{n}"), EMAIL).await, 404, "order_not_found");
        }
        let order_no = open_order(&world).await;
        retry_after(&query(&world, &ip(1), &order_no, EMAIL).await);
        for n in 2..4 {
            refused(&query(&world, &ip(n), &order_no, "wrong@example.com").await, 404, "order_not_found");
        }
        retry_after(&query(&world, &ip(4), &order_no, "wrong@example.com").await);
    }

    async fn order_creation_is_rate_limited(world: World = |config| {
        config.surfaces.checkout.orders_per_ip_per_minute = 30;
    }) {
        let post = async |ip: &str| {
            let request = world.request("POST", "/api/orders").header("x-forwarded-for", ip);
            world.send(request.json(&on_chain(&world.product, 1, "eth"))).await
        };
        for _ in 0..30 {
            created(&post("10.1.1.1").await);
        }
        assert_eq!(retry_after(&post("10.1.1.1").await), 60);
        created(&post("10.1.1.2").await);
        world.advance_seconds(59);
        assert_eq!(retry_after(&post("10.1.1.1").await), 1);
        world.advance_seconds(1);
        created(&post("10.1.1.1").await);
        assert_eq!(count(&world, "select count(*) as n from orders").await, 32);
    }
}
