//! Commands that work on an installation without a running daemon.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use provision::anvil::{Anvil, AnvilOptions};
use rusqlite::Connection;

use crate::commands::program::{install_migrated, run, run_with, settled, write_configuration};
use crate::world::accounts;

#[tokio::test]
async fn an_operator_sets_up_a_shop() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_migrated(folder.path()).await;
    let admin = async |arguments: &[&str], input: &str| {
        run_with(&[&["admin"], arguments, &["--config", &config]].concat(), input).await
    };
    let nobody = admin(&["user", "create", "alice"], "").await;
    assert!(nobody.code == 1 && nobody.err.contains("settled admin merchant create shop"), "{nobody:?}");

    assert!(admin(&["merchant", "create", "shop", "--name", "My Shop"], "").await.done().contains("created"));
    assert_eq!(admin(&["merchant", "create", "shop"], "").await.code, 1, "there is one already");
    assert!(admin(&["merchant", "list"], "").await.done().contains("My Shop"));

    admin(&["product", "put", "box", "--price", "0.50", "--name", "en=Box", "--name", "zh=盒子"], "").await.done();
    let json = r#"[{"slug": "vpn", "price": "19.90", "names": {"en": "VPN"}}, {"slug": "box", "price": "0.60"}]"#;
    let put = admin(&["product", "import", "--file", "-", "--format", "json"], json).await.done();
    assert_eq!(put.trim(), "1 products were created, 1 were changed.");
    let csv = "slug,price,min_quantity,name_en\nkey,128.00,2,\"Game, Key\"\n";
    admin(&["product", "import", "--file", "-", "--format", "csv"], csv).await.done();
    let products = admin(&["product", "list"], "").await.done();
    for line in ["box\t", "0.6 CNY", "19.9 CNY", "128 CNY"] {
        assert!(products.contains(line), "{products}");
    }
    let wrong = admin(&["product", "import", "--file", "-", "--format", "csv"], "slug,price\nx,-1\n").await;
    assert!(wrong.code == 1 && wrong.err.contains('x'), "{wrong:?}");
    admin(&["product", "set", "vpn", "--inactive"], "").await.done();
    assert!(admin(&["product", "list"], "").await.done().contains("inactive"));

    let goods = folder.path().join("goods.csv");
    std::fs::write(&goods, "line\none----1\ntwo----2\n").unwrap();
    let goods = goods.to_str().unwrap();
    let added = admin(&["stock", "import", "box", "--file", goods], "").await.done();
    assert_eq!(added.trim(), "2 items were added to `box`; 0 duplicates were skipped.");
    let added = admin(&["stock", "import", "box", "--file", "-"], "two----2\n\nthree----3\n").await.done();
    assert_eq!(added.trim(), "1 items were added to `box`; 1 duplicates were skipped.");
    assert!(admin(&["product", "list"], "").await.done().contains("3 in stock"));
    let numbers = async |more: &[&str]| {
        let listed = admin(&[&["stock", "list", "box"], more].concat(), "").await.done();
        assert!(!listed.contains("----"), "what stands in them is not shown: {listed}");
        listed
    };
    let listed = numbers(&[]).await;
    let (number, rest) = listed.split_once('\t').unwrap();
    assert!(rest.starts_with("in_stock\timported 2") && listed.lines().count() == 3, "{listed}");
    assert!(admin(&["stock", "withdraw", number], "").await.done().contains("off sale"));
    assert_eq!(admin(&["stock", "withdraw", number], "").await.code, 1);
    assert_eq!(numbers(&[]).await, listed.split_once('\n').unwrap().1);
    assert!(numbers(&["--all"]).await.starts_with(&format!("{number}\twithdrawn\timported 2")));
    let page = numbers(&["--limit", "1"]).await;
    let after = page.split_once('\t').unwrap().0;
    assert!(page.contains(&format!("and more: continue with --after {after}")), "{page}");
    assert_eq!(numbers(&["--limit", "1", "--after", after]).await.lines().count(), 1, "the last one");
    assert!(admin(&["stock", "list", "vpn"], "").await.done().contains("no such items"));
    assert_eq!(admin(&["stock", "list", "none"], "").await.code, 1);

    admin(&["user", "create", "alice", "--email", "alice@example.com"], "").await.done();
    let credit = ["credit", "alice", "--amount", "100.00", "--currency", "CNY", "--reference", "r1"];
    assert!(admin(&credit, "").await.done().contains("the balance is 100 CNY"));
    let twice = admin(&credit, "").await;
    assert!(twice.code == 1 && twice.err.contains("already received credit"), "{twice:?}");
    assert!(admin(&["user", "list"], "").await.done().contains("100 CNY"));
    assert!(admin(&["token", "issue", "alice", "--days", "30"], "").await.done().starts_with("ut_"));
    assert!(admin(&["token", "revoke", "alice"], "").await.done().starts_with("1 tokens"));
    assert!(admin(&["user", "set", "alice", "--disable"], "").await.done().contains("disabled"));

    admin(&["coupon", "create", "ten", "--percent", "10", "--max-uses", "5"], "").await.done();
    let csv = "code,fixed,ends_at,product\nFIVE,5.00,2030-01-01T00:00:00Z,box\n";
    admin(&["coupon", "import", "--file", "-", "--format", "csv"], csv).await.done();
    let coupons = admin(&["coupon", "list"], "").await.done();
    assert!(coupons.contains("TEN\t10 %") && coupons.contains("FIVE\t5 CNY"), "{coupons}");
    admin(&["coupon", "deactivate", "five"], "").await.done();
    assert!(!admin(&["coupon", "list"], "").await.done().contains("FIVE"));
    let resumed = admin(&["chain", "resume", "ethereum"], "").await;
    assert!(resumed.code == 1 && resumed.err.contains("ethereum is not halted"), "{resumed:?}");
    let rescanned = run(&["rescan", "ethereum", "1", "2", "--config", &config]).await;
    assert!(rescanned.code == 1 && rescanned.err.contains("[chains.ethereum] is not enabled"), "{rescanned:?}");
    assert_eq!(run(&["rescan", "ethereum", "2", "1", "--config", &config]).await.code, 2);
    assert!(run(&["audit", "--config", &config]).await.done().contains("agree"));
}

#[tokio::test]
async fn audit_reports_corrupted_rows() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_migrated(folder.path()).await;
    let admin = async |arguments: &[&str]| run(&[&["admin"], arguments, &["--config", &config]].concat()).await.done();
    admin(&["merchant", "create", "shop"]).await;
    admin(&["user", "create", "alice"]).await;
    admin(&["credit", "alice", "--amount", "1", "--currency", "USD", "--reference", "r1"]).await;
    assert_eq!(run(&["audit", "--config", &config]).await.code, 0);

    let copy = folder.path().join("copy.db");
    run(&["backup", copy.to_str().unwrap(), "--config", &config]).await.done();
    assert_eq!(run(&["backup", copy.to_str().unwrap(), "--config", &config]).await.code, 1, "never overwritten");

    let db = Connection::open(folder.path().join("data/settled.db")).unwrap();
    let mut other = [0_u8; 32];
    other[31] = 7;
    db.execute("update postings set amount = ?1 where seq = 1", [other]).unwrap();
    drop(db);
    let audit = run(&["audit", "--config", &config]).await;
    assert!(audit.code == 1 && audit.out.contains("posting 1 (user/1/credit/r1)"), "{audit:?}");
}

#[tokio::test]
async fn check_reports_how_to_fix_each_problem() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_migrated(folder.path()).await;
    let file = Path::new(&config);
    let kept = run(&["init", "--config", &config]).await;
    assert!(kept.code == 1 && kept.err.contains("exists already"), "{kept:?}");

    let check = run(&["check", "--config", &config]).await;
    assert!(check.code == 1 && check.out.contains("settled admin merchant create shop"), "{check:?}");
    run(&["admin", "merchant", "create", "shop", "--config", &config]).await.done();
    let check = run(&["check", "--config", &config]).await.done();
    assert!(check.contains("OK    database") && check.contains("0 failures"), "{check}");

    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, text.replace("[data]", "[dta]")).unwrap();
    let wrong = run(&["check", "--config", &config]).await;
    assert!(wrong.code == 3 && wrong.err.contains("unknown key `dta`"), "{wrong:?}");
    let missing = run(&["serve", "--config", "/nowhere/settled.toml"]).await;
    assert!(missing.code == 3 && missing.err.contains("settled init"), "{missing:?}");
}

#[tokio::test]
async fn the_service_user_can_read_the_configuration_of_init() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settled.toml");
    let said = run(&["init", "--config", file.to_str().unwrap()]).await.done();
    let written = std::fs::metadata(&file).unwrap();
    assert_eq!(written.mode() & 0o777, 0o640, "nobody else");
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let service = groups.lines().find_map(|line| line.strip_prefix("settled:x:")?.split(':').next()?.parse().ok());
    match (rustix::process::geteuid().is_root(), service) {
        (true, Some(group)) => {
            assert_eq!((written.uid(), written.gid()), (0, group));
            assert!(said.contains("The group settled can read it."), "{said}");
        }
        (true, None) => assert!(said.contains(&format!("run `chgrp settled {}`", file.display())), "{said}"),
        (false, _) => assert!(said.contains("settled.toml. Next:"), "its owner runs the daemon: {said}"),
    }
}

#[tokio::test]
async fn init_does_not_overwrite_an_unreadable_configuration() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can become somebody else: a configuration of another user was NOT checked");
        return;
    }
    // Every user can enter this folder.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (binary, config) = (folder.path().join("settled"), folder.path().join("settled.toml"));
    std::fs::copy(env!("CARGO_BIN_EXE_settled"), &binary).unwrap();
    run(&["init", "--config", config.to_str().unwrap()]).await.done();
    let mut check = tokio::process::Command::new(&binary);
    let check =
        check.args(["check", "--config", config.to_str().unwrap()]).uid(65_534).gid(65_534).output().await.unwrap();
    let said = String::from_utf8(check.stderr).unwrap();
    assert!(check.status.code() == Some(3) && said.contains("chgrp settled") && !said.contains("init"), "{said}");
}

#[tokio::test]
async fn a_missing_key_may_be_passed_by_the_systemd_unit() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_migrated(folder.path()).await;
    run(&["admin", "merchant", "create", "shop", "--config", &config]).await.done();
    let keys = folder.path().join("data/envelope.keys");
    let away = folder.path().join("credentials");
    std::fs::create_dir(&away).unwrap();
    std::fs::rename(&keys, away.join("envelope.keys")).unwrap();
    let check = run(&["check", "--config", &config]).await;
    let list = run(&["admin", "merchant", "list", "--config", &config]).await;
    for said in [&check.out, &list.err] {
        assert!(said.contains("LoadCredential=envelope.keys:FILE") && said.contains("restore the file"), "{said}");
    }
    assert_eq!((check.code, list.code), (1, 1));
    // The keys are passed as systemd passes them, in the folder that CREDENTIALS_DIRECTORY names.
    let mut passed = settled(&["admin", "merchant", "list", "--config", &config]);
    assert!(passed.env("CREDENTIALS_DIRECTORY", &away).output().await.unwrap().status.success());

    std::fs::rename(away.join("envelope.keys"), &keys).unwrap();
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = run(&["admin", "merchant", "list", "--config", &config]).await;
    assert!(open.err.contains("chmod 600") && !open.err.contains("restore"), "they are not lost: {open:?}");
}

#[tokio::test]
async fn no_keys_are_created_beside_those_of_the_systemd_unit() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    install_migrated(other.path()).await;
    let config = write_configuration(folder.path()).await;
    let mut first = settled(&["migrate", "--config", &config]);
    let ended = first.env("CREDENTIALS_DIRECTORY", other.path().join("data")).output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert!(folder.path().join("data/settled.db").exists());
    assert!(
        !folder.path().join("data/envelope.keys").exists(),
        "the next start would read others than the first one used"
    );
}

#[tokio::test]
async fn check_compares_the_configuration_with_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_migrated(folder.path()).await;
    let anvil = Anvil::start_node(AnvilOptions { chain_id: 1, ..AnvilOptions::default() }).await.unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let chain =
        format!("[chains.ethereum]\nenabled = true\nmode = \"test\"\nendpoints = [{{ url = \"{}\" }}]\n", anvil.url());
    let text = text.replace("merchant = \"shop\"", "merchant = \"shop\"\nmode = \"test\"");
    std::fs::write(&config, format!("{text}\n{chain}\n{}", accounts())).unwrap();
    let pin = |name: &str, fact: &str| {
        let db = Connection::open(folder.path().join("data/settled.db")).unwrap();
        let sql = "insert into immutable_facts (name, value, recorded_at) values (?1, ?2, 0)
                   on conflict (name) do update set value = excluded.value";
        db.execute(sql, [name, fact]).unwrap();
    };
    pin("identity of ethereum", "1");
    let check = run(&["check", "--config", &config]).await;
    assert!(check.out.contains("1 stored facts match the configuration"), "{check:?}");

    pin("identity of ethereum", "56");
    pin("decimals of ethereum/0xdAC17F958D2ee523a2206206994597C13D831ec7", "18");
    let check = run(&["check", "--config", &config]).await;
    for line in [
        "FAIL  chain ethereum: the node is 1, but the database was filled from 56",
        "identity of ethereum is 1 in the configuration, but 56 in the database",
        "is 6 in the configuration, but 18 in the database",
    ] {
        assert!(check.code == 1 && check.out.contains(line), "{line} is not in {check:?}");
    }
}

#[tokio::test]
async fn every_command_has_help() {
    let commands: &[&[&str]] = &[
        &[],
        &["dev"],
        &["dev", "pay"],
        &["serve"],
        &["init"],
        &["migrate"],
        &["check"],
        &["audit"],
        &["backup"],
        &["status"],
        &["admin"],
        &["admin", "merchant", "create"],
        &["admin", "user", "create"],
        &["admin", "token", "issue"],
        &["admin", "credit"],
        &["admin", "product", "import"],
        &["admin", "stock", "import"],
        &["admin", "stock", "list"],
        &["admin", "coupon", "create"],
        &["admin", "order", "show"],
        &["admin", "order", "cancel"],
        &["admin", "order", "confirm"],
        &["admin", "review", "list"],
        &["admin", "review", "close"],
        &["admin", "chain", "resume"],
        &["admin", "chain", "unspent"],
        &["rescan"],
    ];
    for command in commands {
        let help = run(&[*command, &["--help"]].concat()).await.done();
        assert!(help.contains("Usage: settled"), "{help}");
        if command.len() < 2 {
            assert!(help.contains("Exit codes: 0"), "{help}");
        }
    }
    assert_eq!(run(&["sing"]).await.code, 2);
}
