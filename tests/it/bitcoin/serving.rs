//! The binary itself with a configuration file, on a node whose login is read from a file: `settled check` reports the
//! node's state, `settled serve` sells.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chain::Amount;
use db::testing::TestDatabase;
use provision::bitcoind::{Bitcoind, BitcoindOptions};
use provision::wallet::TestWallet;
use serde_json::{Value, json};

use super::{NODE, sats};
use crate::placed_order::TIMEOUT;
use crate::world::accounts;

struct Installation {
    config: PathBuf,
    url: String,
    daemon: Option<Child>,
    folder: tempfile::TempDir,
    _scratch: TestDatabase,
}

impl Installation {
    /// Returns an installation on SQLite. It reads the node's login from a file, as Bitcoin Core writes it.
    fn new(node: &Bitcoind) -> Installation {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(".cookie"), "settled:of-a-test").expect("a file is written");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let scratch = TestDatabase::create_sqlite();
        let text = format!(
            "[server]\nlisten = \"{address}\"\nrequests_per_minute = 1_000_000\n[data]\nfolder = \"{}\"\nmark_path = \"addresses.mark\"\n\
             [database]\nurl = \"{}\"\n[surfaces.checkout]\nmode = \"test\"\n\
             [rates]\nmode = \"fixed\"\n[rates.fixed]\n\"USD/CNY\" = \"7.24\"\n\"BTC/USD\" = \"65000\"\n\
             [chains.bitcoin]\nenabled = true\npreset = \"regtest\"\npoll_ms = 400\n\
             endpoints = [{{ url = \"http://127.0.0.1:{}\", login_file = \".cookie\" }}]\n{}",
            folder.path().display(),
            scratch.config().url,
            node.port(),
            accounts(),
        );
        let config = folder.path().join("settled.toml");
        fs::write(&config, text).expect("a file is written");
        Installation { config, url: format!("http://{address}"), daemon: None, folder, _scratch: scratch }
    }

    /// Runs a command and returns whether it succeeded and what it printed.
    fn settled(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_settled"));
        let output = command.args(args).arg("--config").arg(&self.config).output().expect("the binary runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn assert_command_succeeds(&self, args: &[&str]) {
        let (content, said) = self.settled(args);
        assert!(content, "settled {args:?}: {said}");
    }

    fn serve(&mut self) {
        self.assert_command_succeeds(&["migrate"]);
        let goods = self.folder.path().join("goods.txt");
        fs::write(&goods, "first----secret\nsecond----secret\n").expect("a file is written");
        self.assert_command_succeeds(&["admin", "merchant", "create", "shop"]);
        self.assert_command_succeeds(&["admin", "product", "put", "mailbox", "--price", "30.00", "--mode", "test"]);
        let goods = goods.display().to_string();
        self.assert_command_succeeds(&["admin", "stock", "import", "mailbox", "--file", &goods, "--mode", "test"]);
        self.start_daemon();
    }

    fn start_daemon(&mut self) {
        let log = File::create(self.folder.path().join("log")).expect("a log is opened");
        let mut command = Command::new(env!("CARGO_BIN_EXE_settled"));
        command.args(["serve", "--config"]).arg(&self.config).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(command.spawn().expect("the binary runs"));
    }

    fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        daemon.kill().and_then(|()| daemon.wait()).expect("the daemon ends");
    }

    async fn until<T>(&self, what: &str, mut reached: impl AsyncFnMut() -> Option<T>) -> T {
        let reached = async {
            let mut beat = tokio::time::interval(Duration::from_millis(50));
            loop {
                beat.tick().await;
                if let Some(found) = reached().await {
                    return found;
                }
            }
        };
        match tokio::time::timeout(TIMEOUT, reached).await {
            Ok(found) => found,
            Err(_) => panic!("{what}: {}", fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()),
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // The process is killed at the end of its story.
            let _gone = daemon.kill();
            let _reaped = daemon.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_binary_sells_for_bitcoin() {
    let node = Bitcoind::start_node(BitcoindOptions::default()).await.expect(NODE);
    let payer = TestWallet::with_funds(&node, 1).await.expect(NODE);
    let mut shop = Installation::new(&node);
    shop.serve();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let get = async |path: String| -> Option<Value> { client.get(path).send().await.ok()?.json().await.ok() };

    let products = format!("{}/api/products", shop.url);
    let product = shop
        .until("no product", async || get(products.clone()).await?["products"][0]["id"].as_str().map(str::to_owned));
    let wish = json!({ "productId": product.await, "quantity": 1, "contactEmail": "buyer@example.com",
        "paymentMethod": "crypto", "coin": "btc" });
    let order = format!("{}/api/orders", shop.url);
    let order = shop.until("no order", async || {
        let answer = client.post(&order).json(&wish).send().await.ok()?;
        if answer.status() == 201 { answer.json::<Value>().await.ok() } else { None }
    });
    let order = order.await;
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{order}")).to_owned();
    let address = text(&order["payment"]["address"]);
    let due = Amount::parse_decimal(&text(&order["payment"]["expected_amount"]), 8).expect("an amount");
    let valid = node.call_rpc("validateaddress", json!([address])).await.expect(NODE);
    assert_eq!(valid["isvalid"], true, "CO-13: {valid}");

    payer.pay(&node, &[(&address, sats(due))]).await.expect(NODE);
    let status = format!("{}/api/orders/{}/status", shop.url, text(&order["order"]["id"]));
    let shown = async |what: &str| {
        let answer = get(status.clone()).await?;
        (answer["payment_status"] == what).then_some(())
    };
    shop.until("not seen in the mempool", async || shown("confirming").await).await;
    node.mine(1).await.expect(NODE);
    shop.until("not paid", async || shown("paid").await).await;
    shop.assert_command_succeeds(&["audit"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_reports_whether_a_node_is_ready() {
    let whole = Bitcoind::start_node(BitcoindOptions::default()).await.expect(NODE);
    // The node's newest block is from 2011, so it looks years behind.
    let (content, said) = Installation::new(&whole).settled(&["check"]);
    assert!(!content && said.contains("FAIL") && said.contains("still syncs"), "{said}");
    whole.mine(1).await.expect(NODE);
    let (_, said) = Installation::new(&whole).settled(&["check"]);
    assert!(said.contains("Bitcoin Core, regtest, head 1, complete"), "{said}");

    let pruning = BitcoindOptions { extra: vec!["-prune=1".into(), "-fastprune".into()], ..BitcoindOptions::default() };
    let pruned = Bitcoind::start_node(pruning).await.expect(NODE);
    pruned.mine(1_000).await.expect(NODE);
    pruned.call_rpc("pruneblockchain", json!([700])).await.expect(NODE);
    let (_, said) = Installation::new(&pruned).settled(&["check"]);
    assert!(
        said.contains("pruned below block") && said.contains("after a downtime longer than that, blocks are missing"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_pruned_past_the_cursor_is_reported_with_the_remedy() {
    let pruning = BitcoindOptions { extra: vec!["-prune=1".into(), "-fastprune".into()], ..BitcoindOptions::default() };
    let node = Bitcoind::start_node(pruning).await.expect(NODE);
    node.mine(3).await.expect(NODE);
    let mut shop = Installation::new(&node);
    shop.serve();
    shop.until("nothing is followed", async || shop.settled(&["status"]).1.contains("bitcoin: block ").then_some(()))
        .await;
    let (content, said) = shop.settled(&["check"]);
    assert!(content && said.contains("OK    coins: buyers can pay with btc"), "{said}");

    // The daemon is down while the chain grows and the node deletes the blocks that the daemon has not read.
    shop.kill_daemon();
    node.mine(1_000).await.expect(NODE);
    node.call_rpc("pruneblockchain", json!([700])).await.expect(NODE);
    let (content, said) = shop.settled(&["check"]);
    assert!(!content && said.contains("which is the next one to read"), "{said}");
    assert!(said.contains("a node that is not pruned below it, or an Esplora server"), "{said}");
    let coins = "FAIL  coins: NO COIN CAN BE PAID: btc (bitcoin has no node with the next block to read)";
    assert!(said.contains(coins), "{said}");

    shop.start_daemon();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let ready = format!("{}/readyz", shop.url);
    let problems = shop.until("ready with a pruned node", async || {
        let answer = client.get(&ready).send().await.ok()?;
        if answer.status() == 503 { answer.json::<Value>().await.ok() } else { None }
    });
    assert_eq!(problems.await["problems"], json!(["follow bitcoin"]));
    let (_, said) = shop.settled(&["status"]);
    assert!(said.contains("PROBLEM follow bitcoin: no endpoint of bitcoin returns block"), "{said}");
    assert!(said.contains("a node that is not pruned below it, or an Esplora server"), "{said}");
}
