//! The test harness: a real daemon over TCP on port 0, with model chains, a clock that only tests move, and workers
//! that run on demand. Dropping a world asserts that the audit is clean, that the events match the orders, that no task
//! panicked and that no secret was logged.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use access::tokens::Token;
use chain::{Amount, Asset, ChainId};
use clock::{Clock, Instant};
use config::Config;
use db::testing::TestDatabase;
use db::{Backend, Db};
use envelope::Envelope;
use ids::{Mode, Shop, SkuId, UserId};
use money::addresses::RestoredAddresses;
use money::audit;
use money::pricing::Currency;
use records::audit_log::Actor;
use serde_json::Value;
use settled::daemon::drivers::list_enabled_simnet_chains;
use settled::daemon::{Daemon, Setup, address_mark};
use shop::catalog::{LocalizedTexts, NewProduct, PriceTier};
use shop::users::{Credit, NewUser};
use shop::{catalog, coupons, merchants, stock, users};
use signer::accounts::{AccountPurpose, AddressKind, KeyAccount};
use signer::seed::Seed;
use simnet::Simnet;

/// The actor that the audit log names for the changes that set up the shop of a test.
pub const SETUP: Actor = Actor::CommandLine { uid: u32::MAX };

/// The time at which each world starts: 2026-02-11T12:00:00Z.
pub const START: Instant = Instant(1_770_811_200_000);

/// The public test mnemonic of BIP39. Never use it for real funds.
pub const PHRASE: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// Selects orders whose state has no matching event.
const UNTOLD: &str = "select o.public_id from orders o where not exists (
        select 1 from events e where e.subject = o.public_id and e.kind = 'order.created')
    or (o.state in ('paid', 'processing', 'partially_delivered', 'delivered', 'completed', 'failed', 'refunded')
        and not exists (select 1 from events e where e.subject = o.public_id and e.kind = 'order.paid'))
    or (o.state in ('completed', 'failed', 'expired', 'cancelled')
        and not exists (select 1 from events e where e.subject = o.public_id and e.kind = 'order.' || o.state))";
/// Selects orders for which an event that happens once was recorded more than once.
const TOLD_TWICE: &str = "select subject from events where kind in ('order.created', 'order.paid', 'order.completed',
        'order.failed', 'order.expired', 'order.cancelled') group by subject, kind having count(*) > 1";

pub struct World {
    pub daemon: Option<Daemon>,
    pub db: Db,
    pub clock: Clock,
    pub simnet: Simnet,
    pub config: Config,
    pub envelope: Arc<Envelope>,
    pub shop: Shop,
    pub product: Product,
    /// Texts that must never be logged.
    secrets: Mutex<Vec<String>>,
    /// The length of the log when this world started, in bytes.
    log_start: usize,
    client: reqwest::Client,
    /// The test database. It is dropped after the fields above, which use it.
    _scratch: Arc<TestDatabase>,
    _folder: tempfile::TempDir,
}

/// A product that can be ordered.
#[derive(Debug, Clone)]
pub struct Product {
    pub id: String,
    pub slug: String,
    pub sku: SkuId,
}

/// An HTTP response of the daemon.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Returns the text at a path in the JSON body, such as `order.order_no`.
    pub fn text_at(&self, path: &str) -> String {
        let found = path.split('.').try_fold(&self.body, |value, key| value.get(key));
        found.and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {path} in {}", self.text)).to_owned()
    }
}

impl World {
    pub async fn start(backend: Backend) -> World {
        World::with(backend, |_| {}).await
    }

    /// Starts a world whose configuration was changed by `configure`.
    pub async fn with(backend: Backend, configure: impl FnOnce(&mut Config)) -> World {
        capture_logs();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let scratch = create_database(backend).await;
        let mut config = test_config(folder.path());
        configure(&mut config);
        let clock = Clock::manual(START);
        let simnet = Simnet::create_in_memory(list_enabled_simnet_chains(&config), 7, START.unix_seconds() - 3_600);
        for chain in simnet.list_chains() {
            simnet.mine(&chain, 3, START.unix_seconds() - 60);
        }
        let db = Db::open(&scratch.config()).await.expect("the database opens");
        db.migrate().await.expect("the database migrates");
        let envelope = Arc::new(Envelope::load_key_file_or_create_if_none(folder.path()).expect("envelope keys"));
        // The length is read in a separate statement. A lock guard inside the expression below would be held to its
        // end, and log calls in it would deadlock.
        let log_start = captured().lock().expect("no holder panics").len();
        let shop = create_shop(&db, clock.now()).await;
        let mut world = World {
            daemon: None,
            db,
            clock,
            simnet,
            config,
            envelope,
            shop,
            product: Product { id: String::new(), slug: String::new(), sku: SkuId(0) },
            secrets: Mutex::default(),
            log_start,
            client: client(),
            _scratch: Arc::new(scratch),
            _folder: folder,
        };
        world.product = world.new_product("mailbox-usa-fresh", 50, 1, 300).await;
        world.boot().await;
        world
    }

    /// Starts a daemon on the world's database, as after a crash or a stop.
    pub async fn boot(&mut self) {
        self.try_boot(false).await.unwrap_or_else(|e| panic!("the daemon starts: {e:#}"));
    }

    /// Starts a daemon on the world's database, or returns the reason why it does not start. `join` lets it create its
    /// address mark.
    pub async fn try_boot(&mut self, join: bool) -> anyhow::Result<()> {
        let setup = Setup {
            config: self.config.clone(),
            clock: self.clock.clone(),
            db: self.db.clone(),
            envelope: self.envelope.clone(),
            simnet: Some(self.simnet.clone()),
            cursor_flush_ms: 0,
            join,
            autonomous: false,
        };
        self.daemon = Some(Daemon::start_daemon(setup).await?);
        self.run_until_idle().await;
        Ok(())
    }

    /// Makes a backup of the database. On PostgreSQL the daemon is stopped for it.
    pub async fn back_up(&mut self) -> TestDatabase {
        if self.db.backend() == Backend::Sqlite {
            return self._scratch.create_copy().await;
        }
        drop(self.daemon.take());
        self.db.close().await;
        let copy = self._scratch.create_copy().await;
        self.db = Db::open(&self._scratch.config()).await.expect("the database opens again");
        self.boot().await;
        copy
    }

    /// Drops the daemon and replaces the database by a backup. No daemon is started.
    pub async fn restore_database(&mut self, backup: TestDatabase) {
        drop(self.daemon.take());
        self.db = Db::open(&backup.config()).await.expect("the backup opens");
        self._scratch = Arc::new(backup);
    }

    /// Does what `settled restore` does.
    pub async fn skip_used_addresses(&self, skip: Option<u32>) -> anyhow::Result<RestoredAddresses> {
        let (config, now) = (&self.config, self.clock.now());
        address_mark::skip_used_addresses_and_write_mark(config, &self.db, now, &SETUP, skip).await
    }

    /// Removes the file with the address mark.
    pub fn lose_address_mark(&self) {
        std::fs::remove_file(self.config.mark_path()).expect("the mark is removed");
    }

    /// Drops the daemon without a shutdown and starts another one on the same database.
    pub async fn crash_and_boot(&mut self) {
        drop(self.daemon.take());
        self.db = Db::open(&self._scratch.config()).await.expect("the database opens again");
        self.boot().await;
    }

    /// Drops the daemon and starts another one on an empty database, with the same configuration, account keys and
    /// chains, as after the data folder and the address mark were lost. The new shop has the same product.
    pub async fn lose_database_and_boot(&mut self) {
        drop(self.daemon.take());
        self.lose_address_mark();
        let scratch = create_database(self.db.backend()).await;
        self.db = Db::open(&scratch.config()).await.expect("the database opens");
        self.db.migrate().await.expect("the database migrates");
        self._scratch = Arc::new(scratch);
        self.shop = create_shop(&self.db, self.clock.now()).await;
        self.product = self.new_product("mailbox-usa-fresh", 50, 1, 300).await;
        self.boot().await;
    }

    pub fn address(&self) -> SocketAddr {
        self.daemon.as_ref().expect("the daemon runs").address
    }

    pub async fn run_until_idle(&self) {
        self.daemon.as_ref().expect("the daemon runs").run_workers_until_idle().await;
    }

    // ---- HTTP

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        self.client.request(method, format!("http://{}{path}", self.address()))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, body, text }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path)).await
    }

    /// Sends the request from another client address; the world trusts the proxy on 127.0.0.1.
    pub async fn get_from(&self, ip: &str, path: &str) -> Answer {
        self.send(self.request("GET", path).header("x-forwarded-for", ip)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request("POST", path).json(body)).await
    }

    pub async fn post_as(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.send(self.request("POST", path).bearer_auth(token).json(body)).await
    }

    /// Orders the world's product, to be paid with a coin, and returns the surface's answer.
    pub async fn order(&self, quantity: u32, coin: &str) -> Answer {
        let answer = self
            .post(
                "/api/orders",
                &serde_json::json!({
                    "productId": self.product.id, "quantity": quantity, "contactEmail": "buyer@example.com",
                    "paymentMethod": "crypto", "coin": coin,
                }),
            )
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer
    }

    pub async fn status(&self, order_id: &str) -> Answer {
        self.get(&format!("/api/orders/{order_id}/status")).await
    }

    // ---- chains

    pub fn asset(&self, coin: &str) -> Asset {
        self.config
            .find_checkout_asset_of_enabled_chain(coin)
            .unwrap_or_else(|| panic!("{coin} is configured"))
            .1
            .clone()
    }

    /// Sends `amount` whole coins to an address. The payment stays in the mempool until a block is mined.
    pub fn pay(&self, coin: &str, address: &str, amount: &str) -> chain::TxId {
        let asset = self.asset(coin);
        let amount = Amount::parse_decimal(amount, asset.decimals).expect("a decimal amount");
        self.simnet.pay(&asset.chain, &asset.id, address, amount).expect("the buyer can pay")
    }

    pub fn chain_of(&self, coin: &str) -> ChainId {
        self.asset(coin).chain
    }

    /// Mines blocks whose time is the time of the world's clock.
    pub fn mine(&self, coin: &str, blocks: u64) {
        self.simnet.mine(&self.chain_of(coin), blocks, self.clock.now().unix_seconds());
    }

    /// Mines enough blocks to make every deposit final.
    pub fn mine_deep(&self, coin: &str) {
        self.mine(coin, 300);
    }

    /// Advances the clock. No block is mined and no worker runs.
    pub fn advance_seconds(&self, seconds: i64) {
        self.clock.advance_ms_unless_system(seconds * 1_000);
    }

    // ---- shop

    /// Creates an active product with a price in fen and this number of items in stock.
    pub async fn new_product(&self, slug: &str, price: i64, min_quantity: u32, items: usize) -> Product {
        let (now, shop, slug_owned) = (self.clock.now(), self.shop, slug.to_owned());
        let public_id = uuid::Uuid::new_v4();
        let (_, sku) = self
            .db
            .write("create_product", move |tx| {
                Box::pin(async move {
                    let new = NewProduct {
                        public_id,
                        slug: slug_owned,
                        min_quantity,
                        max_quantity: 200,
                        position: 0,
                        currency: Currency::CNY,
                        tiers: vec![PriceTier { from_quantity: 1, unit_price: price }],
                        texts: LocalizedTexts::default()
                            .with_text("name", "zh", "企业/教育邮箱")
                            .with_text("name", "en", "Mailbox"),
                    };
                    catalog::create_product_without_stock(tx, now, shop, new).await
                })
            })
            .await
            .expect("a product");
        let product = Product { id: public_id.to_string(), slug: slug.to_owned(), sku };
        self.import(&product, items).await;
        product
    }

    /// Adds this number of new items to the stock.
    pub async fn import(&self, product: &Product, items: usize) {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let lines: Vec<String> = (0..items)
            .map(|_| {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                format!("user{number}@example.org----pass-{}", uuid::Uuid::new_v4())
            })
            .collect();
        self.secrets.lock().expect("no holder panics").extend(lines.iter().cloned());
        let (now, sku) = (self.clock.now(), product.sku);
        let slug = product.slug.clone();
        let sealed = stock::validate_and_encrypt_lines(&self.envelope, sku, lines.iter().map(String::as_str))
            .expect("lines are encrypted");
        self.db
            .write("import_stock", move |tx| {
                Box::pin(async move { stock::import_stock_items(tx, now, &SETUP, &slug, sku, sealed).await })
            })
            .await
            .expect("stock is imported");
    }

    /// Returns the stock of the product as the checkout surface reports it.
    pub async fn stock(&self, product: &Product) -> i64 {
        let answer = self.get(&format!("/api/products/{}", product.slug)).await;
        answer.body["product"]["stock"].as_i64().unwrap_or_else(|| panic!("no stock in {}", answer.text))
    }

    pub async fn set_active(&self, product: &Product, active: bool) {
        let (now, public_id, shop) = (self.clock.now(), product.id.clone(), self.shop);
        let state = if active { catalog::State::Active } else { catalog::State::Inactive };
        self.db
            .write("set_state", move |tx| {
                Box::pin(async move {
                    let product = catalog::find_priced_product_in_any_state(tx, shop, Currency::CNY, &public_id)
                        .await?
                        .expect("the product exists");
                    catalog::set_product_state(tx, now, &SETUP, product.id, &product.slug, state).await
                })
            })
            .await
            .expect("a product changes its state");
    }

    /// Creates a user with these balances (CNY in fen, USD in millionths) and returns its token.
    pub async fn user_with_balance(&self, cny_fen: u64, usd_micro: u64) -> (UserId, String) {
        let (now, shop) = (self.clock.now(), self.shop);
        let name = format!("user-{}", uuid::Uuid::new_v4());
        let (user, token) = self
            .db
            .write("create_user", move |tx| {
                Box::pin(async move {
                    let new = NewUser { public_id: uuid::Uuid::new_v4(), name: name.clone(), email: None };
                    users::create_user(tx, now, &SETUP, shop, new).await?;
                    let user = users::find_user_by_name(tx, shop, &name).await?.expect("the user was created");
                    for (currency, amount) in [(Currency::CNY, cny_fen), (Currency::USD, usd_micro)] {
                        if amount > 0 {
                            let reference = format!("initial {currency}");
                            let credit = Credit { currency, amount: Amount::from(amount), reference };
                            users::credit_user_balance(tx, now, &SETUP, shop, &user, credit).await?;
                        }
                    }
                    let token = Token::generate(&mut rand::rng());
                    users::issue_user_token(tx, now, &SETUP, &user, &token, None).await?;
                    Ok::<_, anyhow::Error>((user.id, token.reveal_token().to_owned()))
                })
            })
            .await
            .expect("a user");
        self.secrets.lock().expect("no holder panics").push(token.clone());
        (user, token)
    }

    /// Returns the user's available balance in base units of `fiat/CURRENCY`.
    pub async fn balance(&self, user: UserId, currency: &str) -> Amount {
        let (asset, mode) = (chain::AssetId::fiat(currency), self.shop.mode);
        self.account(mode, money::ledger::Account::User(user), asset).await.available_amount()
    }

    pub async fn account(
        &self,
        mode: Mode,
        account: money::ledger::Account,
        asset: chain::AssetId,
    ) -> money::ledger::Balance {
        self.db
            .read("balance", move |tx| {
                Box::pin(async move { money::ledger::find_balance_or_zero(tx, mode, &account, &asset).await })
            })
            .await
            .expect("a balance")
    }

    pub async fn coupon(&self, new: coupons::NewCoupon) {
        let (now, shop) = (self.clock.now(), self.shop);
        self.db
            .write("create_coupon", move |tx| {
                Box::pin(async move { coupons::create_coupon(tx, now, &SETUP, shop, new).await })
            })
            .await
            .expect("a coupon");
    }

    pub async fn audit(&self) -> audit::AuditReport {
        self.db
            .read("audit", |tx| Box::pin(async move { audit::audit_ledger(tx).await }))
            .await
            .expect("the audit runs")
    }

    async fn assert_in_order(&self) {
        let report = self.audit().await;
        assert!(report.has_no_findings(), "{report}");
        let mismatches = self
            .db
            .read("audit_stock", |tx| Box::pin(async move { stock::list_stock_count_mismatches(tx).await }))
            .await;
        assert!(mismatches.expect("the stock audit runs").is_empty(), "stock counters and items differ");
        for untold in [UNTOLD, TOLD_TWICE] {
            let told =
                self.db.read("untold", move |tx| Box::pin(async move { tx.rows(untold, Vec::new()).await })).await;
            let orders: Vec<String> = told.expect("rows").iter().map(|row| row.get_at(0).expect("an order")).collect();
            assert!(orders.is_empty(), "the events do not tell once what became of {orders:?}");
        }
        if let Some(daemon) = &self.daemon {
            assert_eq!(daemon.tasks.count_panics(), 0, "a task panicked");
        }
        let logs = self.logs();
        for secret in self.secrets.lock().expect("no holder panics").iter() {
            assert!(!logs.contains(secret.as_str()), "a secret stands in the logs");
        }
        assert!(!logs.contains("buyer@example.com"), "an e-mail address stands in the logs");
        assert!(!logs.contains(PHRASE), "the seed stands in the logs");
    }

    /// Returns everything that this process logged since this world started, other worlds included. It is a copy,
    /// because a search under the lock would block every task that logs.
    pub fn logs(&self) -> String {
        let logs = captured().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let own = logs[self.log_start..].to_vec();
        drop(logs);
        String::from_utf8_lossy(&own).into_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.logs();
            let warnings: Vec<&str> =
                logs.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR")).collect();
            // The log has the lines of all worlds of this process: run one test alone to see only its own.
            eprintln!("the last warnings:\n{}", warnings[warnings.len().saturating_sub(12)..].join("\n"));
            return;
        }
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(self.assert_in_order()));
    }
}

async fn create_database(backend: Backend) -> TestDatabase {
    match backend {
        Backend::Sqlite => TestDatabase::create_sqlite(),
        Backend::Postgres => {
            let url = tokio::task::block_in_place(provision::postgres::start_shared_cluster)
                .unwrap_or_else(|e| panic!("{e}"));
            TestDatabase::create_postgres(&url).await
        }
    }
}

/// Creates the merchant of a test and returns its shop in test mode.
async fn create_shop(db: &Db, now: Instant) -> Shop {
    let merchant = db.write("create_merchant", move |tx| {
        Box::pin(async move { merchants::create_merchant(tx, now, &SETUP, uuid::Uuid::new_v4(), "shop", "Shop").await })
    });
    Shop { merchant: merchant.await.expect("a merchant"), mode: Mode::Test }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// Returns a configuration with model chains only, fixed rates, generous limits and the accounts of the test mnemonic.
pub fn test_config(folder: &Path) -> Config {
    let text = format!("{}\n{}", include_str!("world.toml"), accounts());
    Config::parse_and_validate(&folder.join("settled.toml"), &text, Vec::new()).unwrap_or_else(|e| panic!("{e}"))
}

/// Returns the accounts of the test mnemonic as TOML text.
pub fn accounts() -> String {
    let words = PHRASE.to_owned().into();
    let seed = Seed::from_words(&words, String::new().into()).expect("the phrase is valid");
    let mut text = String::new();
    for (family, name) in
        [(chain::Family::Bitcoin, "bitcoin"), (chain::Family::Evm, "evm"), (chain::Family::Tron, "tron")]
    {
        let account =
            KeyAccount::with_default_address_kind(family, bitcoin::Network::Bitcoin, AccountPurpose::TestDeposit, 0)
                .expect("an account");
        let kinds: &[AddressKind] = if family == chain::Family::Bitcoin {
            &[AddressKind::P2wpkh, AddressKind::P2tr]
        } else {
            &[AddressKind::P2wpkh]
        };
        for account in kinds.iter().map(|kind| account.with_address_kind(*kind)) {
            let (path, xpub) = (account.derivation_path(), account.derive_xpub(&seed));
            text += &format!(
                "[[accounts]]\nchain-family = \"{name}\"\npurpose = \"deposit-test\"\npath = \"{path}\"\nxpub = \"{xpub}\"\n\n"
            );
        }
    }
    text
}

/// Returns the buffer that contains everything that this process has logged.
fn captured() -> &'static Mutex<Vec<u8>> {
    static LOGS: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOGS.get_or_init(Mutex::default)
}

fn capture_logs() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        struct Writer;
        impl io::Write for Writer {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                captured().lock().expect("no holder panics").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).with_writer(|| Writer).init();
    });
}
