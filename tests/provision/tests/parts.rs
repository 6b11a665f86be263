//! The parts themselves: they start, they do what the tests will ask of them, and they end.

use alloy_primitives::U256;
use provision::{
    anvil::{Anvil, Mining, Options},
    postgres,
};
use serde_json::json;
use sqlx::{Connection, PgConnection, Row};

#[tokio::test]
async fn anvil_mines_as_told_and_forgets_a_transaction_in_a_reorganisation() {
    let anvil = Anvil::start(Options { chain_id: 1337, mining: Mining::Manual, ..Options::default() }).await.unwrap();
    assert_eq!(anvil.rpc("eth_chainId", json!([])).await.unwrap(), "0x539");
    let accounts = anvil.accounts().await.unwrap();
    let before = anvil.balance(accounts[1]).await.unwrap();

    let payment = anvil.send(accounts[0], accounts[1], U256::from(7), &[]).await.unwrap();
    assert_eq!(anvil.receipt(payment).await.unwrap(), None);
    anvil.mine(3).await.unwrap();
    assert_eq!(anvil.height().await.unwrap(), 3);
    assert_eq!(anvil.receipt(payment).await.unwrap().unwrap()["blockNumber"], "0x1");
    assert_eq!(anvil.balance(accounts[1]).await.unwrap(), before + U256::from(7));

    let replaced = anvil.rpc("eth_getBlockByNumber", json!(["0x1", false])).await.unwrap();
    anvil.reorg(3).await.unwrap();
    assert_eq!(anvil.height().await.unwrap(), 3);
    let replacing = anvil.rpc("eth_getBlockByNumber", json!(["0x1", false])).await.unwrap();
    assert_ne!(replaced["hash"], replacing["hash"]);
    assert_eq!(anvil.balance(accounts[1]).await.unwrap(), before);

    anvil.rollback(2).await.unwrap();
    assert_eq!(anvil.height().await.unwrap(), 1);
    anvil.set_automine(true).await.unwrap();
    anvil.send(accounts[0], accounts[1], U256::from(1), &[]).await.unwrap();
    assert_eq!(anvil.height().await.unwrap(), 2);
}

#[tokio::test]
async fn anvil_is_gone_when_dropped_and_comes_back_on_its_port() {
    let anvil = Anvil::start(Options::default()).await.unwrap();
    let port = anvil.port();
    drop(anvil);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    let again = Anvil::start(Options { port: Some(port), ..Options::default() }).await.unwrap();
    assert_eq!(again.port(), port);
    again.pause().unwrap();
    again.resume().unwrap();
    assert_eq!(again.height().await.unwrap(), 0);
}

#[tokio::test]
async fn an_error_of_anvil_quotes_its_words() {
    let extra = vec![String::from("--no-such-option")];
    let error = Anvil::start(Options { extra, ..Options::default() }).await.err().unwrap().to_string();
    assert!(error.contains("ended instead of becoming ready") && error.contains("--no-such-option"), "{error}");
}

#[tokio::test]
async fn postgres_is_one_cluster_with_the_durability_settled_asks_for() {
    let url = postgres::url().unwrap();
    assert_eq!(postgres::url().unwrap(), url);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let setting: String = sqlx::query("show synchronous_commit").fetch_one(&mut connection).await.unwrap().get(0);
    assert_eq!(setting, "on");
    let name = format!("parts_{}", std::process::id());
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("drop database {name}"))).execute(&mut connection).await.unwrap();
}
