//! A daemon in this process, with its own database and one product that never runs out of stock.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use clock::Clock;
use config::Config;
use db::{self, Db};
use envelope::Envelope;
use ids::{Mode, Shop as Owner};
use money::pricing::Currency;
use records::audit_log::Actor;
use settled::daemon::drivers::list_enabled_simnet_chains;
use settled::daemon::{Daemon, Setup};
use shop::catalog::{LocalizedTexts, NewProduct, PriceTier};
use shop::{catalog, merchants, stock};
use signer::accounts::{AccountPurpose, KeyAccount};
use signer::seed::Seed;
use simnet::Simnet;

use crate::client::{self, HttpConnection};
use crate::databases::SqliteFile;

/// The test phrase of BIP39; it is public and holds no money.
const PHRASE: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
/// The number of items in stock, more than all runs together buy.
const ITEMS: usize = 20_000;

pub struct BenchShop {
    daemon: Daemon,
    /// The public id of the product.
    pub product: String,
    folder: tempfile::TempDir,
}

impl BenchShop {
    pub async fn connect(url: &str) -> BenchShop {
        BenchShop::open(Db::open(&db::Config::new(url)).await.expect("the database opens")).await
    }

    /// Starts a daemon on a migrated database.
    pub async fn open(db: Db) -> BenchShop {
        let folder = tempfile::tempdir().expect("the temporary folder is created");
        let envelope = Envelope::load_key_file_or_create_if_none(folder.path()).expect("the envelope keys are created");
        let product = create_product(&db, &Clock::System, &envelope).await;
        BenchShop::start(db, folder, product).await
    }

    /// Stops the daemon and starts it again on the same database.
    pub async fn restart(self, file: &SqliteFile) -> BenchShop {
        let BenchShop { daemon, product, folder } = self;
        daemon.shut_down().await;
        BenchShop::start(file.open().await, folder, product).await
    }

    async fn start(db: Db, folder: tempfile::TempDir, product: String) -> BenchShop {
        let config = config(folder.path());
        let clock = Clock::System;
        let seconds = clock.now().unix_seconds();
        let simnet = Simnet::create_in_memory(list_enabled_simnet_chains(&config), 7, seconds - 3_600);
        for chain in simnet.list_chains() {
            simnet.mine(&chain, 3, seconds - 60);
        }
        let envelope =
            Arc::new(Envelope::load_key_file_or_create_if_none(folder.path()).expect("the envelope keys are created"));
        let setup = Setup {
            config,
            clock,
            db,
            envelope,
            simnet: Some(simnet),
            cursor_flush_ms: 1_000,
            join: false,
            autonomous: false,
        };
        let daemon = Daemon::start_daemon(setup).await.expect("the daemon starts");
        BenchShop { daemon, product, folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.daemon.address
    }

    /// Creates an order and returns its public id.
    pub async fn order(&self) -> String {
        let body = format!(
            r#"{{"productId":"{}","quantity":1,"contactEmail":"a@example.com","paymentMethod":"crypto","coin":"erc20_usdt"}}"#,
            self.product
        );
        let mut client = HttpConnection::connect(self.address()).await;
        let answer = client.request(&client::post("/api/orders", &body), "201").await;
        let answer: serde_json::Value = serde_json::from_str(answer).expect("the answer is JSON");
        answer["order"]["id"].as_str().expect("the answer contains an id").to_owned()
    }

    pub async fn close(self) {
        self.daemon.shut_down().await;
    }
}

fn config(folder: &Path) -> Config {
    let words = PHRASE.to_owned().into();
    let seed = Seed::from_words(&words, String::new().into()).expect("the phrase is valid");
    let account = KeyAccount::with_default_address_kind(
        chain::Family::Evm,
        bitcoin::Network::Bitcoin,
        AccountPurpose::TestDeposit,
        0,
    )
    .expect("the account exists");
    let xpub = account.derive_xpub(&seed);
    let text = format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        requests_per_minute = 1_000_000
        [data]
        folder = "."
        mark_path = "addresses.mark"
        [surfaces.checkout]
        mode = "test"
        orders_per_ip_per_minute = 1_000_000
        [chains.ethereum]
        enabled = true
        driver = "simnet"
        mode = "test"
        [rates]
        mode = "fixed"
        [rates.fixed]
        "USD/CNY" = "7.24"
        "ETH/USD" = "3200"
        "USDT/USD" = "1"
        [[accounts]]
        chain-family = "evm"
        purpose = "deposit-test"
        xpub = "{xpub}"
        "#
    );
    Config::parse_and_validate(&folder.join("settled.toml"), &text, Vec::new()).unwrap_or_else(|e| panic!("{e}"))
}

/// The actor of the actions that set up the shop.
const SETUP: Actor = Actor::CommandLine { uid: 0 };

/// Creates a merchant, a product and its stock. Returns the public id of the product.
async fn create_product(db: &Db, clock: &Clock, envelope: &Envelope) -> String {
    let (now, product) = (clock.now(), uuid::Uuid::new_v4());
    let created = db.write("create_product", move |tx| {
        Box::pin(async move {
            let merchant = merchants::create_merchant(tx, now, &SETUP, uuid::Uuid::new_v4(), "shop", "Shop").await?;
            let new = NewProduct {
                public_id: product,
                slug: "mailbox".to_owned(),
                min_quantity: 1,
                max_quantity: 200,
                position: 0,
                currency: Currency::CNY,
                tiers: vec![PriceTier { from_quantity: 1, unit_price: 724 }],
                texts: LocalizedTexts::default().with_text("name", "en", "Mailbox"),
            };
            let created =
                catalog::create_product_without_stock(tx, now, Owner { merchant, mode: Mode::Test }, new).await?;
            Ok::<_, anyhow::Error>(created)
        })
    });
    let (_, sku) = created.await.expect("the product is created");
    for part in 0..ITEMS / stock::IMPORT_LINES_MAX {
        let lines: Vec<String> = (0..stock::IMPORT_LINES_MAX).map(|line| format!("account-{part}-{line}")).collect();
        let sealed = stock::validate_and_encrypt_lines(envelope, sku, lines.iter().map(String::as_str))
            .expect("the lines are encrypted");
        let import = db.write("import", move |tx| {
            Box::pin(async move { stock::import_stock_items(tx, now, &SETUP, "mailbox", sku, sealed).await })
        });
        import.await.expect("the stock is imported");
    }
    product.to_string()
}
