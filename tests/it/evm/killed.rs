//! The binary itself under SIGKILL, with a configuration file, over TCP. Wherever and however often it is killed,
//! each order is credited once and the database passes the audit.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use chain::{Amount, Asset};
use db::testing::TestDatabase;
use db::{Backend, Db};
use envelope::Envelope;
use ids::Mode;
use money::ledger::{self, Account, Suspense};
use provision::contracts::abi;
use rand::RngExt;
use serde_json::{Value, json};
use shop::merchants;
use url::Url;

use super::node::{NODE, Network, Node};
use crate::placed_order::{PlacedOrder, TIMEOUT};
use crate::world::accounts;

/// The number of kills at each point.
const ROUNDS: usize = 3;
/// The number of blocks that complete an order.
const CONFIRMATIONS: u64 = 12;

/// A shop whose daemon is a separate process.
pub struct Installation {
    config: PathBuf,
    address: SocketAddr,
    client: reqwest::Client,
    daemon: Option<Child>,
    product: String,
    node: Node,
    scratch: TestDatabase,
    folder: tempfile::TempDir,
}

impl Installation {
    pub async fn start(backend: Backend) -> Installation {
        let node = Node::start_today(Network::Ethereum).await;
        let scratch = match backend {
            Backend::Sqlite => TestDatabase::create_sqlite(),
            Backend::Postgres => {
                let url = tokio::task::block_in_place(provision::postgres::start_shared_cluster)
                    .unwrap_or_else(|e| panic!("{e}"));
                TestDatabase::create_postgres(&url).await
            }
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("settled.toml");
        let address = free_address();
        fs::write(&config, configuration(address, &scratch, &folder, &node)).expect("a file is written");
        // The daemon refuses an existing database beside new envelope keys, so the keys are created first.
        let db = Db::open(&scratch.config()).await.expect("the database opens");
        db.migrate().await.expect("the database migrates");
        db.close().await;
        Envelope::load_key_file_or_create_if_none(folder.path()).expect("envelope keys");

        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut shop =
            Installation { config, address, client, daemon: None, product: String::new(), node, scratch, folder };
        shop.create_shop();
        shop.boot().await;
        let products = shop.get("/api/products").await;
        let product = products["products"][0]["id"].as_str();
        shop.product = product.unwrap_or_else(|| panic!("no product in {products}")).to_owned();
        shop
    }

    /// Creates merchant, product and stock with the command line, before the first start.
    fn create_shop(&self) {
        let goods = self.folder.path().join("goods.txt");
        let lines: Vec<String> =
            (0..100).map(|number| format!("user{number}@example.org----secret-{number}")).collect();
        fs::write(&goods, lines.join("\n")).expect("a file is written");
        self.settled(&["admin", "merchant", "create", "shop"]);
        self.settled(&["admin", "product", "put", "mailbox", "--price", "3.00", "--mode", "test"]);
        let goods = goods.display().to_string();
        self.settled(&["admin", "stock", "import", "mailbox", "--file", &goods, "--mode", "test"]);
    }

    /// Runs a command and asserts that it succeeds.
    fn settled(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_settled"));
        let output = command.args(args).arg("--config").arg(&self.config).output().expect("the binary runs");
        assert!(output.status.success(), "settled {args:?}: {}\n{}", text_of(&output.stdout), text_of(&output.stderr));
        output
    }

    async fn boot(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).expect("a log is opened");
        let child = Command::new(env!("CARGO_BIN_EXE_settled"))
            .args(["serve", "--config"])
            .arg(&self.config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        self.daemon = Some(child);
        let url = format!("http://{}/healthz", self.address);
        self.wait_until("the daemon answers", async || {
            self.client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    /// Sends SIGKILL: no handler runs, nothing is flushed.
    fn kill(&mut self) {
        let mut child = self.daemon.take().expect("the daemon runs");
        child.kill().expect("the daemon lives until it is killed");
        child.wait().expect("a killed child ends");
    }

    async fn kill_after(&mut self, delay: Duration) {
        tokio::time::sleep(delay).await;
        self.kill();
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.address);
        let answer = self.client.get(&url).send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }

    async fn place_order(&self) -> PlacedOrder {
        let wish = json!({ "productId": self.product, "quantity": 1, "contactEmail": "buyer@example.com",
            "paymentMethod": "crypto", "coin": "erc20_usdt" });
        let url = format!("http://{}/api/orders", self.address);
        let answer = self.client.post(&url).json(&wish).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        PlacedOrder::parse(&answer, "erc20_usdt", &self.usdt())
    }

    async fn pay(&self, order: &PlacedOrder) {
        let (to, value) = (order.address.parse().expect(NODE), order.due.units());
        self.node.call(0, self.node.usdt, abi::UsdtLike::transferCall { to, value }).await;
    }

    /// Returns the asset that the coin `erc20_usdt` stands for.
    fn usdt(&self) -> Asset {
        let chain = self.node.build_chain_config(&[self.node.anvil.url()], "none");
        chain.find_asset("usdt").expect("the node has USDT").clone()
    }

    async fn mine(&self, blocks: u64) {
        self.node.anvil.mine(blocks).await.expect(NODE);
    }

    async fn run_until_completed(&self, order: &PlacedOrder) {
        let path = format!("/api/orders/{}/status", order.id);
        self.wait_until(&order.id, async || self.get(&path).await["status"] == "completed").await;
    }

    async fn wait_until(&self, what: &str, reached: impl AsyncFn() -> bool) {
        let reached = async {
            let mut beat = tokio::time::interval(Duration::from_millis(50));
            while !reached().await {
                beat.tick().await;
            }
        };
        if tokio::time::timeout(TIMEOUT, reached).await.is_err() {
            panic!("{what} did not come true; the log says:\n{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("settled.log")
    }

    /// Asserts that every order was credited exactly once and that the audit is clean.
    async fn assert_credited(&self, orders: &[PlacedOrder]) {
        let audit = self.settled(&["audit"]);
        assert!(text_of(&audit.stdout).contains("stock: the counts agree"), "{}", text_of(&audit.stdout));
        let expected = Amount::checked_sum(orders.iter().map(|order| order.due)).expect("a small sum");
        let db = Db::open(&self.scratch.config()).await.expect("the database opens");
        let asset = self.usdt().id;
        let (earned, surplus, deposits) = db
            .read("what_came", move |tx| {
                Box::pin(async move {
                    let merchant = merchants::find_merchant_by_slug(tx, "shop").await?.expect("the merchant exists").id;
                    let mut holds = Vec::new();
                    for account in [
                        Account::MerchantPending(merchant),
                        Account::MerchantAvailable(merchant),
                        Account::Suspense(merchant, Suspense::Surplus),
                    ] {
                        holds.push(
                            ledger::find_balance_or_zero(tx, Mode::Test, &account, &asset).await?.available_amount(),
                        );
                    }
                    let rows =
                        tx.rows("select count(*) as n from deposits where state <> 'orphaned'", Vec::new()).await?;
                    let deposits: i64 = rows.first().expect("a count").get("n")?;
                    Ok::<_, anyhow::Error>((holds[0].checked_add(holds[1]), holds[2], deposits))
                })
            })
            .await
            .expect("the ledger is read");
        db.close().await;
        assert_eq!(earned, Some(expected));
        assert_eq!(surplus, Amount::ZERO);
        assert_eq!(usize::try_from(deposits), Ok(orders.len()));
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            // The process may have ended already, which the test has noticed.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

fn configuration(address: SocketAddr, scratch: &TestDatabase, folder: &tempfile::TempDir, node: &Node) -> String {
    let mut database = Url::parse(&scratch.config().url).expect("a URL");
    let password = folder.path().join("password");
    let mut password_file = String::new();
    if let Some(secret) = database.password() {
        fs::write(&password, secret).expect("a file is written");
        password_file = password.display().to_string();
        database.set_password(None).expect("a URL that has a password can lose it");
    }
    format!(
        "[server]\nlisten = \"{address}\"\nrequests_per_minute = 1_000_000\n\n[data]\nfolder = \"{}\"\nmark_path = \"addresses.mark\"\n\n\
         [database]\nurl = \"{database}\"\npassword_file = \"{password_file}\"\n\n[surfaces.checkout]\nmode = \"test\"\norders_per_ip_per_minute = 10_000\n\n\
         [rates]\nmode = \"fixed\"\n\n[rates.fixed]\n\"USD/CNY\" = \"7.24\"\n\"ETH/USD\" = \"3200\"\n\"USDT/USD\" = \"1\"\n\n{}\n{}",
        folder.path().display(),
        node.describe(&[node.anvil.url()], "none"),
        accounts(),
    )
}

/// Returns a free address. A restarted daemon listens on the address of the previous daemon.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn delay() -> Duration {
    let delay = Duration::from_millis(rand::rng().random_range(10..=500));
    // The delay is printed, because it helps to explain a failure.
    eprintln!("killed after {delay:?}");
    delay
}

both! {
    async fn kills_before_the_block_lose_nothing(shop: Installation) {
        let mut orders = Vec::new();
        for _ in 0..ROUNDS {
            let order = shop.place_order().await;
            shop.pay(&order).await;
            shop.kill_after(delay()).await;
            shop.mine(CONFIRMATIONS).await;
            shop.boot().await;
            shop.run_until_completed(&order).await;
            orders.push(order);
        }
        shop.kill();
        shop.assert_credited(&orders).await;
    }

    async fn kills_while_blocks_are_mined_lose_nothing(shop: Installation) {
        let mut orders = Vec::new();
        for _ in 0..ROUNDS {
            let (first, second) = (shop.place_order().await, shop.place_order().await);
            shop.pay(&first).await;
            let node = shop.node.anvil.url();
            let mining = mine_one_by_one(node, CONFIRMATIONS);
            tokio::join!(mining, shop.kill_after(delay()));
            shop.pay(&second).await;
            shop.boot().await;
            shop.mine(CONFIRMATIONS).await;
            shop.run_until_completed(&first).await;
            shop.run_until_completed(&second).await;
            orders.extend([first, second]);
        }
        shop.kill();
        shop.assert_credited(&orders).await;
    }

    async fn kills_after_the_block_lose_nothing(shop: Installation) {
        let mut orders = Vec::new();
        for _ in 0..ROUNDS {
            let order = shop.place_order().await;
            shop.pay(&order).await;
            shop.mine(1).await;
            // The daemon is killed while the deposit is seen, while it is confirmed, and right after a restart.
            shop.kill_after(delay()).await;
            shop.boot().await;
            shop.mine(CONFIRMATIONS - 1).await;
            shop.kill_after(delay()).await;
            shop.boot().await;
            shop.kill_after(delay()).await;
            shop.boot().await;
            shop.run_until_completed(&order).await;
            orders.push(order);
        }
        shop.mine(130).await;
        shop.kill();
        shop.boot().await;
        shop.kill();
        shop.assert_credited(&orders).await;
    }
}

async fn mine_one_by_one(node: String, blocks: u64) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut beat = tokio::time::interval(Duration::from_millis(40));
    for _ in 0..blocks {
        beat.tick().await;
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "anvil_mine", "params": ["0x1"] });
        client.post(&node).json(&call).send().await.expect(NODE);
    }
}
