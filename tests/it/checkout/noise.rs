//! Random input is always answered in the surface's error shape and never with a server error.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use super::{ip, on_chain};
use crate::world::{Answer, World};

const CASES: usize = 120;
const FIELDS: [&str; 8] =
    ["productId", "quantity", "contactEmail", "paymentMethod", "coin", "couponCode", "orderNo", "email"];

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z_0-9@.\\-\u{0}\u{7f}é漢]{0,40}".prop_map(Value::from),
        Just(json!("crypto")),
        Just(json!("balance_crypto")),
        Just(json!("btc")),
        Just(json!("a@example.org")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Returns a valid body with some fields replaced, so that random values reach the inner checks.
fn bodies(sound: Value) -> impl Strategy<Value = Value> {
    prop::collection::vec((prop::sample::select(FIELDS.to_vec()), values()), 0..4).prop_map(move |changes| {
        let mut body = sound.clone();
        for (field, value) in changes {
            body[field] = value;
        }
        body
    })
}

/// Random input never causes a server error. The seed is fixed, so every run has the same cases.
fn generate_cases<T>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..CASES).map(|_| strategy.new_tree(&mut runner).expect("a case").current()).collect()
}

#[track_caller]
fn assert_error_shape(answer: &Answer, sent: &str) {
    assert!(answer.status < 500, "{} for {sent}: {}", answer.status, answer.text);
    let success = answer.status < 300;
    assert_eq!(answer.body["success"], json!(success), "{sent}: {}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"), "{sent}");
    if !success {
        assert!(answer.body["error"].is_string() && answer.body["message"].is_string(), "{sent}: {}", answer.text);
    }
}

fn percent_encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

both! {
    async fn random_input_never_causes_a_server_error(world: World) {
        let (_, token) = world.user_with_balance(5_000, 5_000_000).await;
        let sound = on_chain(&world.product, 1, "eth");
        for (n, body) in (0..).zip(generate_cases(bodies(sound))) {
            for path in ["/api/orders", "/api/orders/query"] {
                let request = world.request("POST", path).header("x-forwarded-for", ip(n)).bearer_auth(&token);
                assert_error_shape(&world.send(request.json(&body)).await, &body.to_string());
            }
        }
        for (n, bytes) in (0..).zip(generate_cases(prop::collection::vec(any::<u8>(), 0..60))) {
            let request = world.request("POST", "/api/orders").header("content-type", "application/json");
            assert_error_shape(&world.send(request.body(bytes.clone())).await, &percent_encode(&bytes));
            let text = percent_encode(&bytes);
            for path in [
                format!("/api/products/{text}"), format!("/api/orders/{text}/status"), format!("/api/{text}"),
                format!("/api/orders/query?orderNo={text}&email={text}"), format!("/api/orders/query?{text}"),
            ] {
                assert_error_shape(&world.get_from(&ip(n), &path).await, &path);
            }
        }
    }
}
