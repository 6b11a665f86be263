use std::{path::Path, time::Duration};

use chain::{AssetKind, Family};

use super::*;
use ids::Mode;

const EVM_XPUB: &str =
    "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";

fn parse_config(text: &str) -> Result<Config, Error> {
    Config::parse_and_validate(Path::new("/etc/settled/settled.toml"), text, Vec::new())
}

fn parse_with_env(name: &str, value: &str) -> Result<Config, Error> {
    Config::parse_and_validate(Path::new("/etc/settled/settled.toml"), "", vec![(name.to_owned(), value.to_owned())])
}

fn account_toml(family: &str, purpose: &str) -> String {
    format!(
        "[[accounts]]\nchain-family = \"{family}\"\npurpose = \"{purpose}\"\nepoch = 0\npath = \"m\"\nxpub = \"{EVM_XPUB}\"\n"
    )
}

fn assert_rejected(text: &str, expected: &str) {
    let problems = parse_config(text).expect_err(text).to_string();
    assert!(problems.contains(expected), "{text}\nis rejected with\n{problems}\nwhich does not contain\n{expected}");
    assert!(problems.starts_with("/etc/settled/settled.toml"), "{problems}");
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    assert_eq!(parse_config(DEFAULT_TOML), parse_config(""));
    let config = Config::default();
    let checkout = &config.surfaces.checkout;
    assert_eq!((checkout.query_per_ip, checkout.query_per_pair, checkout.max_quantity), (3, 2, 200));
    assert_eq!(checkout.query_window, Duration::from_secs(60));
    assert_eq!(checkout.order_window, Duration::from_secs(30 * 60));
    assert_eq!((config.server.requests_per_minute, checkout.orders_per_ip_per_minute), (600, 30));
    assert!(config.rates.fixed.is_empty(), "no rate is assumed");
    assert!(config.chains.values().all(|chain| !chain.enabled));
}

#[test]
fn every_option_has_a_sentence_above_it() {
    let lines: Vec<&str> = DEFAULT_TOML.lines().collect();
    let mut options = 0;
    for (number, line) in lines.iter().enumerate() {
        if !line.starts_with(|c: char| c.is_alphabetic() || c == '"') {
            continue;
        }
        options += 1;
        assert!(number > 0 && lines[number - 1].starts_with("# "), "line {}: {line}", number + 1);
        let comment: Vec<&str> =
            lines[..number].iter().rev().take_while(|line| line.starts_with("# ")).copied().collect();
        assert!(comment[0].ends_with(['.', '…']), "line {}: the sentence above does not end", number + 1);
    }
    assert!(options > 90, "{options} options were found");
}

#[test]
fn the_assets_of_the_checkout_surface_are_assets_of_presets() {
    let mut config = Config::default();
    config.chains.values_mut().for_each(|chain| chain.enabled = true);
    for (code, chain, symbol, decimals, quote_decimals) in [
        ("trc20_usdt", "tron", "USDT", 6, 6),
        ("erc20_usdt", "ethereum", "USDT", 6, 6),
        ("bep20_usdt", "bsc", "USDT", 18, 6),
        ("btc", "bitcoin", "BTC", 8, 8),
        ("eth", "ethereum", "ETH", 18, 18),
        ("trx", "tron", "TRX", 6, 6),
        ("bnb", "bsc", "BNB", 18, 18),
    ] {
        let (on, asset) = config.find_checkout_asset_of_enabled_chain(code).unwrap();
        assert_eq!((on.id.as_str(), asset.symbol.as_str()), (chain, symbol), "{code}");
        assert_eq!((asset.decimals, asset.quote_decimals), (decimals, quote_decimals), "{code}");
        assert_eq!(asset.is_native(), !code.contains("usdt"), "{code}");
    }
    assert_eq!(config.surfaces.checkout.assets.len(), 7);
    assert_eq!(Config::default().find_checkout_asset_of_enabled_chain("btc"), None, "its chain is not enabled");
}

#[test]
fn every_preset_has_an_identity_and_one_native_coin() {
    for (name, _) in preset::ALL {
        let config = parse_config(&format!("[chains.other]\npreset = \"{name}\"")).unwrap();
        let chain = &config.chains[&chain::ChainId::parse("other").unwrap()];
        assert!(chain.identity.is_some() && chain.assets().count() > 0, "{name}");
        assert_eq!(chain.assets().filter(|(_, asset)| asset.is_native()).count(), 1, "{name}");
    }
}

#[test]
fn an_unknown_key_is_rejected_with_a_suggestion() {
    assert_rejected(
        "[server]\nlisten = \"0.0.0.0:80\"\nlisen = 1",
        ":3: unknown key `lisen` in [server]; did you mean `listen`?",
    );
    assert_rejected("[sever]\nlisten = 1", ":1: unknown key `sever`; did you mean `server`?");
    assert_rejected("[server]\nmin_sources = 2", ":2: unknown key `min_sources` in [server]; it stands in [rates]");
    assert_rejected(
        "[mail.smtp]\nqqqq = 1",
        "known here: ca_file, host, password_file, port, security, timeout_ms, user",
    );
    assert_rejected(
        "[chains.bsc]\nendpoint = []",
        ":2: unknown key `endpoint` in [chains.bsc]; did you mean `endpoints`?",
    );
    assert_rejected("[chains.bsc]\nendpoints = [{ ulr = \"http://a\" }]", "did you mean `url`?");
    assert_rejected("[chains.bsc.verify]\nheaders = true", "did you mean `header`?");
    assert_rejected("[[accounts]]\nfamily = \"evm\"", "unknown key `family` in [accounts]");
    assert_rejected("[surfaces.checkout.assets]\ndoge = \"x/y\"", "unknown key `doge` in [surfaces.checkout.assets]");
    assert_rejected("[server]\nlisten = ", "TOML parse error at line 2");
}

#[test]
fn all_unknown_keys_are_reported_at_once() {
    let error = parse_config("[server]\na = 1\nb = 2\n[mail]\nc = 3").unwrap_err();
    assert_eq!(error.problems.len(), 3);
}

#[test]
fn a_wrong_value_is_rejected_with_a_suggestion() {
    for (text, expected) in [
        ("server.listen = \"localhost\"", "in `server.listen`"),
        ("server.listen = 8080", "in `server.listen`"),
        ("server.public_url = \"pay.example.com\"", "in `server.public_url`"),
        ("server.public_url = \"https://a.example/shop\"", "prefixes belong to [surfaces]"),
        ("server.trusted_proxies = [\"10.0.0.0/40\"]", "is not a network such as"),
        ("server.requests_per_minute = 0", "server.requests_per_minute is 0; it must lie between 1 and"),
        ("server.listen_backlog = 0", "server.listen_backlog is 0; it must lie between 1 and"),
        ("surfaces.checkout.cors_origins = [\"https://a.example/\"]", "which is no origin"),
        ("surfaces.checkout.cors_origins = [\"*\"]", "which is no origin"),
        ("server.requests_per_minute = -1", "in `server.requests_per_minute`"),
        ("server.request_timeout_ms = 5", "it must lie between 100ms and 600s"),
        ("database.url = \"mysql://x\"", "is neither \"sqlite:FILE\" nor"),
        ("database.url = \"postgres://a:secret@h/d\"", "move it into a file"),
        ("database.password_file = \"x\"", "SQLite has no password"),
        ("log.level = \"settled=loud\"", "log.level is not a level"),
        ("log.level = \"verbose\"", "log.level is not a level"),
        ("log.format = \"xml\"", "expected `text` or `json`"),
        ("surfaces.agent.enabled = true", "surfaces.agent.enabled is true, but this surface is not built yet"),
        ("surfaces.checkout.prefix = \"shop\"", "write it as \"/shop\""),
        ("surfaces.checkout.prefix = \"/shop/\"", "write it as \"/shop\""),
        ("surfaces.checkout.host = \"http://a\"", "is not a host name"),
        ("surfaces.checkout.alipay_url = \"https://pay.example/\"", "is not an address with {order_no} in it"),
        ("surfaces.checkout.merchant = \"\"", "name the slug of a merchant"),
        ("surfaces.checkout.assets.btc = \"btc\"", "is not an asset of a chain"),
        ("surfaces.checkout.assets.btc = \"dogecoin/doge\"", "there is no [chains.dogecoin]"),
        ("surfaces.checkout.assets.btc = \"ethereum/btc\"", "ethereum has only eth, usdc, usdt"),
        ("chains.bsc.preset = \"bcs\"", "there is no preset \"bcs\"; known are"),
        ("chains.bsc.confirmations = []", "chains.bsc.confirmations is empty"),
        ("chains.bsc.confirmations = [{ depth = 0 }]", "must have depths from 1"),
        ("chains.bsc.confirmations = [{ depth = 999 }]", "to final_depth (200)"),
        ("chains.bsc.confirmations = [{ depth = 1 }, { depth = 2 }]", "only the last tier has none"),
        (
            "chains.bsc.confirmations = [{ depth = 1, below_usd = \"9\" }, { depth = 2, below_usd = \"9\" }, { depth = 3 }]",
            "must rise in below_usd",
        ),
        (
            "chains.bsc.assets = [{ code = \"a\", contract = \"0x12\", symbol = \"A\", decimals = 6, quote_decimals = 6 }]",
            "is not the address of a contract",
        ),
        (
            "chains.bsc.assets = [{ code = \"a\", contract = \"0x55D398326f99059fF775485246999027B3197955\", symbol = \"A\", \
            decimals = 6, quote_decimals = 6 }]",
            "is a letter wrong?",
        ),
        (
            "chains.bsc.assets = [{ code = \"a\", contract = \"0x55d398326f99059ff775485246999027b3197955\", symbol = \"A\", \
            decimals = 6, quote_decimals = 6 }]",
            "a second time",
        ),
        (
            "chains.tron.assets = [{ code = \"a\", contract = \"TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6u\", symbol = \"A\", \
            decimals = 6, quote_decimals = 6 }]",
            "is not the address of a contract",
        ),
        (
            "chains.bsc.assets = [{ code = \"a\", symbol = \"A\", decimals = 6, quote_decimals = 7 }]",
            "quote_decimals are not above decimals",
        ),
        ("chains.bsc.enabled = true", "there is no [[accounts]] with chain-family = \"evm\" and purpose = \"deposit\""),
        ("chains.bsc.enabled = true", "chains.bsc.endpoints is empty"),
        ("chains.bsc.enabled = true\nchains.bsc.driver = \"simnet\"", "whose coins are worthless"),
        (
            "chains.bsc.enabled = true\nchains.bsc.mode = \"test\"",
            "is on a chain in test mode, but the surface is in live",
        ),
        ("chains.tron.enabled = true\nchains.tron.identity = \"0x2b6653dc\"", "is not the number of a TRON chain"),
        ("chains.tron.enabled = true", "chains.tron.endpoints is empty"),
        (
            "chains.tron.enabled = true\nchains.tron.endpoints = [{ url = \"http://n\", requests_per_second = 0 }]",
            "requests_per_second is below 1,",
        ),
        (
            "chains.tron.enabled = true\nchains.tron.endpoints = [{ url = \"http://n\", requests_per_day = 19_999 }]",
            "requests_per_day is below 20000,",
        ),
        ("chains.Bad = {}", "is not a chain name"),
        ("rates.max_jump_percent = 0.5", "write whole numbers"),
        ("policy.tolerance_usd = 0.05", ":1: policy.tolerance_usd = 0.05 would lose digits"),
        ("policy.tolerance_usd = \"-1\"", "is not a decimal number"),
        ("policy.tolerance_usd = \"1e3\"", "is not a decimal number"),
        ("policy.tolerance_usd = \"0.005\"", "is not an amount such as"),
        ("rates.sources = [\"binance\", \"binance\"]", "names binance twice"),
        ("rates.sources = [\"mtgox\"]", "in `rates.sources`"),
        ("rates.min_sources = 5", "rates.min_sources is 5; it must lie between 1 and 4"),
        ("rates.staleness_seconds = 10", "at least twice refresh_seconds"),
        ("rates.fixed.\"BTC/USD\" = \"0\"", "a rate is above 0"),
        ("rates.fixed.BTC = \"1\"", "is not a pair such as"),
        ("rates.urls.kraken = \"nothing\"", "is not an address"),
        ("mail.from = \"nobody\"", "mail.from is not a sender"),
        ("mail.transport = \"smtp\"\nmail.smtp.user = \"u\"", "set both or none"),
    ] {
        assert_rejected(text, expected);
    }
}

#[test]
fn a_wrong_account_is_rejected() {
    assert_rejected(
        "[[accounts]]\nchain-family = \"evm\"\npurpose = \"deposit\"\nxpub = \"xpub1\"",
        "accounts[0].xpub is refused",
    );
    let twice = account_toml("evm", "deposit") + &account_toml("tron", "deposit");
    assert_rejected(&twice, "accounts[1].xpub is there twice");
}

#[test]
fn a_chain_overrides_its_preset_which_overrides_the_chain_defaults() {
    let own = "[chain_defaults]\ntimeout_ms = 7_000\n[chains.bsc]\nfinal_depth = 150\n\
        assets = [{ code = \"dai\", contract = \"0x1AF3F329e8BE154074D8769D1FFa4eE058B1DBc3\", symbol = \"DAI\", \
        decimals = 18, quote_decimals = 6 }, { code = \"usdt\", contract = \"0x55d398326f99059fF775485246999027B3197955\", \
        symbol = \"USDT\", decimals = 18, quote_decimals = 2 }]";
    let config = parse_config(own).unwrap();
    let bsc = &config.chains[&chain::ChainId::parse("bsc").unwrap()];
    assert_eq!((bsc.timeout, bsc.final_depth, bsc.identity.as_deref()), (Duration::from_secs(7), 150, Some("56")));
    assert_eq!(bsc.poll, Duration::from_millis(400), "half the time between blocks would be less");
    let codes: Vec<&str> = bsc.assets().map(|(code, _)| code).collect();
    assert_eq!(codes, ["bnb", "dai", "usdc", "usdt"]);
    assert_eq!(bsc.find_asset("usdt").unwrap().quote_decimals, 2);
}

#[test]
fn a_chain_without_a_preset_has_only_its_own_assets() {
    let text =
        "[chains.local]\nenabled = true\nmode = \"test\"\nidentity = \"31337\"\nfinality = \"depth\"\nfinal_depth = 3\n\
        confirmations = [{ depth = 2 }]\nendpoints = [{ url = \"http://127.0.0.1:8545/key\", roles = [\"read\"] }]\n\
        assets = [{ code = \"eth\", symbol = \"ETH\", decimals = 18, quote_decimals = 18 }]\n"
            .to_owned() + &account_toml("evm", "deposit-test");
    let config = parse_config(&text).unwrap();
    let local = &config.chains[&chain::ChainId::parse("local").unwrap()];
    assert_eq!((local.family, local.driver, local.mode), (Family::Evm, Driver::Node, Mode::Test));
    assert_eq!(local.find_asset("eth").unwrap().kind, AssetKind::Native);
    assert!(!format!("{config:?}").contains("key"), "URLs of endpoints contain keys");
    assert!(!format!("{config:?}").contains(EVM_XPUB), "an xpub reveals every address");
}

#[test]
fn bitcoin_networks_are_identified_by_their_first_block() {
    for (name, _) in preset::ALL {
        let text = format!("[chains.other]\npreset = \"{name}\"");
        let chain = parse_config(&text).unwrap().chains.remove(&chain::ChainId::parse("other").unwrap()).unwrap();
        if chain.family == Family::Bitcoin {
            let first = bitcoin::constants::genesis_block(chain.network).block_hash().to_string();
            assert_eq!(chain.identity, Some(first), "{name}");
        }
    }
    let enabled = "[chains.bitcoin]\nenabled = true\nendpoints = [{ url = \"http://127.0.0.1:8332\" }]\n".to_owned();
    let bitcoin = account_toml("bitcoin", "deposit");
    assert_rejected(
        &(enabled.clone() + "network = \"signet\"\n" + &bitcoin),
        "chains.bitcoin.identity is not the first block of signet",
    );
    let enabled = enabled + "address_kind = \"p2tr\"\napi = \"esplora\"\n";
    let taproot = parse_config(&(enabled + &bitcoin.replace("\"m\"", "\"m/86'/0'/0'\""))).unwrap();
    let chain = &taproot.chains[&chain::ChainId::parse("bitcoin").unwrap()];
    assert!(matches!(chain.address_scheme(), chain::address::AddressScheme::P2tr(_)));
    assert_eq!(chain.poll, Duration::from_secs(10));
}

#[test]
fn addresses_are_derived_from_the_account_with_the_highest_epoch() {
    let mut config = Config::default();
    for epoch in [0, 2, 1] {
        let xpub = EVM_XPUB.to_owned();
        config.accounts.push(AccountKey {
            family: Family::Evm,
            purpose: Purpose::Deposit,
            epoch,
            path: String::new(),
            xpub,
        });
    }
    let chain = |name: &str, mode: Mode| {
        let mut chain = config.chains[&chain::ChainId::parse(name).unwrap()].clone();
        chain.mode = mode;
        chain
    };
    let (live, test, tron) = (chain("bsc", Mode::Live), chain("bsc", Mode::Test), chain("tron", Mode::Live));
    assert_eq!(config.find_newest_deposit_account_key(&live).map(|account| account.epoch), Some(2));
    assert_eq!(config.find_newest_deposit_account_key(&test), None);
    assert_eq!(config.find_newest_deposit_account_key(&tron), None);
}

/// The account key of BIP 84's test vector, with the version bytes of BIP 84.
const ZPUB: &str =
    "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs";
/// The account key of BIP 86's test vector.
const BIP86_XPUB: &str =
    "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";

#[test]
fn each_kind_of_bitcoin_addresses_needs_its_own_account() {
    let account = |path: &str, xpub: &str| {
        format!(
            "[[accounts]]\nchain-family = \"bitcoin\"\npurpose = \"deposit\"\npath = \"{path}\"\nxpub = \"{xpub}\"\n"
        )
    };
    let chain = |kind: &str| {
        format!(
            "[chains.bitcoin]\nenabled = true\naddress_kind = \"{kind}\"\nendpoints = [{{ url = \"http://127.0.0.1:8332\" }}]\n"
        )
    };
    let both = account("m/84'/0'/0'", ZPUB) + &account("m/86'/0'/0'", BIP86_XPUB);
    for (kind, xpub) in [("p2wpkh", ZPUB), ("p2tr", BIP86_XPUB)] {
        let config = parse_config(&(chain(kind) + &both)).unwrap();
        let chain = &config.chains[&chain::ChainId::parse("bitcoin").unwrap()];
        assert_eq!(config.find_newest_deposit_account_key(chain).unwrap().xpub, xpub, "{kind}");
    }
    for path in ["m/84'/0'/0'", "m/84h/0h/0h", "84'/0'/0'", ""] {
        parse_config(&(chain("p2wpkh") + &account(path, ZPUB))).unwrap();
        let text = chain("p2tr") + &account(path, ZPUB);
        assert_rejected(&text, "chains.bitcoin.address_kind is \"p2tr\", whose account is m/86'/…");
        assert_rejected(&text, "keys xpubs SEED --chain bitcoin --kind p2tr --purpose deposit`");
    }
    for path in ["m/86'/0'/0'", "m/86h/0h/0h", "86H/0H/0H"] {
        parse_config(&(chain("p2tr") + &account(path, BIP86_XPUB))).unwrap();
        let text = chain("p2wpkh") + &account(path, BIP86_XPUB);
        assert_rejected(&text, "chains.bitcoin.address_kind is \"p2wpkh\", whose account is m/84'/…");
        assert_rejected(
            &(chain("p2tr") + &account(path, ZPUB)),
            "accounts[0].xpub is refused: a zpub or vpub is the key of",
        );
    }
}

/// Returns an extended key with other version bytes (SLIP-132).
fn with_version_bytes(key: &str, version: [u8; 4]) -> String {
    let mut payload = bitcoin::base58::decode_check(key).unwrap();
    payload[..4].copy_from_slice(&version);
    bitcoin::base58::encode_check(&payload)
}

#[test]
fn account_keys_of_another_kind_are_refused_in_plain_words() {
    let account = |purpose: &str, path: &str, xpub: &str| {
        format!(
            "[[accounts]]\nchain-family = \"bitcoin\"\npurpose = \"{purpose}\"\npath = \"{path}\"\nxpub = \"{xpub}\"\n"
        )
    };
    assert_rejected(
        &account("deposit", "m/49'/0'/0'", BIP86_XPUB),
        "accounts[0].path is m/49'/0'/0': wallets derive nested SegWit addresses that begin with 3",
    );
    assert_rejected(
        &account("deposit", "m/86\u{2019}/0\u{2019}/0\u{2019}", BIP86_XPUB),
        "accounts[0].path is m/86\u{2019}/0\u{2019}/0\u{2019}, which has the character \u{2019} of a word processor",
    );
    let vpub = with_version_bytes(EVM_XPUB, [0x04, 0x5f, 0x1c, 0xf6]);
    assert_rejected(&account("deposit", "", &vpub), "accounts[0].xpub is the key of a test network (tpub or vpub)");
    parse_config(&account("deposit-test", "m/84'/1'/0'", &vpub)).unwrap();
    assert_rejected(&account("deposit", "", "xprv9s21ZrQH143K"), "accounts[0].xpub is refused: this is a private key");
    assert_rejected(&account("deposit", "", "xprv9s21ZrQH143K"), "which can spend all money of the account");
}

#[test]
fn a_zpub_and_an_xpub_of_the_same_account_are_one_key() {
    let account = |xpub: &str, epoch: u32| {
        format!("[[accounts]]\nchain-family = \"bitcoin\"\npurpose = \"deposit\"\nepoch = {epoch}\nxpub = \"{xpub}\"\n")
    };
    // EVM_XPUB is the account of ZPUB with the version bytes of BIP 32.
    assert_rejected(&(account(ZPUB, 0) + &account(EVM_XPUB, 1)), "accounts[1].xpub is there twice");
}

#[test]
fn typographic_quotes_in_the_file_are_named_with_their_line() {
    assert_rejected(
        "[server]\nlisten = \u{201c}127.0.0.1:1\u{201d}\n",
        "line 2 has the quotation mark \u{201c} of a word processor; write straight quotes",
    );
}

#[test]
fn environment_variables_override_the_file() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"";
    let env = vec![("SETTLED__SERVER__LISTEN".to_owned(), "127.0.0.1:2".to_owned())];
    let config = Config::parse_and_validate(Path::new("settled.toml"), file, env).unwrap();
    assert_eq!(config.server.listen.port(), 2);

    let with = |name, value| parse_with_env(name, value).unwrap();
    assert_eq!(with("SETTLED__SERVER__REQUESTS_PER_MINUTE", "7").server.requests_per_minute, 7);
    assert_eq!(with("SETTLED__MAIL__SMTP__HOST", "7").mail.smtp.host, "7");
    assert_eq!(with("SETTLED__RATES__SOURCES", "[\"okx\", \"kraken\", \"coinbase\"]").rates.sources.len(), 3);
    assert_eq!(with("SETTLED__SURFACES__CHECKOUT__MAX_QUANTITY", "5").surfaces.checkout.max_quantity, 5);
    let bsc = chain::ChainId::parse("bsc").unwrap();
    assert_eq!(with("SETTLED__CHAINS__BSC__FINAL_DEPTH", "25").chains[&bsc].final_depth, 25);
    assert_eq!(with("SETTLED__CHAINS__BSC__TRACE", "debug").chains[&bsc].trace, Trace::Debug);
    assert!(!with("SETTLED__CHAINS__BSC__VERIFY__RECEIPTS", "false").chains[&bsc].verify.receipts);
    assert_eq!(with("SETTLED__CHAIN_DEFAULTS__TIMEOUT_MS", "900").chains[&bsc].timeout, Duration::from_millis(900));
}

#[test]
fn an_environment_variable_that_sets_no_option_is_rejected() {
    for (name, value, expected) in [
        ("SETTLED__SERVER__LISEN", "x", "SETTLED__SERVER__LISEN: there is no option `server.lisen`"),
        ("SETTLED__SEVER__LISTEN", "x", "SETTLED__SEVER__LISTEN: there is no section [sever]"),
        ("SETTLED__CHAINS__NONE__ENABLED", "true", "there is no section [chains.none]"),
        ("SETTLED__SERVER", "x", "there is no option `server`"),
        ("SETTLED__", "x", "there is no option ``"),
        ("SETTLED__SERVER__REQUESTS_PER_MINUTE", "many", "`many` is not a value of TOML"),
        ("SETTLED__SERVER__REQUESTS_PER_MINUTE", "1\nx = 2", "is not a value of TOML"),
        ("SETTLED__SERVER__REQUESTS_PER_MINUTE", "1.5", "in `server.requests_per_minute`"),
    ] {
        let problems = parse_with_env(name, value).expect_err(name).to_string();
        assert!(problems.contains(expected), "{name}={value}: {problems}");
    }
}

#[test]
fn paths_are_relative_to_the_file_and_secrets_are_read_when_used() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pg"), "p@ss/word\n").unwrap();
    let text = "[data]\nfolder = \"data\"\n[database]\nurl = \"postgres://settled@db/pay\"\npassword_file = \"pg\"";
    let config = Config::parse_and_validate(&folder.path().join("settled.toml"), text, Vec::new()).unwrap();
    assert_eq!(config.data.folder, folder.path().join("data"));
    assert_eq!(config.mark_path(), folder.path().join("data-mark/addresses"));
    let named = "[data]\nfolder = \"data\"\nmark_path = \"elsewhere/mark\"";
    let named = Config::parse_and_validate(&folder.path().join("settled.toml"), named, Vec::new()).unwrap();
    assert_eq!(named.mark_path(), folder.path().join("elsewhere/mark"));
    assert_eq!(config.load_database_config().unwrap().url, "postgres://settled:p%40ss%2Fword@db/pay");
    assert!(!format!("{config:?}").contains("p@ss"));

    std::fs::write(folder.path().join("pg"), "\n").unwrap();
    let problem = config.load_database_config().unwrap_err().to_string();
    assert!(problem.contains("[database] password_file: ") && problem.ends_with("is empty"), "{problem}");
    std::fs::remove_file(folder.path().join("pg")).unwrap();
    assert!(config.load_database_config().unwrap_err().to_string().contains("No such file"));

    let sqlite =
        Config::parse_and_validate(&folder.path().join("settled.toml"), "[data]\nfolder = \"d\"", Vec::new()).unwrap();
    assert_eq!(
        sqlite.load_database_config().unwrap().url,
        format!("sqlite:{}", folder.path().join("d/settled.db").display())
    );
}

#[test]
fn a_missing_file_is_reported_with_a_suggestion() {
    let problem = Config::load_file_and_environment(Path::new("/nowhere/settled.toml")).unwrap_err().to_string();
    assert!(problem.starts_with("/nowhere/settled.toml: ") && problem.contains("settled init"), "{problem}");
}
