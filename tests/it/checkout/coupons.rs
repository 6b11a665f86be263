//! CO-38 to CO-41: prices with and without a coupon.

use money::pricing::Currency;
use serde_json::json;
use shop::coupons::{Discount, NewCoupon, Terms};

use super::{created, on_chain, orders, refused, with, with_method};
use crate::world::{Answer, World};

fn coupon(code: &str, discount: Discount) -> NewCoupon {
    NewCoupon { code: code.into(), terms: Terms::unrestricted(discount, Currency::CNY), max_uses: None }
}

/// Returns the original amount, the discount and the amount due as they are written in the response.
#[track_caller]
fn amounts(answer: &Answer, original: &str, discount: &str, due: &str) {
    created(answer);
    let expected = format!("\"original_amount\":{original},\"discount_amount\":{discount},\"amount\":{due},");
    assert!(answer.text.contains(&expected), "{expected} in {}", answer.text);
}

both! {
    async fn co_38_without_a_coupon_the_price_is_full(world: World) {
        world.coupon(coupon("SAVE10", Discount::Percent(1_000))).await;
        amounts(&world.post("/api/orders", &on_chain(&world.product, 10, "btc")).await, "5", "0", "5");
        let empty = with(on_chain(&world.product, 10, "btc"), "couponCode", json!(null));
        amounts(&world.post("/api/orders", &empty).await, "5", "0", "5");
    }

    async fn co_39_a_coupon_reduces_the_amount_due(world: World) {
        world.coupon(coupon("SAVE10", Discount::Percent(1_000))).await;
        world.coupon(coupon("MINUS2", Discount::Fixed(200))).await;
        world.coupon(coupon("ALL", Discount::Percent(10_000))).await;
        let order = |code: &str| with(on_chain(&world.product, 10, "trc20_usdt"), "couponCode", json!(code));
        let answer = world.post("/api/orders", &order("SAVE10")).await;
        amounts(&answer, "5", "0.5", "4.5");
        // The amount due is 4.5 CNY at 7.24 CNY/USD.
        assert_eq!(answer.text_at("payment.expected_amount"), "0.6216");
        amounts(&world.post("/api/orders", &order(" minus2 ")).await, "5", "2", "3");
        let free = world.post("/api/orders", &order("ALL")).await;
        amounts(&free, "5", "5", "0");
        assert_eq!(free.text_at("order.payment_status"), "paid");
        assert_eq!(free.body.get("payment"), None);
        let (user, token) = world.user_with_balance(1_000, 0).await;
        let by_balance = with(with_method(&world.product, 10, "balance_cny"), "couponCode", json!("SAVE10"));
        created(&world.post_as(&token, "/api/orders", &by_balance).await);
        assert_eq!(world.balance(user, "CNY").await, chain::Amount::from_units(550));
    }

    async fn co_40_an_unknown_or_expired_coupon_is_refused(world: World) {
        let now = world.clock.now();
        let over = Terms { ends_at: Some(now.plus_seconds(60)), ..Terms::unrestricted(Discount::Percent(1_000), Currency::CNY) };
        let early = Terms { starts_at: Some(now.plus_seconds(600)), ..Terms::unrestricted(Discount::Percent(1_000), Currency::CNY) };
        let large = Terms { min_amount: 501, ..Terms::unrestricted(Discount::Percent(1_000), Currency::CNY) };
        for (code, terms) in [("OVER", over), ("EARLY", early), ("LARGE", large)] {
            world.coupon(NewCoupon { code: code.into(), terms, max_uses: None }).await;
        }
        world.coupon(NewCoupon { max_uses: Some(1), ..coupon("ONCE", Discount::Fixed(1)) }).await;
        world.advance_seconds(60);
        let order = |code: &str| with(on_chain(&world.product, 10, "btc"), "couponCode", json!(code));
        for code in ["UNKNOWN", "OVER", "EARLY", "LARGE", &"x".repeat(500), "'; drop table coupons"] {
            refused(&world.post("/api/orders", &order(code)).await, 400, "coupon_invalid");
        }
        assert_eq!(orders(&world).await, 0);
        assert_eq!(world.stock(&world.product).await, 300);
        created(&world.post("/api/orders", &order("ONCE")).await);
        refused(&world.post("/api/orders", &order("ONCE")).await, 400, "coupon_invalid");
        assert_eq!(orders(&world).await, 1);
    }

    async fn co_41_due_is_price_times_quantity_less_discount(world: World) {
        world.coupon(coupon("THIRD", Discount::Percent(3_333))).await;
        let product = world.new_product("odd-price", 333, 1, 100).await;
        // The discounts are 33.33 % of 3.33 CNY × quantity, rounded down to fen. They were computed by hand.
        for (quantity, original, discount, due) in [(1, "3.33", "1.1", "2.23"), (7, "23.31", "7.76", "15.55"), (20, "66.6", "22.19", "44.41")] {
            let body = with(on_chain(&product, quantity, "eth"), "couponCode", json!("third"));
            amounts(&world.post("/api/orders", &body).await, original, discount, due);
        }
        amounts(&world.post("/api/orders", &on_chain(&product, 7, "eth")).await, "23.31", "0", "23.31");
    }
}
