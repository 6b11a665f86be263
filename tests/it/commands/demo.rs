//! `settled dev` and `settled dev pay`.

use provision::anvil::{Anvil, AnvilOptions};

use crate::commands::program::{Running, run, settled};

#[tokio::test]
async fn the_demo_sells_and_keeps_its_data_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let mut demo = Running::demo(folder.path(), &[]).await;
    let walk = demo.says("The demo's log follows").await;
    for step in ["dev pay $NO --data", "/reference/checkout", "/api/orders/query", "WELCOME10", "token ut_"] {
        assert!(walk.contains(step), "{walk}");
    }
    let products = demo.get("/api/products").await;
    assert_eq!(products["products"].as_array().unwrap().len(), 3);
    assert_eq!(demo.get("/readyz").await["status"], "ready");

    let users = run(&["admin", "user", "list", "--merchant", "demo", "--mode", "test", "--data", data]).await.done();
    assert!(users.contains("alice\tactive\t1000 CNY\t500 USD"), "{users}");

    let order = demo.order("trc20_usdt").await;
    let said = run(&["dev", "pay", &order, "--data", data]).await.done();
    let (paid, completed) = (said.find("Paid 0.13813 USDT").unwrap(), said.find("order completed").unwrap());
    let confirmations: Vec<usize> = (1..=6).filter_map(|n| said.find(&format!("{n} of 6 confirmations"))).collect();
    assert!(paid < completed && confirmations.is_sorted() && !confirmations.is_empty(), "{said}");
    let found = demo.get(&format!("/api/orders/query?orderNo={order}&email=buyer@example.com")).await;
    assert_eq!(found["order"]["credentials"].as_array().unwrap().len(), 2, "{found}");

    let again = run(&["dev", "--listen", "127.0.0.1:0", "--data", data]).await;
    assert_eq!(again.code, 4, "one daemon for a folder: {again:?}");
    assert!(run(&["status", "--data", data]).await.done().contains("tron: block"));
    assert!(run(&["audit", "--data", data]).await.done().contains("agree"));
    demo.end().await;
    assert_eq!(run(&["status", "--data", data]).await.code, 4);
    assert_eq!(run(&["dev", "pay", &order, "--data", data]).await.code, 4);

    let mut demo = Running::demo(folder.path(), &[]).await;
    let token = |walk: &str| walk.split("token ").nth(1).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(token(&walk), token(&demo.says("The demo's log follows").await), "the same user");
    let found = demo.get(&format!("/api/orders/query?orderNo={order}&email=buyer@example.com")).await;
    assert_eq!(found["order"]["credentials"].as_array().unwrap().len(), 2, "{found}");
    assert_eq!(demo.get("/api/products").await["products"][0]["stock"], 298);
    let order = demo.order("btc").await;
    assert!(run(&["dev", "pay", &order, "--data", data]).await.done().contains("order completed"));
    demo.end().await;
    assert!(run(&["audit", "--data", data]).await.done().contains("agree"));
}

#[tokio::test]
async fn dev_pay_covers_every_kind_of_payment() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let demo = Running::demo(folder.path(), &[]).await;

    let order = demo.order("trc20_usdt").await;
    let short = run(&["dev", "pay", &order, "--amount", "0.1", "--data", data]).await.done();
    assert!(short.contains("payment underpaid") && short.contains("--amount 0.03813"), "{short}");
    let rest = run(&["dev", "pay", &order, "--amount", "0.03813", "--data", data]).await.done();
    assert!(rest.contains("order completed"), "{rest}");

    let order = demo.order("eth").await;
    let parts = run(&["dev", "pay", &order, "--split", "3", "--data", data]).await.done();
    assert_eq!(parts.matches("Paid ").count(), 3, "{parts}");
    assert!(parts.contains("order completed"), "{parts}");

    let order = demo.order("erc20_usdt").await;
    let unconfirmed = run(&["dev", "pay", &order, "--reorg", "2", "--data", data]).await.done();
    let (lost, done) = (unconfirmed.find("The credit was taken back").unwrap(), unconfirmed.find("order completed"));
    assert!(done.is_some_and(|done| lost < done), "{unconfirmed}");

    let order = demo.order("btc").await;
    let confirmed = run(&["dev", "pay", &order, "--reorg", "4", "--data", data]).await.done();
    assert!(confirmed.contains("review payment.reversed") && confirmed.contains("closed itself"), "{confirmed}");
    let final_money = run(&["dev", "pay", &order, "--reorg", "6", "--data", data]).await;
    assert_eq!(final_money.code, 2, "final money never goes back: {final_money:?}");

    let order = demo.order("bnb").await;
    let late = run(&["dev", "pay", &order, "--late", "--data", data]).await.done();
    assert!(late.contains("order expired") && late.contains("review deposit.unallocated"), "{late}");
    assert!(run(&["status", "--data", data]).await.done().contains("1 reviews wait for a person: see `settled admin"));
    let waits = run(&["admin", "review", "list", "--data", data]).await.done();
    let (kind, subject) = waits.lines().next().unwrap().split_once(' ').unwrap();
    let close = ["admin", "review", "close", kind, subject, "--note", "given back", "--data", data];
    assert!(run(&close).await.done().contains(&format!("Review deposit.unallocated {subject} is closed.")));
    assert!(run(&["status", "--data", data]).await.done().contains("no review waits for a person"));
    let shown = run(&["admin", "order", "show", &order, "--data", data]).await.done();
    assert!(shown.contains("state: expired") && shown.contains(" on bsc"), "{shown}");
    let order = demo.order("trx").await;
    assert!(run(&["admin", "order", "cancel", &order, "--data", data]).await.done().contains("is cancelled"));

    let unknown = run(&["dev", "pay", "CO0", "--data", data]).await;
    assert!(unknown.code == 1 && unknown.err.contains("there is no order CO0"), "{unknown:?}");
    demo.end().await;
    assert!(run(&["audit", "--data", data]).await.done().contains("agree"));
}

#[tokio::test]
async fn a_payment_that_waits_for_a_block_survives_a_stop_of_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let mut command = settled(&["dev", "--listen", "127.0.0.1:0", "--data", data]);
    command.env("SETTLED__CHAINS__BITCOIN__BLOCK_TIME_MS", "3600000");
    let demo = Running::spawn(command, "products ").await;
    let first = demo.order("btc").await;
    let paying = Running::spawn(settled(&["dev", "pay", &first, "--data", data]), "Paid ").await;
    demo.end().await;
    paying.kill().await;

    let demo = Running::demo(folder.path(), &[]).await;
    // The second payment is in the same block as the first one or in a later one.
    let second = demo.order("btc").await;
    assert!(run(&["dev", "pay", &second, "--data", data]).await.done().contains("order completed"));
    let shown = run(&["admin", "order", "show", &first, "--data", data]).await.done();
    assert!(shown.contains("state: completed"), "{shown}");
    demo.end().await;
    assert!(run(&["audit", "--data", data]).await.done().contains("agree"));
}

#[tokio::test]
async fn the_demo_runs_on_a_real_evm_node() {
    let anvil = Anvil::start_node(AnvilOptions::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let mut demo = Running::demo(folder.path(), &["--evm", &anvil.url()]).await;
    let walk = demo.says("The demo's log follows").await;
    assert!(walk.contains("cast send") && walk.contains(&anvil.url()), "{walk}");
    for coin in ["eth", "erc20_usdt", "trx"] {
        let order = demo.order(coin).await;
        let said = run(&["dev", "pay", &order, "--data", data]).await.done();
        assert!(said.contains("order completed"), "{coin}: {said}");
    }
    demo.end().await;
    assert!(run(&["audit", "--data", data]).await.done().contains("agree"));
}
