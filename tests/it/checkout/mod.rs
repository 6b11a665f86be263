//! The checklist of the checkout contract: one story for each item, over HTTP, on both databases.

mod balances;
mod coupons;
mod create;
mod listener;
mod lookups;
mod noise;
mod payments;
mod products;
mod shapes;

use serde_json::{Value, json};

use crate::world::{Answer, Product, World};

const EMAIL: &str = "buyer@example.com";
const COINS: [&str; 7] = ["trc20_usdt", "erc20_usdt", "bep20_usdt", "btc", "eth", "trx", "bnb"];

/// Returns the request body of an order without an account that is paid on a chain.
fn on_chain(product: &Product, quantity: u32, coin: &str) -> Value {
    json!({
        "productId": product.id, "quantity": quantity, "contactEmail": EMAIL, "paymentMethod": "crypto", "coin": coin,
    })
}

/// Returns the request body of an order with this payment method.
fn with_method(product: &Product, quantity: u32, method: &str) -> Value {
    json!({"productId": product.id, "quantity": quantity, "contactEmail": EMAIL, "paymentMethod": method})
}

fn without(mut body: Value, field: &str) -> Value {
    body.as_object_mut().expect("an object").remove(field).expect("the field was there");
    body
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

/// Asserts the surface's error shape with this status and code.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(answer.body["success"], json!(false), "{}", answer.text);
    assert_eq!(answer.body["error"], json!(code), "{}", answer.text);
    assert!(!answer.text_at("message").is_empty(), "{}", answer.text);
    assert_eq!(answer.body.as_object().map(|body| body.len()), Some(3), "{}", answer.text);
}

#[track_caller]
fn created(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.body["success"], json!(true), "{}", answer.text);
    answer.text_at("order.id")
}

#[track_caller]
fn found(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["success"], json!(true), "{}", answer.text);
}

/// Returns a client address. Each `number` gives a different one.
fn ip(number: u32) -> String {
    std::net::Ipv4Addr::from_bits((10 << 24) + number).to_string()
}

async fn query(world: &World, ip: &str, order_no: &str, email: &str) -> Answer {
    let email = email.replace('@', "%40").replace('+', "%2B").replace(' ', "%20");
    world.get_from(ip, &format!("/api/orders/query?orderNo={order_no}&email={email}")).await
}

/// Queries a completed order and returns its credentials.
async fn credentials(world: &World, ip: &str, order_no: &str) -> Vec<String> {
    let answer = query(world, ip, order_no, EMAIL).await;
    found(&answer);
    assert_eq!(answer.text_at("order.status"), "completed", "{}", answer.text);
    let lines = answer.body["order"]["credentials"].as_array().expect("credentials");
    lines.iter().map(|line| line.as_str().expect("a text").to_owned()).collect()
}

async fn orders(world: &World) -> i64 {
    count(world, "select count(*) as n from orders").await
}

/// Changes the database directly, where no interface exists.
async fn change(world: &World, sql: &'static str) {
    let changed = world.db.write("change", move |tx| Box::pin(async move { tx.execute(sql, Vec::new()).await }));
    changed.await.unwrap_or_else(|e: db::Error| panic!("{sql}: {e}"));
}

async fn count(world: &World, sql: &'static str) -> i64 {
    let row = world.db.read("count", move |tx| Box::pin(async move { tx.row(sql, Vec::new()).await })).await;
    row.expect("a count").expect("one row").get("n").expect("a number")
}
