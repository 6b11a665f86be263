//! Operator commands for reviews, orders and products: the binary works on the database of a running world.

use std::path::Path;

use clock::Clock;
use db::{Backend, Db, Row};
use provision::postgres;
use records::reviews::{self, Kind};
use url::Url;

use crate::aftermath::request;
use crate::commands::program::{Ended, run_with};
use crate::world::{SETUP, World, accounts};

/// Runs the binary with the world's database and data folder.
struct Desk {
    config: String,
    _folder: tempfile::TempDir,
}

impl Desk {
    async fn open(world: &World) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let data = world.config.data.folder.to_str().unwrap();
        let chains = include_str!("../world.toml").replace("folder = \".\"", &format!("folder = \"{data}\""));
        let text = format!("{chains}\n{}\n{}", database_of(&world.db, folder.path()).await, accounts());
        let config = folder.path().join("settled.toml");
        std::fs::write(&config, text).unwrap();
        Desk { config: config.to_str().unwrap().to_owned(), _folder: folder }
    }

    async fn admin(&self, arguments: &[&str]) -> Ended {
        self.admin_with(arguments, "").await
    }

    async fn admin_with(&self, arguments: &[&str], input: &str) -> Ended {
        run_with(&[&["admin"], arguments, &["--config", &self.config]].concat(), input).await
    }

    /// Runs a command that must be refused and returns its message.
    async fn refused(&self, arguments: &[&str]) -> String {
        let ended = self.admin(arguments).await;
        assert!(ended.code == 1 && ended.out.is_empty(), "{ended:?}");
        ended.err
    }
}

/// Returns the configuration section that names this database.
async fn database_of(db: &Db, folder: &Path) -> String {
    match db.backend() {
        Backend::Sqlite => {
            let file: String = one(db, "select file from pragma_database_list where name = 'main'").await;
            format!("[database]\nurl = \"sqlite:{file}\"\n")
        }
        Backend::Postgres => {
            let mut url = Url::parse(&tokio::task::block_in_place(postgres::start_shared_cluster).unwrap()).unwrap();
            url.set_path(&one(db, "select cast(current_database() as text)").await);
            let password = folder.join("password");
            std::fs::write(&password, url.password().unwrap_or_default()).unwrap();
            let has_password = url.password().is_some();
            url.set_password(None).unwrap();
            let file = if has_password { password.display().to_string() } else { String::new() };
            format!("[database]\nurl = \"{url}\"\npassword_file = \"{file}\"\n")
        }
    }
}

async fn rows(db: &Db, sql: &'static str) -> Vec<Row> {
    db.read("look", move |tx| Box::pin(async move { tx.rows(sql, Vec::new()).await })).await.unwrap()
}

async fn one(db: &Db, sql: &'static str) -> String {
    rows(db, sql).await.first().unwrap().get_at(0).unwrap()
}

/// Returns the entries of the audit log except those of the test's own set-up, oldest first.
async fn audit_entries(db: &Db) -> Vec<String> {
    let entries = rows(db, "select action, subject, detail, actor from audit_log order by seq").await;
    let text = |row: &Row, column: usize| row.get_at::<String>(column).unwrap();
    let by_operator = entries.iter().filter(|row| text(row, 3) != SETUP.to_string()).map(|row| {
        assert!(text(row, 3).starts_with("uid "));
        format!("{} {}: {}", text(row, 0), text(row, 1), text(row, 2))
    });
    by_operator.collect()
}

both! {
    async fn an_operator_lists_and_closes_reviews(world: World) {
        let desk = Desk::open(&world).await;
        assert_eq!(desk.admin(&["review", "list"]).await.done().trim(), "Nothing waits for a person.");
        let now = world.clock.now();
        world.db.write("open", move |tx| Box::pin(async move {
            for (seconds, kind, subject) in [(7, Kind::PaymentShort, "invoice/3"),
                (5, Kind::DepositUnallocated, "deposit/1"),
                (6, Kind::PaymentShort, "invoice/2")] {
                let detail = format!("{subject} was short");
                reviews::open_or_reopen_review(tx, now.plus_seconds(seconds), kind, subject, &detail).await?;
            }
            Ok::<_, db::Error>(())
        })).await.unwrap();

        let all = desk.admin(&["review", "list"]).await.done();
        let blocks: Vec<&str> = all.trim().split("\n\n").collect();
        assert_eq!(blocks, [
            "deposit.unallocated deposit/1\n  since 2026-02-11T12:00:05Z\n  deposit/1 was short",
            "payment.short invoice/2\n  since 2026-02-11T12:00:06Z\n  invoice/2 was short",
            "payment.short invoice/3\n  since 2026-02-11T12:00:07Z\n  invoice/3 was short",
        ]);
        let oldest = desk.admin(&["review", "list", "--limit", "1"]).await.done();
        assert!(oldest.contains("deposit/1") && oldest.contains("and 2 more") && !oldest.contains("invoice/2"), "{oldest}");
        for wrong in [&["review", "list", "--limit", "0"][..], &["review", "close", "payment.short", "invoice/2"]] {
            assert_eq!(desk.admin(wrong).await.code, 2, "{wrong:?}");
        }

        let close = ["review", "close", "payment.short", "invoice/2", "--note", "given back by hand"];
        assert!(desk.admin(&close).await.done().contains("Review payment.short invoice/2 is closed."));
        assert!(desk.refused(&close).await.contains("settled admin review list"), "it is closed already");
        for unknown in [["payment.short", "invoice/1"], ["payment.long", "invoice/3"]] {
            let close = [&["review", "close"], &unknown[..], &["--note", "seen"]].concat();
            assert!(desk.refused(&close).await.contains("no review"));
        }
        assert!(desk.refused(&["review", "close", "payment.short", "invoice/3", "--note", " "]).await.contains("a note has"));

        let left = desk.admin(&["review", "list"]).await.done();
        assert!(left.contains("invoice/3") && !left.contains("invoice/2") && !left.contains("more"), "{left}");
        assert_eq!(audit_entries(&world.db).await, ["review.close invoice/2: payment.short: given back by hand"]);
        let note = one(&world.db, "select closing_note from reviews where subject = 'invoice/2'").await;
        assert_eq!(note, "given back by hand");
    }

    async fn an_operator_shows_and_cancels_an_order(world: World) {
        let desk = Desk::open(&world).await;
        let order = world.place_order("trc20_usdt").await;
        let shown = desk.admin(&["order", "show", &order.order_no]).await.done();
        for line in [
            &format!("order {} ({})\n  state: awaiting_payment\n", order.order_no, order.id),
            "  shop: shop, test, surface checkout\n  amount: 1 CNY\n",
            "  e-mail: buyer@example.com\npayment crypto: pending\n",
            &format!("  address: {} on tron\n  due: 0.13813 USDT until ", order.address),
            "  received: 0 USDT, confirmed 0 USDT\nlines:\n",
            "  2 of mailbox-usa-fresh at 0.5 CNY: pending",
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
        assert_eq!(desk.admin(&["order", "show", &order.id.to_uppercase()]).await.done(), shown, "by its id");
        for verb in ["show", "cancel", "confirm"] {
            assert!(desk.refused(&["order", verb, "CO20260211AAAAAAAAAAAA"]).await.contains("there is no order `CO2026"));
        }
        assert!(desk.refused(&["order", "confirm", &order.order_no]).await.contains("which needs no confirmation"));

        world.pay("trc20_usdt", &order.address, "0.1");
        world.mine("trc20_usdt", 1);
        world.run_until_idle().await;
        let shown = desk.admin(&["order", "show", &order.order_no]).await.done();
        assert!(shown.contains("  received: 0.1 USDT, confirmed") && shown.contains("newest transaction: "), "{shown}");
        let refused = desk.refused(&["order", "cancel", &order.order_no]).await;
        assert!(refused.contains(&format!("order {} cannot be cancelled", order.order_no)), "{refused}");

        let other = world.place_order_of(5, "eth").await;
        assert_eq!(world.stock(&world.product).await, 293);
        let cancelled = desk.admin(&["order", "cancel", &format!(" {} ", other.order_no)]).await.done();
        assert!(cancelled.contains("is cancelled") && cancelled.contains("is booked and opens a review"), "{cancelled}");
        world.assert_status(&other, "cancelled", "expired").await;
        assert_eq!(world.stock(&world.product).await, 298);
        let refused = desk.refused(&["order", "cancel", &other.order_no]).await;
        assert!(refused.contains("is already cancelled"), "{refused}");
        let shown = desk.admin(&["order", "show", &other.order_no]).await.done();
        assert!(shown.contains("state: cancelled") && shown.contains("  ended: "), "{shown}");
        assert_eq!(audit_entries(&world.db).await, [format!("order.cancel {}: 2.5 CNY by crypto", other.order_no)]);
    }

    async fn an_operator_confirms_an_external_payment(world: World = |config| {
        config.surfaces.checkout.wechat_url = "https://pay.example/wechat/{order_no}".into();
    }) {
        let desk = Desk::open(&world).await;
        let order = async || {
            let body = serde_json::json!({ "productId": world.product.id, "quantity": 3,
                "contactEmail": "buyer@example.com", "paymentMethod": "wechat" });
            let answer = world.post("/api/orders", &body).await;
            (answer.text_at("order.order_no"), answer.text_at("order.id"))
        };
        let (paid, id) = order().await;
        let shown = desk.admin(&["order", "show", &paid]).await.done();
        let page = format!("payment wechat: pending\n  page: https://pay.example/wechat/{paid}\nlines:");
        assert!(shown.contains(&page) && shown.contains("window ends: "), "{shown}");
        let confirmed = desk.admin(&["order", "confirm", &paid]).await.done();
        assert!(confirmed.contains(&format!("Order {paid} is paid; it will be delivered when the daemon runs")), "{confirmed}");
        let twice = desk.refused(&["order", "confirm", &paid]).await;
        assert!(twice.contains("is paid and its payment success"), "{twice}");
        assert!(desk.refused(&["order", "cancel", &paid]).await.contains("is already paid"));

        // The binary uses the machine's clock.
        world.advance_seconds(Clock::System.now().since(world.clock.now()).max(0) / 1_000 + 1);
        world.run_until_idle().await;
        assert_eq!(world.status(&id).await.text_at("status"), "completed");
        let shown = desk.admin(&["order", "show", &paid]).await.done();
        assert!(shown.contains("3 of mailbox-usa-fresh at 0.5 CNY: delivered"), "{shown}");
        assert!(!shown.contains("----"), "goods are never shown: {shown}");

        // The daemon receives the command through its control socket, so it delivers at once.
        let (second, id) = order().await;
        let confirm = serde_json::json!({ "confirm-order": { "order": second } });
        assert!(request(&world, "admin", confirm).await.unwrap().to_string().contains("it is being delivered"));
        world.run_until_idle().await;
        assert_eq!(world.status(&id).await.text_at("status"), "completed");

        let (late, _) = order().await;
        world.advance_seconds(3_600);
        world.run_until_idle().await;
        let refused = desk.refused(&["order", "confirm", &late]).await;
        assert!(refused.contains("is expired and its payment expired"), "{refused}");
        assert_eq!(audit_entries(&world.db).await, [&paid, &second].map(|no| format!("order.confirm {no}: 1.5 CNY by wechat")));
    }

    async fn product_put_keeps_options_that_are_not_given(world: World) {
        let desk = Desk::open(&world).await;
        let admin = async |arguments: &[&str], input: &str| {
            desk.admin_with(&[arguments, &["--mode", "test"]].concat(), input).await
        };
        let list = async || {
            let all = admin(&["product", "list"], "").await.done();
            let line = |slug: &str| {
                let line = all.lines().find(|line| line.starts_with(&format!("{slug}\t"))).unwrap();
                line.split('\t').skip(2).collect::<Vec<_>>().join("|")
            };
            (line("box"), all.lines().any(|line| line.starts_with("far\t")).then(|| line("far")))
        };
        let limits = ["--min-quantity", "5", "--max-quantity", "50"];
        admin(&[&["product", "put", "box", "--price", "0.50", "--name", "en=Box"], &limits[..]].concat(), "").await.done();
        admin(&["product", "put", "box", "--price", "0.60"], "").await.done();
        assert_eq!(list().await.0, "active|0.6 CNY|0 in stock|orders of 5 to 50");
        let json = r#"[{"slug": "box", "price": "0.70"}]"#;
        admin(&["product", "import", "--file", "-", "--format", "json"], json).await.done();
        assert_eq!(list().await.0, "active|0.7 CNY|0 in stock|orders of 5 to 50");
        let csv = "slug,price,min_quantity\nbox,0.80,\n";
        admin(&["product", "import", "--file", "-", "--format", "csv"], csv).await.done();
        assert_eq!(list().await.0, "active|0.8 CNY|0 in stock|orders of 5 to 50");
        admin(&["product", "put", "box", "--price", "0.80", "--max-quantity", "60"], "").await.done();
        assert_eq!(list().await.0, "active|0.8 CNY|0 in stock|orders of 5 to 60");
        let wrong = admin(&["product", "put", "box", "--price", "0.80", "--min-quantity", "61"], "").await;
        assert!(wrong.code == 1 && wrong.err.contains("they would be 61 and 60"), "{wrong:?}");
        assert_eq!(world.get("/api/products/box").await.text_at("product.name_en"), "Box", "its name stayed too");

        admin(&["product", "put", "far", "--price", "0.08", "--currency", "USD"], "").await.done();
        assert_eq!(list().await.1.unwrap(), "active, but hidden: no price in CNY|0.08 USD|0 in stock|orders of 1 to 200");
        assert_eq!(world.get("/api/products/far").await.status, 404, "this surface sells in CNY");
        admin(&["stock", "import", "far", "--file", "-"], "one----1\n").await.done();
        admin(&["product", "set", "far", "--inactive"], "").await.done();
        admin(&["product", "set", "far", "--active"], "").await.done();
        let put = admin(&["product", "put", "far", "--price", "0.60"], "").await.done();
        assert_eq!(put.trim(), "0 products were created, 1 were changed.");
        assert_eq!(list().await.1.unwrap(), "active|0.6 CNY, 0.08 USD|1 in stock|orders of 1 to 200");
        assert_eq!(world.stock(&crate::world::Product { slug: "far".into(), ..world.product.clone() }).await, 1);
        let unknown = admin(&["product", "set", "near", "--inactive"], "").await;
        assert!(unknown.code == 1 && unknown.err.contains("there is no product `near`"), "{unknown:?}");
    }
}
