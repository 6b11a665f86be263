//! Setting up a shop with `settled admin`: import files, languages, coupons, prices, modes and hints.

use std::path::Path;

use crate::commands::program::{Running, install_migrated, run, run_with};

/// Creates an installation with the merchant `shop` and the product `box`, and returns the path of its configuration.
async fn install_shop(folder: &Path) -> String {
    let config = install_migrated(folder).await;
    for arguments in [["merchant", "create", "shop", "--name", "Shop"], ["product", "put", "box", "--price", "0.50"]] {
        run(&[&["admin"], &arguments[..], &["--config", &config]].concat()).await.done();
    }
    config
}

#[tokio::test]
async fn stock_files_of_every_editor_are_imported_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_shop(folder.path()).await;
    let import = async |format: &str, text: &str| {
        let arguments = ["admin", "stock", "import", "box", "--file", "-", "--format", format, "--config", &config];
        run_with(&arguments, text).await.done().trim().lines().last().unwrap_or_default().to_owned()
    };
    let cases = [
        (
            "lines",
            "\u{feff}one----1\rtwo----2\r\rthree----3",
            "3 items were added to `box`; 0 duplicates were skipped.",
        ),
        (
            "lines",
            "one----1\r\ntwo----2\n\u{feff}three----3\n",
            "0 items were added to `box`; 3 duplicates were skipped.",
        ),
        ("csv", "\u{feff}line\rfour----4\r\"five----5\"\r", "2 items were added to `box`; 0 duplicates were skipped."),
        (
            "json",
            "\u{feff}[\"\u{feff}five----5\", \"six----6\"]",
            "1 items were added to `box`; 1 duplicates were skipped.",
        ),
    ];
    for (format, text, expected) in cases {
        assert_eq!(import(format, text).await, expected, "{format} {text:?}");
    }
}

#[tokio::test]
async fn a_stock_file_is_imported_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_shop(folder.path()).await;
    let import = async |format: &str, text: &str| {
        let arguments = ["admin", "stock", "import", "box", "--file", "-", "--format", format, "--config", &config];
        run_with(&arguments, text).await
    };
    let in_stock = async || run(&["admin", "product", "list", "--config", &config]).await.done();
    let long = "x".repeat(9_000);
    // Empty lines count as lines of the file.
    let mut lines: Vec<String> = (1..=12_000).map(|n| format!("key-{n}\n")).collect();
    lines.insert(11_000, format!("\n\n{long}\n"));
    let refused = import("lines", &lines.concat()).await;
    assert!(
        refused.code == 1 && refused.err.contains("line 11003") && refused.err.contains("8192 bytes"),
        "{}",
        refused.err
    );
    assert!(!refused.err.contains(&long), "the text of an item is never shown");
    assert!(in_stock().await.contains("\t0 in stock"), "not one line was imported");
    let csv = format!("line\n\"a\n---\"\n{long}\n");
    let refused = import("csv", &csv).await;
    assert!(refused.code == 1 && refused.err.contains("line 4"), "{}", refused.err);
    let refused = import("json", &format!("[\"a\", \" \", \"{long}\"]")).await;
    assert!(refused.code == 1 && refused.err.contains("entry 2"), "{}", refused.err);
    assert!(in_stock().await.contains("\t0 in stock"), "not one line was imported");

    lines.remove(11_000);
    let done = import("lines", &lines.concat()).await.done();
    let said: Vec<&str> = done.lines().collect();
    assert_eq!(said.len(), 4, "{done}");
    assert!(said[0].starts_with("5000 of 12000 lines") && said[2].starts_with("12000 of 12000 lines"), "{done}");
    assert_eq!(said[3], "12000 items were added to `box`; 0 duplicates were skipped.");
    assert!(in_stock().await.contains("\t12000 in stock"));
    let again = import("lines", &lines.concat()).await.done();
    assert!(again.ends_with("0 items were added to `box`; 12000 duplicates were skipped.\n"), "{again}");
    assert!(in_stock().await.contains("\t12000 in stock"));
}

#[tokio::test]
async fn a_coupon_begins_before_it_ends_and_is_listed_with_its_terms() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_shop(folder.path()).await;
    let admin = async |arguments: &[&str]| run(&[&["admin"], arguments, &["--config", &config]].concat()).await;
    let (spring, summer) = ("2030-03-01T00:00:00Z", "2030-06-01T00:00:00Z");
    for ends in [spring, "2030-02-28T23:59:59Z"] {
        let refused =
            admin(&["coupon", "create", "back", "--percent", "10", "--starts-at", spring, "--ends-at", ends]).await;
        assert!(refused.code == 1 && refused.err.contains("ends before it begins"), "{refused:?}");
    }
    let refused = admin(&["coupon", "create", "none", "--percent", "10", "--max-uses", "0"]).await;
    assert!(refused.code == 1 && refused.err.contains("at least 1"), "{refused:?}");
    let dates = ["coupon", "create", "spring", "--percent", "2.5", "--starts-at", spring, "--ends-at", summer];
    admin(&[&dates[..], &["--min-amount", "20", "--product", "box"]].concat()).await.done();
    let listed = admin(&["coupon", "list"]).await.done();
    let terms =
        "SPRING\t2.5 %\tused 0, no limit\tfrom 2030-03-01T00:00:00Z\tuntil 2030-06-01T00:00:00Z\tfrom 20 CNY\tonly box";
    assert_eq!(listed.trim(), terms);
}

#[tokio::test]
async fn a_product_that_buyers_cannot_see_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_shop(folder.path()).await;
    let admin = async |arguments: &[&str]| run(&[&["admin"], arguments, &["--config", &config]].concat()).await;
    let put = admin(&["product", "put", "vpn", "--price", "5", "--currency", "USD"]).await.done();
    assert!(put.contains("`vpn` has no price in CNY, so buyers do not see it"), "{put}");
    let listed = admin(&["product", "list"]).await.done();
    assert!(listed.contains("\tactive, but hidden: no price in CNY\t5 USD\t"), "{listed}");
    let put = admin(&["product", "put", "vpn", "--price", "35"]).await.done();
    assert_eq!(put.trim(), "0 products were created, 1 were changed.");
    let listed = admin(&["product", "list"]).await.done();
    assert!(listed.contains("\tactive\t35 CNY, 5 USD\t"), "{listed}");

    let other = admin(&["product", "put", "toy", "--price", "5", "--mode", "test"]).await.done();
    assert!(other.contains("The checkout surface sells in live mode, so buyers do not see this."), "{other}");
    assert!(!admin(&["product", "list"]).await.done().contains("toy"));
    assert!(admin(&["product", "list", "--mode", "test"]).await.done().contains("toy"));
}

#[tokio::test]
async fn a_price_of_zero_must_be_meant() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_shop(folder.path()).await;
    let admin = async |arguments: &[&str], input: &str| {
        run_with(&[&["admin"], arguments, &["--config", &config]].concat(), input).await
    };
    let refused = admin(&["product", "put", "gift", "--price", "0.00"], "").await;
    assert!(refused.code == 1 && refused.err.contains("--free"), "{refused:?}");
    let csv = ["product", "import", "--file", "-", "--format", "csv"];
    let refused = admin(&csv, "slug,price\ngift,0\n").await;
    assert!(
        refused.code == 1 && refused.err.contains("product `gift`") && refused.err.contains("`free`"),
        "{refused:?}"
    );
    admin(&["product", "put", "gift", "--price", "0", "--free"], "").await.done();
    admin(&csv, "slug,price,free\nsample,0,true\n").await.done();
    let refused = admin(&["product", "put", "gift", "--price", "1", "--free"], "").await;
    assert!(refused.code == 1 && refused.err.contains("price of 0"), "{refused:?}");
    assert_eq!(admin(&["product", "list"], "").await.done().matches("\t0 CNY\t").count(), 2);
}

#[tokio::test]
async fn hints_name_the_configuration_and_the_mode() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_migrated(folder.path()).await;
    let admin = async |arguments: &[&str]| run(&[&["admin"], arguments, &["--config", &config]].concat()).await;
    let nobody = admin(&["user", "create", "alice"]).await;
    assert!(nobody.err.contains(&format!("`settled admin merchant create shop --config {config}`")), "{nobody:?}");
    let check = run(&["check", "--config", &config]).await;
    assert!(check.out.contains(&format!("`settled admin merchant create shop --config {config}`")), "{check:?}");
    admin(&["merchant", "create", "shop"]).await.done();
    let none = admin(&["product", "list", "--mode", "test"]).await.done();
    let hint = format!("`settled admin product put SLUG --price 0.50 --mode test --config {config}`");
    assert!(none.contains(&hint), "{none}");
    let user = admin(&["user", "create", "alice"]).await.done();
    assert!(user.contains(&format!("`settled admin token issue alice --config {config}`")), "{user}");
}

#[tokio::test]
async fn names_are_shown_in_every_spelling_of_a_language_tag() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Running::demo(folder.path(), &[]).await;
    let data = folder.path().to_str().unwrap();
    // Neither the merchant nor the mode is named: they are those of the surface.
    let admin = async |arguments: &[&str]| run(&[&["admin"], arguments, &["--data", data]].concat()).await;
    for (slug, zh, en) in [("one", "zh-CN", "EN"), ("two", "ZH", "en_US"), ("three", "zh_Hans_CN", "en-GB")] {
        let (zh, en) = (format!("{zh}=盒子"), format!("{en}=Box"));
        admin(&["product", "put", slug, "--price", "1", "--name", &zh, "--name", &en]).await.done();
        let shown = demo.get(&format!("/api/products/{slug}")).await["product"].clone();
        assert_eq!((&shown["name_zh"], &shown["name_en"]), (&"盒子".into(), &"Box".into()), "{slug}");
    }
    // The exact tag comes before a variant of it.
    admin(&["product", "put", "one", "--price", "1", "--name", "zh=箱子"]).await.done();
    assert_eq!(demo.get("/api/products/one").await["product"]["name_zh"], "箱子");
    let refused = admin(&["product", "put", "one", "--price", "1", "--name", "中文=盒子"]).await;
    assert!(
        refused.code != 0 && refused.err.contains("`中文` is not a language tag such as en or zh-CN"),
        "{refused:?}"
    );
    demo.end().await;
}
