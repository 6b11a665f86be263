//! Validates a configuration: the ranges of values, and contradictions between options. Each problem contains the name
//! of the option and a suggestion.

use std::{fmt, ops::RangeInclusive, time::Duration};

use chain::derive::DeriveError;
use chain::{Amount, Deriver, Family};
use email_address::{EmailAddress, Options};
use rust_decimal::Decimal;
use url::Url;

use crate::account_path::find_account_path_problem;
use crate::{ChainConfig, Config, Driver, MailTransport, Mount, Purpose, RatesMode, SmtpSecurity};

/// The minimum of an endpoint's daily request limit: enough to follow a chain with a block every ten seconds, and to
/// read missed blocks.
const REQUESTS_PER_DAY_MIN: u32 = 20_000;
/// The valid log levels.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Returns the problems of a configuration; empty when the configuration is valid.
pub fn find_config_problems(config: &Config) -> Vec<String> {
    let mut validator = Validator::default();
    validator.validate_server(config);
    validator.validate_database(config);
    validator.validate_log(config);
    validator.validate_surfaces(config);
    for chain in config.chains.values() {
        validator.validate_chain(config, chain);
    }
    validator.validate_accounts(config);
    validator.validate_rates(config);
    validator.validate_policy(config);
    validator.validate_mail(config);
    validator.problems
}

/// Collects the problems of a configuration.
#[derive(Default)]
struct Validator {
    /// One sentence for each problem.
    problems: Vec<String>,
}

impl Validator {
    /// Adds a problem of `option`. `problem` is the rest of a sentence that starts with the name of the option.
    fn add_problem(&mut self, option: impl fmt::Display, problem: impl fmt::Display) {
        self.problems.push(format!("{option} {problem}"));
    }

    /// Adds a problem when the value is out of range.
    fn require_in_range<T: PartialOrd + fmt::Display>(
        &mut self,
        option: impl fmt::Display,
        value: T,
        range: RangeInclusive<T>,
    ) {
        if !range.contains(&value) {
            self.add_problem(
                option,
                format_args!("is {value}; it must lie between {} and {}", range.start(), range.end()),
            );
        }
    }

    /// Adds a problem when a duration is out of range.
    fn require_duration_in_range(
        &mut self,
        option: impl fmt::Display,
        value: Duration,
        range: RangeInclusive<Duration>,
    ) {
        if !range.contains(&value) {
            let (min, max) = (range.start(), range.end());
            self.add_problem(option, format_args!("is {value:?}; it must lie between {min:?} and {max:?}"));
        }
    }

    fn validate_server(&mut self, config: &Config) {
        let server = &config.server;
        let url = &server.public_url;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            self.add_problem("server.public_url", "is not an http or https address; write \"https://pay.example.com\"");
        } else if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
            self.add_problem("server.public_url", "has more than scheme, host and port; prefixes belong to [surfaces]");
        }
        self.require_in_range("server.requests_per_minute", server.requests_per_minute, 1..=1_000_000);
        self.require_in_range("server.connections_max", server.connections_max, 16..=1 << 20);
        self.require_in_range("server.listen_backlog", server.listen_backlog, 1..=65_535);
        self.require_in_range("server.connections_per_client", server.connections_per_client, 1..=1 << 20);
        self.require_in_range("server.body_bytes_max", server.body_bytes_max, 1_024..=1 << 30);
        self.require_duration_in_range(
            "server.request_timeout_ms",
            server.request_timeout,
            milliseconds(100)..=milliseconds(600_000),
        );
        self.require_duration_in_range(
            "server.stall_timeout_ms",
            server.stall_timeout,
            milliseconds(100)..=milliseconds(600_000),
        );
        self.require_duration_in_range(
            "server.shutdown_timeout_ms",
            server.shutdown_timeout,
            milliseconds(0)..=milliseconds(600_000),
        );
    }

    fn validate_database(&mut self, config: &Config) {
        let database = &config.database;
        self.require_in_range("database.readers", database.readers, 1..=64);
        self.require_in_range("database.pool", database.pool, 2..=1_000);
        if let Some(file) = database.url.strip_prefix("sqlite:") {
            if file.is_empty() {
                self.add_problem("database.url", "names no file; write \"sqlite:settled.db\"");
            }
            if !database.password_file.is_unset() {
                self.add_problem("database.password_file", "is set, but SQLite has no password; remove it");
            }
            return;
        }
        match url::Url::parse(&database.url) {
            Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => {
                if url.password().is_some() {
                    self.add_problem(
                        "database.url",
                        "holds a password; move it into a file and name that in password_file",
                    );
                }
            }
            Ok(_) | Err(_) => {
                self.add_problem("database.url", "is neither \"sqlite:FILE\" nor \"postgres://USER@HOST/DATABASE\"");
            }
        }
    }

    fn validate_log(&mut self, config: &Config) {
        for directive in config.log.level.split(',') {
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            if !is_log_level(level.trim()) {
                let levels = LOG_LEVELS.join(", ");
                self.add_problem("log.level", format_args!("is not a level: \"{level}\" is none of {levels}"));
            }
        }
    }

    fn validate_surfaces(&mut self, config: &Config) {
        for (name, mount) in config.surfaces.list_mounts() {
            self.validate_mount(name, mount);
        }
        let checkout = &config.surfaces.checkout;
        for origin in &checkout.cors_origins {
            let is_origin = Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin);
            if !is_origin {
                let problem =
                    format_args!("has {origin:?}, which is no origin; write \"https://shop.example\", without a path");
                self.add_problem("surfaces.checkout.cors_origins", problem);
            }
        }
        self.require_in_range("surfaces.checkout.query_per_ip", checkout.query_per_ip, 1..=1_000_000);
        self.require_in_range("surfaces.checkout.query_per_pair", checkout.query_per_pair, 1..=1_000_000);
        self.require_duration_in_range(
            "surfaces.checkout.query_window_seconds",
            checkout.query_window,
            seconds(1)..=seconds(86_400),
        );
        self.require_in_range(
            "surfaces.checkout.orders_per_ip_per_minute",
            checkout.orders_per_ip_per_minute,
            1..=1_000_000,
        );
        self.require_in_range("surfaces.checkout.max_quantity", checkout.max_quantity, 1..=100_000);
        let window = checkout.order_window;
        self.require_duration_in_range(
            "surfaces.checkout.order_window_minutes",
            window,
            seconds(60)..=seconds(7 * 86_400),
        );
        for (option, page) in [("alipay_url", &checkout.alipay_url), ("wechat_url", &checkout.wechat_url)] {
            let is_page = url::Url::parse(page).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
            let is_usable = page.is_empty() || (is_page && page.contains("{order_no}"));
            if !is_usable {
                let option = format_args!("surfaces.checkout.{option}");
                self.add_problem(
                    option,
                    "is not an address with {order_no} in it; leave it empty to keep the method off",
                );
            }
        }
        if checkout.mount.enabled {
            self.validate_checkout_assets(config);
            self.validate_min_amounts(config);
        }
    }

    /// Adds the problems of the host, the prefix and the merchant of one surface.
    fn validate_mount(&mut self, name: &str, mount: &Mount) {
        if mount.enabled && name != "checkout" {
            self.add_problem(
                format_args!("surfaces.{name}.enabled"),
                "is true, but this surface is not built yet; set it to false",
            );
        }
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
        let prefix = &mount.prefix;
        let is_path = prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains("//");
        let is_clean = prefix.is_empty() || (is_path && prefix.bytes().all(is_allowed));
        if !is_clean {
            let option = format_args!("surfaces.{name}.prefix");
            self.add_problem(option, format_args!("is \"{prefix}\"; write it as \"/shop\", or \"\" for none"));
        }
        if !mount.host.is_empty() && url::Host::parse(&mount.host).is_err() {
            self.add_problem(
                format_args!("surfaces.{name}.host"),
                "is not a host name; leave scheme, port and path out",
            );
        }
        if mount.merchant.is_empty() {
            self.add_problem(format_args!("surfaces.{name}.merchant"), "is empty; name the slug of a merchant");
        }
    }

    /// Adds a problem for each minimum of the checkout surface whose code is no asset of the surface, or whose amount
    /// the asset cannot represent.
    fn validate_min_amounts(&mut self, config: &Config) {
        let checkout = &config.surfaces.checkout;
        for (code, min) in &checkout.min_amounts {
            let option = format_args!("surfaces.checkout.min_amounts.{code}");
            let Some(asset) = checkout.assets.get(code) else {
                self.add_problem(option, "is no coin of [surfaces.checkout.assets]");
                continue;
            };
            let asset = config.chains.get(&asset.chain).and_then(|chain| chain.find_asset(&asset.code));
            if let Some(asset) = asset
                && Amount::parse_decimal(&min.to_string(), asset.decimals).is_err()
            {
                self.add_problem(
                    option,
                    format_args!("is {min}, which is too large or has more than {} decimal places", asset.decimals),
                );
            }
        }
    }

    /// Adds a problem for each asset of the checkout surface whose chain or code is unknown, or whose chain has another
    /// mode than the surface.
    fn validate_checkout_assets(&mut self, config: &Config) {
        let checkout = &config.surfaces.checkout;
        for (code, asset) in &checkout.assets {
            let option = format_args!("surfaces.checkout.assets.{code}");
            let Some(chain) = config.chains.get(&asset.chain) else {
                self.add_problem(option, format_args!("is \"{asset}\", but there is no [chains.{}]", asset.chain));
                continue;
            };
            if chain.find_asset(&asset.code).is_none() {
                let codes: Vec<&str> = chain.assets().map(|(code, _)| code).collect();
                self.add_problem(
                    option,
                    format_args!("is \"{asset}\", but {} has only {}", chain.id, codes.join(", ")),
                );
            }
            if chain.enabled && chain.mode != checkout.mount.mode {
                let (chain_mode, mode) = (chain.mode.as_str(), checkout.mount.mode.as_str());
                self.add_problem(
                    option,
                    format_args!(
                        "is on a chain in {chain_mode} mode, but the surface is in {mode} mode; use the same mode for both"
                    ),
                );
            }
        }
    }

    /// Adds the problems of one chain. A chain that is not enabled needs no assets, account keys and endpoints.
    fn validate_chain(&mut self, config: &Config, chain: &ChainConfig) {
        let at = |option: &str| format!("chains.{}.{option}", chain.id);
        self.require_duration_in_range(at("timeout_ms"), chain.timeout, milliseconds(100)..=milliseconds(300_000));
        self.require_duration_in_range(at("poll_ms"), chain.poll, milliseconds(50)..=milliseconds(600_000));
        self.require_duration_in_range(
            at("block_time_ms"),
            chain.block_time,
            milliseconds(50)..=milliseconds(86_400_000),
        );
        self.require_in_range(at("answer_bytes_max"), chain.answer_bytes_max, 65_536..=1 << 32);
        self.require_in_range(at("final_depth"), chain.final_depth, 1..=10_000);
        self.require_in_range(at("final_depth_min"), chain.final_depth_min, 0..=chain.final_depth);
        self.require_in_range(at("keep_blocks"), chain.keep_blocks, chain.final_depth..=100_000);
        self.validate_confirmations(chain);
        if !chain.enabled {
            return;
        }
        if chain.assets().next().is_none() {
            self.add_problem(at("assets"), "is empty; name a preset, or the assets that can be paid");
        }
        if config.find_newest_deposit_account_key(chain).is_none() {
            self.add_problem_of_missing_account(config, chain);
        }
        match chain.driver {
            Driver::Simnet if chain.mode == ids::Mode::Live => {
                self.add_problem(at("driver"), "is \"simnet\", whose coins are worthless; set mode = \"test\"");
            }
            Driver::Simnet => {}
            Driver::Node => self.validate_node_options(chain),
        }
    }

    /// Adds a problem to a chain for whose family and mode no account key is configured, or only one of another kind of
    /// addresses.
    fn add_problem_of_missing_account(&mut self, config: &Config, chain: &ChainConfig) {
        let at = |option: &str| format!("chains.{}.{option}", chain.id);
        if let Some(problem) = config.describe_address_kind_mismatch(chain) {
            self.add_problem(at("address_kind"), problem);
            return;
        }
        let family = family_name(chain.family);
        let purpose = Purpose::for_deposits_in(chain.mode).as_str();
        self.add_problem(
            at("enabled"),
            format_args!(
                "is true, but there is no [[accounts]] with chain-family = \"{family}\" and purpose = \"{purpose}\"; \
             paste what `settled-signer keys xpubs SEED --purpose {purpose}` prints"
            ),
        );
    }

    /// Adds the problems of the identity and the endpoints of a chain with real nodes.
    fn validate_node_options(&mut self, chain: &ChainConfig) {
        let at = |option: &str| format!("chains.{}.{option}", chain.id);
        match chain.family {
            Family::Evm => {
                if chain.identity.as_ref().is_none_or(|identity| identity.parse::<u64>().is_err()) {
                    self.add_problem(at("identity"), "is not the number of an EVM chain, such as \"1\"");
                }
            }
            Family::Tron => {
                if chain.identity.as_ref().is_none_or(|identity| identity.parse::<u32>().is_err()) {
                    self.add_problem(at("identity"), "is not the number of a TRON chain, such as \"728126428\"");
                }
            }
            Family::Bitcoin => {
                let genesis = bitcoin::constants::genesis_block(chain.network).block_hash().to_string();
                if chain.identity.as_ref().is_some_and(|identity| *identity != genesis) {
                    self.add_problem(
                        at("identity"),
                        format_args!("is not the first block of {}; that is {genesis}", chain.network),
                    );
                }
                if chain.assets().any(|(_, asset)| !asset.is_native()) || chain.assets().count() != 1 {
                    self.add_problem(at("assets"), "must be the native coin alone; there are no tokens on Bitcoin");
                }
            }
        }
        if chain.endpoints.is_empty() {
            self.add_problem(at("endpoints"), "is empty; name a node, because no public node is used by default");
        }
        for (number, endpoint) in chain.endpoints.iter().enumerate() {
            let at = |option: &str| format!("chains.{}.endpoints[{number}].{option}", chain.id);
            match (&endpoint.url, endpoint.url_file.is_unset()) {
                (None, true) => {
                    self.add_problem(at("url"), "is missing; set it, or set url_file to the file that holds it")
                }
                (Some(_), false) => self.add_problem(at("url"), "and url_file are both set; remove one of them"),
                (Some(url), true) if !matches!(url.scheme(), "http" | "https") => {
                    self.add_problem(at("url"), "is not an http or https address");
                }
                (Some(_), true) | (None, false) => {}
            }
            if endpoint.solidity_url.is_some() && chain.family != Family::Tron {
                self.add_problem(at("solidity_url"), "is only for TRON nodes; remove it");
            }
            if endpoint.roles.is_empty() {
                self.add_problem(at("roles"), "is empty; leave it out for all roles");
            }
            let limits = [
                ("requests_per_second", endpoint.requests_per_second, 1),
                ("requests_per_day", endpoint.requests_per_day, REQUESTS_PER_DAY_MIN),
            ];
            for (name, quota, min) in limits {
                if quota.is_some_and(|quota| quota < min) {
                    self.add_problem(
                        at(name),
                        format!("is below {min}, the minimum for a chain; leave it out for no limit"),
                    );
                }
            }
        }
    }

    /// Adds a problem unless `below_usd` and the depths rise from entry to entry, only the last entry has no
    /// `below_usd`, and every depth lies between 1 and `final_depth`.
    fn validate_confirmations(&mut self, chain: &ChainConfig) {
        let at = format!("chains.{}.confirmations", chain.id);
        let Some((last, tiers)) = chain.confirmations.split_last() else {
            self.add_problem(at, "is empty; write [{ depth = 12 }]");
            return;
        };
        let bounds: Vec<Option<Decimal>> = tiers.iter().map(|tier| tier.below_usd).collect();
        if last.below_usd.is_some() || bounds.contains(&None) || !bounds.is_sorted_by(|a, b| a < b) {
            self.add_problem(&at, "must rise in below_usd, and only the last tier has none");
        }
        let depths: Vec<u64> = chain.confirmations.iter().map(|tier| tier.depth).collect();
        if depths.contains(&0) || !depths.is_sorted() || last.depth > chain.final_depth {
            self.add_problem(
                &at,
                format_args!("must have depths from 1 to final_depth ({}) that rise", chain.final_depth),
            );
        }
    }

    /// Adds a problem for each account key that is invalid, listed twice, of a test network although it is for live
    /// money, or given with a path that does not fit its family and purpose. Keys are compared by their bytes, because
    /// a `zpub` and an `xpub` may be the same key.
    fn validate_accounts(&mut self, config: &Config) {
        let mut earlier = Vec::new();
        for (number, account) in config.accounts.iter().enumerate() {
            let at = format!("accounts[{number}].xpub");
            match Deriver::from_account_key(&account.xpub, account.address_scheme()) {
                Ok(deriver) => {
                    let key = deriver.account_key_bytes();
                    if earlier.contains(&key) {
                        self.add_problem(&at, "is there twice; every purpose and epoch has an account of its own");
                    }
                    earlier.push(key);
                    if deriver.is_test_network_key() && account.purpose == Purpose::Deposit {
                        self.add_problem(
                            &at,
                            "is the key of a test network (tpub or vpub), but purpose = \"deposit\" is for live money; use \
                             the key of the main network, or set purpose = \"deposit-test\"",
                        );
                    }
                }
                Err(e @ DeriveError::PrivateKey(_)) => self.add_problem(&at, format_args!("is refused: {e}")),
                Err(e) => {
                    self.add_problem(
                        &at,
                        format_args!("is refused: {e}; paste what `settled-signer keys xpubs` prints"),
                    );
                }
            }
            if let Some(problem) = find_account_path_problem(account.family, account.purpose, &account.path) {
                self.add_problem(format_args!("accounts[{number}].path"), problem);
            }
        }
    }

    fn validate_rates(&mut self, config: &Config) {
        let rates = &config.rates;
        self.require_duration_in_range("rates.refresh_seconds", rates.refresh, seconds(1)..=seconds(3_600));
        self.require_duration_in_range("rates.timeout_ms", rates.timeout, milliseconds(100)..=milliseconds(60_000));
        self.require_in_range("rates.max_deviation_percent", rates.max_deviation_percent, 1..=50);
        self.require_in_range("rates.max_jump_percent", rates.max_jump_percent, 1..=100);
        self.require_in_range("rates.jump_rounds", rates.jump_rounds, 1..=100);
        self.require_in_range("rates.spread_basis_points", rates.spread_basis_points, 0..=5_000);
        self.require_in_range("rates.depeg_percent", rates.depeg_percent, 1..=50);
        if rates.staleness < rates.refresh.saturating_mul(2) {
            let refresh = rates.refresh.as_secs();
            self.add_problem("rates.staleness_seconds", format_args!(
                "is {}; it must be at least twice refresh_seconds ({refresh}), or one slow answer makes coins unavailable",
                rates.staleness.as_secs()
            ));
        }
        if rates.mode == RatesMode::Feeds {
            self.require_in_range("rates.min_sources", rates.min_sources, 1..=rates.sources.len().max(1));
            self.require_in_range("rates.depeg_min_sources", rates.depeg_min_sources, 1..=rates.sources.len().max(1));
        }
        for (number, source) in rates.sources.iter().enumerate() {
            if rates.sources[..number].contains(source) {
                self.add_problem("rates.sources", format_args!("names {source} twice; remove one of them"));
            }
        }
        for (source, url) in &rates.urls {
            if !matches!(url.scheme(), "http" | "https") {
                self.add_problem(format_args!("rates.urls.{source}"), "is not an http or https address");
            }
        }
    }

    fn validate_policy(&mut self, config: &Config) {
        let policy = &config.policy;
        self.require_in_range("policy.tolerance_basis_points", policy.tolerance_basis_points, 0..=5_000);
        self.require_in_range(
            "policy.tolerance_usd",
            Decimal::new(policy.tolerance_usd_cents, 2),
            Decimal::ZERO..=Decimal::from(1_000),
        );
        self.require_in_range("policy.dust_usd", Decimal::new(policy.dust_usd_cents, 2), Decimal::ZERO..=Decimal::ONE);
        self.require_in_range(
            "policy.single_source_max_usd",
            Decimal::new(policy.single_source_max_usd_cents, 2),
            Decimal::ZERO..=Decimal::from(1_000_000),
        );
        self.require_duration_in_range("policy.grace_seconds", policy.grace, seconds(0)..=seconds(86_400));
        self.require_duration_in_range(
            "policy.balance_timeout_seconds",
            policy.balance_timeout,
            seconds(0)..=seconds(86_400),
        );
    }

    fn validate_mail(&mut self, config: &Config) {
        let mail = &config.mail;
        if EmailAddress::parse_with_options(&mail.from, Options::default()).is_err() {
            self.add_problem("mail.from", "is not a sender; write \"Shop <orders@example.com>\"");
        }
        self.require_duration_in_range(
            "mail.smtp.timeout_ms",
            mail.smtp.timeout,
            milliseconds(100)..=milliseconds(25_000),
        );
        if mail.transport != MailTransport::Smtp {
            return;
        }
        let smtp = &mail.smtp;
        if smtp.host.is_empty() {
            self.add_problem("mail.smtp.host", "is empty; name the mail server");
        }
        if smtp.user.is_empty() != smtp.password_file.is_unset() {
            self.add_problem("mail.smtp.user", "and password_file belong together; set both or none");
        }
        if smtp.security == SmtpSecurity::None && !smtp.user.is_empty() {
            self.add_problem(
                "mail.smtp.security",
                "is \"none\", which would send the password in clear; use \"starttls\"",
            );
        }
    }
}

/// Returns true when the log filter accepts the text as a level: the name of a level, or its number.
fn is_log_level(text: &str) -> bool {
    let is_number = text.parse::<usize>().is_ok_and(|number| number < LOG_LEVELS.len());
    is_number || LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}

/// Returns the family as it is written in the configuration.
fn family_name(family: Family) -> &'static str {
    match family {
        Family::Bitcoin => "bitcoin",
        Family::Evm => "evm",
        Family::Tron => "tron",
    }
}

fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
