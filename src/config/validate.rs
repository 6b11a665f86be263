//! Validation: bounds of values and contradictions between options. Each problem names its option and says what to do.

use std::{fmt, ops::RangeInclusive, time::Duration};

use chain::{Deriver, Family};
use email_address::{EmailAddress, Options};
use rust_decimal::Decimal;

use crate::{ChainConfig, Config, Driver, MailTransport, Mount, Purpose, RatesMode, SmtpSecurity};

/// Smallest daily quota of an endpoint: enough for a chain with a block every ten seconds, with room to catch up.
const REQUESTS_PER_DAY_MIN: u32 = 20_000;
/// The levels that the log knows.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Returns the problems of a configuration.
pub fn find_problems(config: &Config) -> Vec<String> {
    let mut validator = Validator::default();
    validator.server(config);
    validator.database(config);
    validator.log(config);
    validator.surfaces(config);
    for chain in config.chains.values() {
        validator.chain(config, chain);
    }
    validator.accounts(config);
    validator.rates(config);
    validator.policy(config);
    validator.mail(config);
    validator.problems
}

#[derive(Default)]
struct Validator {
    problems: Vec<String>,
}

impl Validator {
    /// Adds a problem: a sentence that begins with the option's name.
    fn refuse(&mut self, option: impl fmt::Display, problem: impl fmt::Display) {
        self.problems.push(format!("{option} {problem}"));
    }

    /// Adds a problem when the value is out of range.
    fn within<T: PartialOrd + fmt::Display>(&mut self, option: impl fmt::Display, value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            self.refuse(option, format_args!("is {value}; it must lie between {} and {}", range.start(), range.end()));
        }
    }

    /// Adds a problem when a duration is out of range.
    fn duration(&mut self, option: impl fmt::Display, value: Duration, range: RangeInclusive<Duration>) {
        if !range.contains(&value) {
            let (min, max) = (range.start(), range.end());
            self.refuse(option, format_args!("is {value:?}; it must lie between {min:?} and {max:?}"));
        }
    }

    fn server(&mut self, config: &Config) {
        let server = &config.server;
        let url = &server.public_url;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            self.refuse("server.public_url", "is not an http or https address; write \"https://pay.example.com\"");
        } else if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
            self.refuse("server.public_url", "has more than scheme, host and port; prefixes belong to [surfaces]");
        }
        self.within("server.requests_per_minute", server.requests_per_minute, 1..=1_000_000);
        self.within("server.connections_max", server.connections_max, 16..=1 << 20);
        self.within("server.connections_per_client", server.connections_per_client, 1..=1 << 20);
        self.within("server.body_bytes_max", server.body_bytes_max, 1_024..=1 << 30);
        self.duration("server.request_timeout_ms", server.request_timeout, ms(100)..=ms(600_000));
        self.duration("server.stall_timeout_ms", server.stall_timeout, ms(100)..=ms(600_000));
        self.duration("server.shutdown_timeout_ms", server.shutdown_timeout, ms(0)..=ms(600_000));
    }

    fn database(&mut self, config: &Config) {
        let database = &config.database;
        self.within("database.readers", database.readers, 1..=64);
        self.within("database.pool", database.pool, 2..=1_000);
        if let Some(file) = database.url.strip_prefix("sqlite:") {
            if file.is_empty() {
                self.refuse("database.url", "names no file; write \"sqlite:settled.db\"");
            }
            if !database.password_file.is_none() {
                self.refuse("database.password_file", "is set, but SQLite has no password; remove it");
            }
            return;
        }
        match url::Url::parse(&database.url) {
            Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => {
                if url.password().is_some() {
                    self.refuse("database.url", "holds a password; move it into a file and name that in password_file");
                }
            }
            Ok(_) | Err(_) => {
                self.refuse("database.url", "is neither \"sqlite:FILE\" nor \"postgres://USER@HOST/DATABASE\"");
            }
        }
    }

    fn log(&mut self, config: &Config) {
        for directive in config.log.level.split(',') {
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            if directive.contains('=') && !is_log_level(level.trim()) {
                let levels = LOG_LEVELS.join(", ");
                self.refuse("log.level", format_args!("is not a level: \"{level}\" is none of {levels}"));
            }
        }
    }

    fn surfaces(&mut self, config: &Config) {
        for (name, mount) in config.surfaces.mounts() {
            self.mount(name, mount);
        }
        let checkout = &config.surfaces.checkout;
        self.within("surfaces.checkout.query_per_ip", checkout.query_per_ip, 1..=1_000_000);
        self.within("surfaces.checkout.query_per_pair", checkout.query_per_pair, 1..=1_000_000);
        self.duration("surfaces.checkout.query_window_seconds", checkout.query_window, seconds(1)..=seconds(86_400));
        self.within("surfaces.checkout.orders_per_ip_per_minute", checkout.orders_per_ip_per_minute, 1..=1_000_000);
        self.within("surfaces.checkout.max_quantity", checkout.max_quantity, 1..=100_000);
        let window = checkout.order_window;
        self.duration("surfaces.checkout.order_window_minutes", window, seconds(60)..=seconds(7 * 86_400));
        for (option, page) in [("alipay_url", &checkout.alipay_url), ("wechat_url", &checkout.wechat_url)] {
            let is_page = url::Url::parse(page).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
            let is_usable = page.is_empty() || (is_page && page.contains("{order_no}"));
            if !is_usable {
                let option = format_args!("surfaces.checkout.{option}");
                self.refuse(option, "is not an address with {order_no} in it; leave it empty to keep the method off");
            }
        }
        if checkout.mount.enabled {
            self.checkout_assets(config);
        }
    }

    fn mount(&mut self, name: &str, mount: &Mount) {
        if mount.enabled && name != "checkout" {
            self.refuse(
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
            self.refuse(option, format_args!("is \"{prefix}\"; write it as \"/shop\", or \"\" for none"));
        }
        if !mount.host.is_empty() && url::Host::parse(&mount.host).is_err() {
            self.refuse(format_args!("surfaces.{name}.host"), "is not a host name; leave scheme, port and path out");
        }
        if mount.merchant.is_empty() {
            self.refuse(format_args!("surfaces.{name}.merchant"), "is empty; name the slug of a merchant");
        }
    }

    fn checkout_assets(&mut self, config: &Config) {
        let checkout = &config.surfaces.checkout;
        for (code, asset) in &checkout.assets {
            let option = format_args!("surfaces.checkout.assets.{code}");
            let Some(chain) = config.chains.get(&asset.chain) else {
                self.refuse(option, format_args!("is \"{asset}\", but there is no [chains.{}]", asset.chain));
                continue;
            };
            if chain.asset(&asset.code).is_none() {
                let codes: Vec<&str> = chain.assets().map(|(code, _)| code).collect();
                self.refuse(option, format_args!("is \"{asset}\", but {} has only {}", chain.id, codes.join(", ")));
            }
            if chain.enabled && chain.mode != checkout.mount.mode {
                let (chain_mode, mode) = (chain.mode.as_str(), checkout.mount.mode.as_str());
                self.refuse(
                    option,
                    format_args!(
                        "is on a chain in {chain_mode} mode, but the surface is in {mode} mode; use the same mode for both"
                    ),
                );
            }
        }
    }

    fn chain(&mut self, config: &Config, chain: &ChainConfig) {
        let at = |option: &str| format!("chains.{}.{option}", chain.id);
        self.duration(at("timeout_ms"), chain.timeout, ms(100)..=ms(300_000));
        self.duration(at("poll_ms"), chain.poll, ms(50)..=ms(600_000));
        self.duration(at("block_time_ms"), chain.block_time, ms(50)..=ms(86_400_000));
        self.within(at("answer_bytes_max"), chain.answer_bytes_max, 65_536..=1 << 32);
        self.within(at("final_depth"), chain.final_depth, 1..=10_000);
        self.within(at("final_depth_min"), chain.final_depth_min, 0..=chain.final_depth);
        self.within(at("keep_blocks"), chain.keep_blocks, chain.final_depth..=100_000);
        self.confirmations(chain);
        if !chain.enabled {
            return;
        }
        if chain.assets().next().is_none() {
            self.refuse(at("assets"), "is empty; name a preset, or the assets that can be paid");
        }
        if config.deposit_account(chain).is_none() {
            self.no_account(config, chain);
        }
        match chain.driver {
            Driver::Simnet if chain.mode == ids::Mode::Live => {
                self.refuse(at("driver"), "is \"simnet\", whose coins are worthless; set mode = \"test\"");
            }
            Driver::Simnet => {}
            Driver::Node => self.nodes(chain),
        }
    }

    fn no_account(&mut self, config: &Config, chain: &ChainConfig) {
        let at = |option: &str| format!("chains.{}.{option}", chain.id);
        if let Some(problem) = config.describe_address_kind_mismatch(chain) {
            self.refuse(at("address_kind"), problem);
            return;
        }
        let family = family_name(chain.family);
        let purpose = Purpose::for_deposits(chain.mode).as_str();
        self.refuse(
            at("enabled"),
            format_args!(
                "is true, but there is no [[accounts]] with chain-family = \"{family}\" and purpose = \"{purpose}\"; \
             paste what `settled-signer keys xpubs SEED --purpose {purpose}` prints"
            ),
        );
    }

    fn nodes(&mut self, chain: &ChainConfig) {
        let at = |option: &str| format!("chains.{}.{option}", chain.id);
        match chain.family {
            Family::Evm => {
                if chain.identity.as_ref().is_none_or(|identity| identity.parse::<u64>().is_err()) {
                    self.refuse(at("identity"), "is not the number of an EVM chain, such as \"1\"");
                }
            }
            Family::Tron => {
                if chain.identity.as_ref().is_none_or(|identity| identity.parse::<u32>().is_err()) {
                    self.refuse(at("identity"), "is not the number of a TRON chain, such as \"728126428\"");
                }
            }
            Family::Bitcoin => {
                let genesis = bitcoin::constants::genesis_block(chain.network).block_hash().to_string();
                if chain.identity.as_ref().is_some_and(|identity| *identity != genesis) {
                    self.refuse(
                        at("identity"),
                        format_args!("is not the first block of {}; that is {genesis}", chain.network),
                    );
                }
                if chain.assets().any(|(_, asset)| !asset.is_native()) || chain.assets().count() != 1 {
                    self.refuse(at("assets"), "must be the native coin alone; there are no tokens on Bitcoin");
                }
            }
        }
        if chain.endpoints.is_empty() {
            self.refuse(at("endpoints"), "is empty; name a node, because no public node is used by default");
        }
        for (number, endpoint) in chain.endpoints.iter().enumerate() {
            let at = |option: &str| format!("chains.{}.endpoints[{number}].{option}", chain.id);
            match (&endpoint.url, endpoint.url_file.is_none()) {
                (None, true) => self.refuse(at("url"), "is missing; set it, or set url_file to the file that holds it"),
                (Some(_), false) => self.refuse(at("url"), "and url_file are both set; remove one of them"),
                (Some(url), true) if !matches!(url.scheme(), "http" | "https") => {
                    self.refuse(at("url"), "is not an http or https address");
                }
                (Some(_), true) | (None, false) => {}
            }
            if endpoint.solidity_url.is_some() && chain.family != Family::Tron {
                self.refuse(at("solidity_url"), "is only for TRON nodes; remove it");
            }
            if endpoint.roles.is_empty() {
                self.refuse(at("roles"), "is empty; leave it out for all roles");
            }
            let limits = [
                ("requests_per_second", endpoint.requests_per_second, 1),
                ("requests_per_day", endpoint.requests_per_day, REQUESTS_PER_DAY_MIN),
            ];
            for (name, quota, min) in limits {
                if quota.is_some_and(|quota| quota < min) {
                    self.refuse(
                        at(name),
                        format!("is below {min}, the minimum for a chain; leave it out for no limit"),
                    );
                }
            }
        }
    }

    fn confirmations(&mut self, chain: &ChainConfig) {
        let at = format!("chains.{}.confirmations", chain.id);
        let Some((last, tiers)) = chain.confirmations.split_last() else {
            self.refuse(at, "is empty; write [{ depth = 12 }]");
            return;
        };
        let bounds: Vec<Option<Decimal>> = tiers.iter().map(|tier| tier.below_usd).collect();
        if last.below_usd.is_some() || bounds.contains(&None) || !bounds.is_sorted() {
            self.refuse(&at, "must rise in below_usd, and only the last tier has none");
        }
        let depths: Vec<u64> = chain.confirmations.iter().map(|tier| tier.depth).collect();
        if depths.contains(&0) || !depths.is_sorted() || last.depth > chain.final_depth {
            self.refuse(&at, format_args!("must have depths from 1 to final_depth ({}) that rise", chain.final_depth));
        }
    }

    fn accounts(&mut self, config: &Config) {
        for (number, account) in config.accounts.iter().enumerate() {
            let at = format!("accounts[{number}].xpub");
            if let Err(e) = Deriver::new(&account.xpub, account.scheme()) {
                self.refuse(&at, format_args!("is refused: {e}; paste what `settled-signer keys xpubs` prints"));
            }
            if config.accounts[..number].iter().any(|earlier| earlier.xpub.trim() == account.xpub.trim()) {
                self.refuse(&at, "is there twice; every purpose and epoch has an account of its own");
            }
        }
    }

    fn rates(&mut self, config: &Config) {
        let rates = &config.rates;
        self.duration("rates.refresh_seconds", rates.refresh, seconds(1)..=seconds(3_600));
        self.duration("rates.timeout_ms", rates.timeout, ms(100)..=ms(60_000));
        self.within("rates.max_deviation_percent", rates.max_deviation_percent, 1..=50);
        self.within("rates.max_jump_percent", rates.max_jump_percent, 1..=100);
        self.within("rates.jump_rounds", rates.jump_rounds, 1..=100);
        self.within("rates.spread_basis_points", rates.spread_basis_points, 0..=5_000);
        self.within("rates.depeg_percent", rates.depeg_percent, 1..=50);
        if rates.staleness < rates.refresh.saturating_mul(2) {
            let refresh = rates.refresh.as_secs();
            self.refuse("rates.staleness_seconds", format_args!(
                "is {}; it must be at least twice refresh_seconds ({refresh}), or one slow answer makes coins unavailable",
                rates.staleness.as_secs()
            ));
        }
        if rates.mode == RatesMode::Feeds {
            self.within("rates.min_sources", rates.min_sources, 1..=rates.sources.len().max(1));
            self.within("rates.depeg_min_sources", rates.depeg_min_sources, 1..=rates.sources.len().max(1));
        }
        for (number, source) in rates.sources.iter().enumerate() {
            if rates.sources[..number].contains(source) {
                self.refuse("rates.sources", format_args!("names {source} twice; remove one of them"));
            }
        }
        for (source, url) in &rates.urls {
            if !matches!(url.scheme(), "http" | "https") {
                self.refuse(format_args!("rates.urls.{source}"), "is not an http or https address");
            }
        }
    }

    fn policy(&mut self, config: &Config) {
        let policy = &config.policy;
        self.within("policy.tolerance_basis_points", policy.tolerance_basis_points, 0..=5_000);
        self.within(
            "policy.tolerance_usd",
            Decimal::new(policy.tolerance_usd_cents, 2),
            Decimal::ZERO..=Decimal::from(1_000),
        );
        self.within("policy.dust_usd", Decimal::new(policy.dust_usd_cents, 2), Decimal::ZERO..=Decimal::ONE);
        self.duration("policy.grace_seconds", policy.grace, seconds(0)..=seconds(86_400));
        self.duration("policy.balance_timeout_seconds", policy.balance_timeout, seconds(0)..=seconds(86_400));
    }

    fn mail(&mut self, config: &Config) {
        let mail = &config.mail;
        if EmailAddress::parse_with_options(&mail.from, Options::default()).is_err() {
            self.refuse("mail.from", "is not a sender; write \"Shop <orders@example.com>\"");
        }
        self.within("mail.attempts_max", mail.attempts_max, 1..=100);
        self.duration("mail.smtp.timeout_ms", mail.smtp.timeout, ms(100)..=ms(300_000));
        if mail.transport != MailTransport::Smtp {
            return;
        }
        let smtp = &mail.smtp;
        if smtp.host.is_empty() {
            self.refuse("mail.smtp.host", "is empty; name the mail server");
        }
        if smtp.user.is_empty() != smtp.password_file.is_none() {
            self.refuse("mail.smtp.user", "and password_file belong together; set both or none");
        }
        if smtp.security == SmtpSecurity::None && !smtp.user.is_empty() {
            self.refuse("mail.smtp.security", "is \"none\", which would send the password in clear; use \"starttls\"");
        }
    }
}

/// Returns true for a level that the log's filter accepts: a name, or its number.
fn is_log_level(text: &str) -> bool {
    let is_number = text.parse::<usize>().is_ok_and(|number| number < LOG_LEVELS.len());
    is_number || LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::Bitcoin => "bitcoin",
        Family::Evm => "evm",
        Family::Tron => "tron",
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
