//! A daemon in this process with one product and plenty of it, on a database of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use clock::Clock;
use config::Config;
use db::{self, Db};
use envelope::Envelope;
use ids::{Mode, Shop as Owner};
use money::pricing::Currency;
use settled::daemon::{Daemon, Setup, simnet_specs};
use records::audit_log::Actor;
use shop::catalog::{LocalizedTexts, NewProduct, PriceTier};
use shop::{catalog, merchants, stock};
use signer::accounts::{KeyAccount, Purpose};
use signer::seed::Seed;
use simnet::Simnet;

use crate::books::SqliteFile;
use crate::client::{self, Client};

/// The test phrase of BIP39, worthless and known to everybody.
const PHRASE: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
/// More than all crowds buy.
const ITEMS: usize = 20_000;

pub struct Shop {
    daemon: Daemon,
    /// Its public id.
    pub product: String,
    folder: tempfile::TempDir,
}

impl Shop {
    pub async fn connect(url: &str) -> Shop {
        Shop::open(Db::open(&db::Config::new(url)).await.expect("a database")).await
    }

    /// The database is migrated already.
    pub async fn open(db: Db) -> Shop {
        let folder = tempfile::tempdir().expect("a folder");
        let envelope = Envelope::load_or_create(folder.path()).expect("envelope keys");
        let product = fill(&db, &Clock::System, &envelope).await;
        Shop::start(db, folder, product).await
    }

    /// Stops, and starts again on the same database.
    pub async fn restart(self, file: &SqliteFile) -> Shop {
        let Shop { daemon, product, folder } = self;
        daemon.stop().await;
        Shop::start(file.open().await, folder, product).await
    }

    async fn start(db: Db, folder: tempfile::TempDir, product: String) -> Shop {
        let config = config(folder.path());
        let clock = Clock::System;
        let seconds = clock.now().unix_seconds();
        let simnet = Simnet::in_memory(simnet_specs(&config), 7, seconds - 3_600);
        for chain in simnet.chains() {
            simnet.mine(&chain, 3, seconds - 60);
        }
        let envelope = Arc::new(Envelope::load_or_create(folder.path()).expect("envelope keys"));
        let setup =
            Setup { config, clock, db, envelope, simnet: Some(simnet), cursor_flush_ms: 1_000, autonomous: false };
        let daemon = Daemon::start(setup).await.expect("the daemon starts");
        Shop { daemon, product, folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.daemon.address
    }

    /// The public id of a new order.
    pub async fn order(&self) -> String {
        let body = format!(
            r#"{{"productId":"{}","quantity":1,"contactEmail":"a@example.com","paymentMethod":"crypto","coin":"erc20_usdt"}}"#,
            self.product
        );
        let mut client = Client::connect(self.address()).await;
        let answer = client.ask(&client::post("/api/orders", &body), "201").await;
        let answer: serde_json::Value = serde_json::from_str(answer).expect("JSON");
        answer["order"]["id"].as_str().expect("an id").to_owned()
    }

    pub async fn close(self) {
        self.daemon.stop().await;
    }
}

fn config(folder: &Path) -> Config {
    let words = PHRASE.to_owned().into();
    let seed = Seed::from_words(&words, String::new().into()).expect("the phrase is valid");
    let account =
        KeyAccount::new(chain::Family::Evm, bitcoin::Network::Bitcoin, Purpose::TestDeposit, 0).expect("a path");
    let xpub = seed.account_xpub(&account);
    let text = format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        requests_per_minute = 1_000_000
        [data]
        folder = "."
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
    Config::parse(&folder.join("settled.toml"), &text, Vec::new()).unwrap_or_else(|e| panic!("{e}"))
}

/// The actor of the actions that set up the shop.
const SETUP: Actor = Actor::CommandLine { uid: 0 };

/// Returns the public id of the product.
async fn fill(db: &Db, clock: &Clock, envelope: &Envelope) -> String {
    let (now, product) = (clock.now(), uuid::Uuid::new_v4());
    let created = db.write("create_product", move |tx| {
        Box::pin(async move {
            let merchant = merchants::create(tx, now, &SETUP, uuid::Uuid::new_v4(), "shop", "Shop").await?;
            let new = NewProduct {
                public_id: product,
                slug: "mailbox".to_owned(),
                min_quantity: 1,
                max_quantity: 200,
                position: 0,
                currency: Currency::CNY,
                tiers: vec![PriceTier { from_quantity: 1, unit_price: 724 }],
                texts: LocalizedTexts::default().with("name", "en", "Mailbox"),
            };
            let created = catalog::create(tx, now, Owner { merchant, mode: Mode::Test }, new).await?;
            Ok::<_, anyhow::Error>(created)
        })
    });
    let (_, sku) = created.await.expect("a product");
    for part in 0..ITEMS / stock::IMPORT_LINES_MAX {
        let lines: Vec<String> = (0..stock::IMPORT_LINES_MAX).map(|line| format!("account-{part}-{line}")).collect();
        let sealed = stock::encrypt_lines(envelope, sku, lines.iter().map(String::as_str)).expect("lines");
        let import = db.write("import", move |tx| Box::pin(async move { stock::import(tx, now, &SETUP, "mailbox", sku, sealed).await }));
        import.await.expect("stock");
    }
    product.to_string()
}
