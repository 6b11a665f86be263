//! CO-27 to CO-34: payments from a balance, and concurrent buyers.

use access::tokens::{self, Token};
use chain::{Amount, AssetId};
use futures_util::future::join_all;
use money::ledger::Account;
use serde_json::json;

use super::{change, created, on_chain, orders, refused, with_method};
use crate::world::World;

/// Asserts that no order, debit or reservation was made.
async fn assert_nothing_happened(world: &World) {
    assert_eq!(orders(world).await, 0);
    assert_eq!(world.stock(&world.product).await, 300);
}

async fn fetch_merchant_earnings(world: &World, currency: &str) -> Amount {
    let account = Account::MerchantAvailable(world.shop.merchant);
    world.account(world.shop.mode, account, AssetId::fiat(currency)).await.available_amount()
}

both! {
    async fn co_27_the_cny_balance_needs_a_token(world: World) {
        let body = with_method(&world.product, 2, "balance_cny");
        refused(&world.post("/api/orders", &body).await, 401, "unauthorized");
        assert_nothing_happened(&world).await;
    }

    async fn co_28_the_crypto_balance_needs_a_token(world: World) {
        let body = with_method(&world.product, 2, "balance_crypto");
        refused(&world.post("/api/orders", &body).await, 401, "unauthorized");
        assert_nothing_happened(&world).await;
    }

    async fn co_29_a_wrong_or_expired_token_is_refused(world: World) {
        let (user, token) = world.user_with_balance(10_000, 10_000_000).await;
        let (now, short) = (world.clock.now(), Token::generate(&mut rand::rng()));
        let short_lived = short.reveal_token().to_owned();
        let issued = world.db.write("issue", move |tx| {
            Box::pin(async move { tokens::store_token_hash(tx, now, user, &short, Some(now.plus_seconds(60))).await })
        });
        issued.await.expect("a token is issued");
        world.advance_seconds(60);
        let mut altered = token.clone();
        let last = if altered.ends_with('0') { '1' } else { '0' };
        altered.pop();
        altered.push(last);
        for method in ["balance_cny", "balance_crypto"] {
            let body = with_method(&world.product, 2, method);
            for wrong in [altered.as_str(), &short_lived, "ut_", "nonsense", &"a".repeat(5000)] {
                refused(&world.post_as(wrong, "/api/orders", &body).await, 401, "unauthorized");
            }
            for header in ["Bearer", "Basic dXNlcjpwYXNz", &token, &format!("Token {token}"), "Bearer \u{e9}"] {
                let request = world.request("POST", "/api/orders").header("authorization", header).json(&body);
                refused(&world.send(request).await, 401, "unauthorized");
            }
        }
        let revoked = token.clone();
        world.db.write("revoke", move |tx| Box::pin(async move { tokens::revoke_token(tx, now, &revoked).await })).await.expect("a revocation");
        refused(&world.post_as(&token, "/api/orders", &with_method(&world.product, 2, "balance_cny")).await, 401, "unauthorized");
        let (_, fresh) = world.user_with_balance(10_000, 10_000_000).await;
        change(&world, "update users set state = 'disabled'").await;
        refused(&world.post_as(&fresh, "/api/orders", &with_method(&world.product, 2, "balance_cny")).await, 401, "unauthorized");
        assert_nothing_happened(&world).await;
    }

    async fn co_30_the_cny_balance_pays_exactly_the_amount(world: World) {
        let (user, token) = world.user_with_balance(1_000, 7_000_000).await;
        let answer = world.post_as(&token, "/api/orders", &with_method(&world.product, 7, "balance_cny")).await;
        let id = created(&answer);
        assert_eq!(answer.text_at("order.status"), "paid");
        assert_eq!(answer.text_at("order.payment_status"), "paid");
        assert_eq!(answer.body["order"]["expires_at"], json!(null));
        assert_eq!(answer.body.get("payment"), None);
        assert_eq!(world.balance(user, "CNY").await, Amount::from_units(650), "10.00 less 7 times 0.50");
        assert_eq!(world.balance(user, "USD").await, Amount::from_units(7_000_000));
        assert_eq!(fetch_merchant_earnings(&world, "CNY").await, Amount::from_units(350));
        world.run_until_idle().await;
        assert_eq!(world.status(&id).await.text_at("status"), "completed");
        assert_eq!(world.balance(user, "CNY").await, Amount::from_units(650), "delivery takes nothing");
    }

    async fn co_31_the_crypto_balance_pays_exactly_the_converted_amount(world: World) {
        let (user, token) = world.user_with_balance(1_000, 7_000_000).await;
        let answer = world.post_as(&token, "/api/orders", &with_method(&world.product, 10, "balance_crypto")).await;
        created(&answer);
        assert_eq!(answer.text_at("order.status"), "paid");
        // 5 CNY at 7.24 CNY/USD are 0.690607… USD, which is rounded up to six decimals.
        assert_eq!(world.balance(user, "USD").await, Amount::from_units(7_000_000 - 690_608));
        assert_eq!(world.balance(user, "CNY").await, Amount::from_units(1_000));
        assert_eq!(fetch_merchant_earnings(&world, "USD").await, Amount::from_units(690_608));
    }

    async fn co_32_too_little_balance_changes_nothing(world: World) {
        let (user, token) = world.user_with_balance(499, 690_607).await;
        for method in ["balance_cny", "balance_crypto"] {
            let answer = world.post_as(&token, "/api/orders", &with_method(&world.product, 10, method)).await;
            refused(&answer, 402, "insufficient_balance");
        }
        assert_nothing_happened(&world).await;
        assert_eq!(world.balance(user, "CNY").await, Amount::from_units(499));
        assert_eq!(world.balance(user, "USD").await, Amount::from_units(690_607));
        let (_, stranger) = world.user_with_balance(0, 0).await;
        refused(&world.post_as(&stranger, "/api/orders", &with_method(&world.product, 1, "balance_cny")).await, 402, "insufficient_balance");
        assert_nothing_happened(&world).await;
    }

    async fn co_33_concurrent_orders_cannot_overdraw_a_balance(world: World) {
        let (user, token) = world.user_with_balance(1_249, 0).await;
        let body = with_method(&world.product, 10, "balance_cny");
        let answers = join_all((0..12).map(|_| world.post_as(&token, "/api/orders", &body))).await;
        let paid = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(paid, 2, "12.49 pays 5.00 twice: {:?}", answers.iter().map(|a| a.status).collect::<Vec<_>>());
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            refused(answer, 402, "insufficient_balance");
        }
        assert_eq!(world.balance(user, "CNY").await, Amount::from_units(249));
        assert_eq!(world.stock(&world.product).await, 280);
    }

    async fn co_34_concurrent_orders_cannot_oversell_the_stock(world: World) {
        let product = world.new_product("last-ones", 100, 1, 10).await;
        let (_, token) = world.user_with_balance(100_000, 0).await;
        let (by_chain, by_balance) = (on_chain(&product, 3, "erc20_usdt"), with_method(&product, 3, "balance_cny"));
        let chain = join_all((0..8).map(|_| world.post("/api/orders", &by_chain)));
        let balance = join_all((0..8).map(|_| world.post_as(&token, "/api/orders", &by_balance)));
        let (chain, balance) = futures_util::join!(chain, balance);
        let answers: Vec<_> = chain.into_iter().chain(balance).collect();
        let sold = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(sold, 3, "{:?}", answers.iter().map(|a| a.status).collect::<Vec<_>>());
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            refused(answer, 409, "insufficient_stock");
        }
        assert_eq!(world.stock(&product).await, 1);
    }
}
