//! CO-1 to CO-9: the product endpoints.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{created, found, on_chain, refused, with_method};
use crate::world::World;

async fn listed(world: &World) -> Vec<Value> {
    let answer = world.get("/api/products").await;
    found(&answer);
    answer.body["products"].as_array().expect("an array").clone()
}

both! {
    async fn co_01_the_list_is_an_array(world: World) {
        let answer = world.get("/api/products").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["success"], json!(true));
        assert!(answer.body["products"].is_array());
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    }

    async fn co_02_every_product_has_exactly_the_documented_fields(world: World) {
        world.new_product("second", 1999, 5, 3).await;
        world.new_product("sold-out", 100, 1, 0).await;
        let products = listed(&world).await;
        assert_eq!(products.len(), 3);
        let documented = BTreeSet::from(["id", "slug", "name_zh", "name_en", "stock", "min_quantity", "price"]);
        for product in products {
            let fields: BTreeSet<&str> = product.as_object().expect("an object").keys().map(String::as_str).collect();
            assert_eq!(fields, documented);
            assert!(product["id"].as_str().expect("a string").parse::<Uuid>().is_ok());
            assert!(["slug", "name_zh", "name_en"].iter().all(|name| product[*name].is_string()));
            assert!(product["stock"].is_u64() && product["min_quantity"].is_u64());
            assert!(product["price"].is_number());
        }
    }

    async fn co_03_a_price_is_a_number(world: World) {
        world.new_product("whole", 500, 1, 0).await;
        world.new_product("odd", 1_234_567_890_123, 1, 0).await;
        let text = world.get("/api/products").await.text;
        // The price is a JSON number with exact digits. It is not a string or an object, and it is not rounded to
        // binary.
        for digits in ["\"price\":0.5}", "\"price\":5}", "\"price\":12345678901.23}"] {
            assert!(text.contains(digits), "{digits} in {text}");
        }
    }

    async fn co_04_inactive_products_are_not_listed(world: World) {
        let other = world.new_product("other", 100, 1, 1).await;
        world.set_active(&other, false).await;
        let slugs: Vec<Value> = listed(&world).await.iter().map(|product| product["slug"].clone()).collect();
        assert_eq!(slugs, [json!("mailbox-usa-fresh")]);
        world.set_active(&other, true).await;
        assert_eq!(listed(&world).await.len(), 2);
    }

    async fn co_05_stock_follows_reservation_sale_import_and_release(world: World) {
        let product = world.product.clone();
        assert_eq!(world.stock(&product).await, 300);
        created(&world.post("/api/orders", &on_chain(&product, 10, "eth")).await);
        assert_eq!(world.stock(&product).await, 290, "reserved");
        let (_, token) = world.user_with_balance(10_000, 0).await;
        let bought = world.post_as(&token, "/api/orders", &with_method(&product, 20, "balance_cny")).await;
        created(&bought);
        world.run_until_idle().await;
        assert_eq!(world.stock(&product).await, 270, "sold");
        world.import(&product, 7).await;
        assert_eq!(world.stock(&product).await, 277, "imported");
        world.advance_seconds(30 * 60 + 61);
        world.mine("eth", 1);
        world.run_until_idle().await;
        assert_eq!(world.stock(&product).await, 287, "released");
        let of_list = listed(&world).await.into_iter().find(|listed| listed["id"] == json!(product.id));
        assert_eq!(of_list.expect("it is listed")["stock"], json!(287));
    }

    async fn co_06_a_product_is_found_by_its_id(world: World) {
        let answer = world.get(&format!("/api/products/{}", world.product.id)).await;
        found(&answer);
        assert_eq!(answer.body["product"], listed(&world).await[0]);
    }

    async fn co_07_the_same_product_is_found_by_its_slug(world: World) {
        let by_slug = world.get(&format!("/api/products/{}", world.product.slug)).await;
        found(&by_slug);
        let by_id = world.get(&format!("/api/products/{}", world.product.id)).await;
        assert_eq!(by_slug.body, by_id.body);
        assert_eq!(by_slug.text_at("product.id"), world.product.id);
    }

    async fn co_08_an_unknown_product_is_not_found(world: World) {
        let unknown = Uuid::new_v4().to_string();
        for path in [&unknown, "no-such-slug", "Mailbox-Usa-Fresh", "%00", "%ff", "a%2Fb", "%20", "../orders", "é", "'"] {
            let answer = world.get(&format!("/api/products/{path}")).await;
            let code = if path == "../orders" { "method_not_allowed" } else { "product_not_found" };
            let status = if path == "../orders" { 405 } else { 404 };
            refused(&answer, status, code);
        }
    }

    async fn co_09_an_inactive_product_is_not_found(world: World) {
        world.set_active(&world.product, false).await;
        refused(&world.get(&format!("/api/products/{}", world.product.id)).await, 404, "product_not_found");
        refused(&world.get(&format!("/api/products/{}", world.product.slug)).await, 404, "product_not_found");
        let order = world.post("/api/orders", &on_chain(&world.product, 1, "btc")).await;
        refused(&order, 404, "product_not_found");
    }
}
