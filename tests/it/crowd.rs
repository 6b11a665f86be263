//! Two hundred concurrent buyers for the last fifty items.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::json;

use crate::world::World;

both! {
    async fn two_hundred_buyers_cannot_oversell_or_overdraw(world: World) {
        let product = world.new_product("last-fifty", 100, 1, 50).await;
        // Ten yuan pay for ten pieces; forty buyers share the balance.
        let (user, token) = world.user_with_balance(1_000, 0).await;
        let buyer = |n| {
            let (world, product, token) = (&world, &product, &token);
            async move {
                let by_balance = n % 5 == 0;
                let body = json!({
                    "productId": product.id, "quantity": 1, "contactEmail": format!("buyer{n}@example.org"),
                    "paymentMethod": if by_balance { "balance_cny" } else { "crypto" }, "coin": "trc20_usdt",
                });
                let answer = match by_balance {
                    true => world.post_as(token, "/api/orders", &body).await,
                    false => world.post("/api/orders", &body).await,
                };
                (by_balance, answer)
            }
        };
        // One balance order comes first, so that at least one piece is paid from the balance.
        let mut answers = vec![buyer(0).await];
        answers.extend(join_all((1..200).map(buyer)).await);
        let mut orders = Vec::new();
        for (by_balance, answer) in &answers {
            match answer.status {
                201 => orders.push((*by_balance, answer)),
                402 => assert_eq!(answer.text_at("error"), "insufficient_balance"),
                409 => assert_eq!(answer.text_at("error"), "insufficient_stock"),
                other => panic!("{other}: {}", answer.text),
            }
        }
        assert_eq!(orders.len(), 50, "every item found a buyer, and none found two");
        let from_balance = orders.iter().filter(|(by_balance, _)| *by_balance).count();
        assert!((1..=10).contains(&from_balance), "{from_balance} pieces were paid from a balance for ten");
        assert_eq!(world.balance(user, "CNY").await, chain::Amount::from(1_000 - 100 * u64::try_from(from_balance).unwrap()));
        assert_eq!(world.stock(&product).await, 0);

        for (by_balance, answer) in &orders {
            if !by_balance {
                world.pay("trc20_usdt", &answer.text_at("payment.address"), &answer.text_at("payment.expected_amount"));
            }
        }
        world.mine_deep("trc20_usdt");
        world.run_until_idle().await;
        let mut goods = HashSet::new();
        for (n, (_, answer)) in orders.iter().enumerate() {
            let found = world.status(&answer.text_at("order.id")).await;
            assert_eq!(found.text_at("status"), "completed", "{}", found.text);
            let email = answers.iter().position(|(_, other)| std::ptr::eq(other, *answer)).unwrap();
            let query = format!("/api/orders/query?orderNo={}&email=buyer{email}@example.org", answer.text_at("order.order_no"));
            let found = world.get_from(&format!("10.9.0.{n}"), &query).await;
            let credentials = found.body["order"]["credentials"].as_array().unwrap_or_else(|| panic!("{}", found.text)).clone();
            assert_eq!(credentials.len(), 1);
            assert!(goods.insert(credentials[0].to_string()), "an item was delivered twice");
        }
        assert_eq!(goods.len(), 50);
    }
}
