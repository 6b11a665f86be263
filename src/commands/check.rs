//! The command `settled check`: examines everything that the daemon needs and explains how to fix each problem. It
//! changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;

use chain::{ChainId, Deriver, Height, Source, SourceError, WatchSet};

use crate::commands::command_error::CommandError;
use crate::commands::database::{find_missing_database_file, open_or_create_database};
use crate::commands::envelope_keys::load_existing_envelope_keys;
use crate::commands::hints::format_hint;
use crate::commands::installation::Installation;
use crate::commands::output::print_line_or_exit;
use crate::commands::payable_coins::CoinObstacles;
use crate::daemon;
use crate::daemon::address_mark::{self, MarkCheck};
use crate::daemon::startup_checks::SINGLE_PROVIDER;
use crate::feeds::{Feeds, RateConsensus};
use crate::ops::disk;
use crate::workers::follow::missing_blocks::describe_missing_blocks;
use clock::{Clock, Instant};
use config::{ChainConfig, Config, MailTransport, Pair, RatesMode};
use db::{self, Db};
use envelope::Envelope;
use mail::Transport;
use money::addresses::MarkFile;
use money::cursors::{self, Cursor};
use money::immutable_facts::{self, Fact};
use money::invoices;
use shop::{merchants, stock};

/// The age of the newest block, in block times, above which the command warns that the node is behind or the chain has
/// stopped.
const STALE_AFTER_BLOCKS: u32 = 50;
/// The maximum number of seconds by which a block's time may be ahead of the machine's clock. When the difference is
/// larger, the clock is considered wrong.
const CLOCK_SKEW_SECONDS_MAX: i64 = 60;
/// The free disk space, in MiB, below which the command prints a warning.
const FREE_MIB_MIN: u64 = 2_048;

/// Selects the installation to examine.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    installation: Installation,
}

/// Prints the findings of the checks, and counts the failures and warnings among them.
#[derive(Default)]
struct CheckReport {
    failures: u32,
    warnings: u32,
    /// The chains, tokens and rates that failed a check, because of which buyers cannot pay with some coins.
    obstacles: CoinObstacles,
}

impl CheckReport {
    fn print_ok(&mut self, subject: &str, finding: impl Display) {
        print_line_or_exit(format_args!("OK    {subject}: {finding}"));
    }

    fn print_warning(&mut self, subject: &str, finding: impl Display) {
        self.warnings += 1;
        print_line_or_exit(format_args!("WARN  {subject}: {finding}"));
    }

    fn print_failure(&mut self, subject: &str, finding: impl Display) {
        self.failures += 1;
        print_line_or_exit(format_args!("FAIL  {subject}: {finding}"));
    }
}

/// Runs all checks and prints their findings. Fails with exit code 1 when a check fails. Warnings alone do not cause a
/// failure.
pub async fn run_and_print_all_checks(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load_config()?;
    let mut report = CheckReport::default();
    report.print_ok("configuration", "all options are known and within their bounds");
    check_data_folder_and_disk(&mut report, &config.data.folder);
    let stored = check_database_and_read_state_or_default(&mut report, &config).await?;
    check_deposit_keys_and_print_addresses(&mut report, &config);
    for chain in config.chains.values().filter(|chain| chain.enabled) {
        check_config_against_stored_facts(&mut report, chain, &stored.facts);
        check_nodes_and_tokens(&mut report, &config, chain, &stored).await;
    }
    check_rates(&mut report, &config).await;
    check_mail_server(&mut report, &config).await;
    warn_if_https_without_trusted_proxy(&mut report, &config);
    check_that_some_coin_can_be_paid(&mut report, &config);
    print_line_or_exit(format_args!("{} failures, {} warnings", report.failures, report.warnings));
    if report.failures == 0 { Ok(()) } else { Err(CommandError::findings_error()) }
}

fn check_data_folder_and_disk(report: &mut CheckReport, folder: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let name = folder.display();
    let metadata = match std::fs::metadata(folder) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return report.print_warning(
                "data folder",
                format_args!(
                    "{name} does not exist yet; the daemon creates it if it has permission, otherwise run `install -d -m 700 {name}`"
                ),
            );
        }
        Err(e) => return report.print_failure("data folder", format_args!("{name}: {e}")),
    };
    let mode_of_others = metadata.permissions().mode() & 0o077;
    match (metadata.is_dir(), mode_of_others) {
        (false, _) => {
            report.print_failure("data folder", format_args!("{name} is not a folder; name a folder in [data] folder"))
        }
        (true, 0) => report.print_ok("data folder", format_args!("{name}, accessible only to its owner")),
        (true, _) => {
            report.print_warning("data folder", format_args!("other users may enter {name}; run `chmod 700 {name}`"))
        }
    }
    match disk::free_disk_bytes(folder).map(|bytes| bytes / 1024 / 1024) {
        Ok(free) if free < FREE_MIB_MIN => {
            report.print_warning("disk", format_args!("only {free} MiB are free; free some space"))
        }
        Ok(free) => report.print_ok("disk", format_args!("{free} MiB are free")),
        Err(e) => report.print_failure("disk", format_args!("{name}: {e}")),
    }
}

/// The values that the database stores for facts that must never change (identities of chains, decimals of tokens), by
/// the name of the fact.
type StoredFacts = BTreeMap<String, String>;

/// The data of the database that is compared with the configuration and with the nodes.
#[derive(Default)]
struct StoredState {
    facts: StoredFacts,
    /// The cursor (the last followed blocks) of each enabled chain that a daemon has followed before.
    cursors: BTreeMap<ChainId, Cursor>,
}

async fn check_database_and_read_state_or_default(
    report: &mut CheckReport,
    config: &Config,
) -> Result<StoredState, CommandError> {
    let mut stored = StoredState::default();
    let url = &config.database.url;
    if let Some(file) = find_missing_database_file(config)? {
        let file = file.display();
        report.print_warning(
            "database",
            format_args!("{file} does not exist yet; the daemon creates it at its first start"),
        );
        return Ok(stored);
    }
    let db = match open_or_create_database(config).await {
        Ok(db) => db,
        Err(e) => {
            report.print_failure("database", e);
            return Ok(stored);
        }
    };
    match db.pending_migrations().await {
        Err(e) => report.print_failure("database", e),
        Ok(pending) if !pending.is_empty() => {
            report.print_warning(
                "database",
                format_args!(
                    "{url} lacks the migrations {}; start the daemon or run {}",
                    pending.join(", "),
                    format_hint(config, "migrate")
                ),
            );
        }
        Ok(_) => {
            report.print_ok("database", format_args!("{url} has the schema of this version"));
            check_merchants_of_surfaces(report, config, &db).await?;
            warn_of_unfollowed_invoices(report, config, &db).await?;
            check_address_mark(report, config, &db).await;
            stored = read_stored_state(config, &db).await?;
            match load_existing_envelope_keys(&config.data.folder) {
                Ok(envelope) => check_keys_of_stock(report, &db, envelope).await?,
                Err(e) => report.print_failure("envelope keys", e),
            }
        }
    }
    db.close().await;
    Ok(stored)
}

async fn read_stored_state(config: &Config, db: &Db) -> Result<StoredState, CommandError> {
    let chains: Vec<ChainId> =
        config.chains.values().filter(|chain| chain.enabled).map(|chain| chain.id.clone()).collect();
    let stored: Result<_, db::Error> = db
        .read("read_stored_state", move |tx| {
            Box::pin(async move {
                let mut stored =
                    StoredState { facts: immutable_facts::list_facts(tx).await?, ..StoredState::default() };
                for chain in chains {
                    if let Some(cursor) = cursors::find_cursor(tx, &chain).await? {
                        stored.cursors.insert(chain, cursor);
                    }
                }
                Ok(stored)
            })
        })
        .await;
    Ok(stored?)
}

/// Compares the database with the address mark. The daemon does not serve a database that is older than the mark.
async fn check_address_mark(report: &mut CheckReport, config: &Config, db: &Db) {
    let mark = MarkFile::new(config.mark_path());
    let path = mark.path().display();
    if mark.path().starts_with(&config.data.folder) {
        report.print_warning(
            "address mark",
            format_args!(
                "{path} is in the data folder, so it is restored and lost together with the database; name a place outside in \
                 [data] mark_path"
            ),
        );
    }
    let check = match address_mark::compare_database_with_mark(&mark, db).await {
        Ok(check) => check,
        Err(e) => return report.print_failure("address mark", e),
    };
    match (address_mark::describe_mark_problem(&mark, &check), check) {
        (Some(problem), _) => report.print_failure("address mark", problem),
        (None, MarkCheck::New) => {
            report.print_ok("address mark", format_args!("{path} is created by the first start of the daemon"));
        }
        (None, MarkCheck::Ok | MarkCheck::Missing | MarkCheck::Behind(_)) => {
            report.print_ok("address mark", format_args!("the database is not older than {path}"));
        }
    }
}

/// Checks that the key ring has every key with which stock was encrypted.
async fn check_keys_of_stock(report: &mut CheckReport, db: &Db, envelope: Envelope) -> Result<(), CommandError> {
    let keys: Result<_, db::Error> = db
        .read("list_stock_keys", move |tx| {
            Box::pin(async move { stock::list_and_test_stock_keys(tx, &envelope).await })
        })
        .await;
    let missing: Vec<_> = keys?.into_iter().filter_map(|key| key.error).collect();
    for error in &missing {
        report.print_failure(
            "stock",
            format_args!("stock cannot be decrypted: {error}; restore envelope.keys from its copy"),
        );
    }
    if missing.is_empty() {
        report.print_ok("envelope keys", "the keys can be read, and they decrypt the stock");
    }
    Ok(())
}

async fn check_merchants_of_surfaces(report: &mut CheckReport, config: &Config, db: &Db) -> Result<(), CommandError> {
    for (name, mount) in config.surfaces.list_mounts().into_iter().filter(|(_, mount)| mount.enabled) {
        let slug = mount.merchant.clone();
        let found = db.read("find_merchant_by_slug", move |tx| {
            Box::pin(async move { merchants::find_merchant_by_slug(tx, &slug).await })
        });
        let found: Result<_, db::Error> = found.await;
        let (surface, slug) = (format!("surface {name}"), &mount.merchant);
        match found? {
            Some(merchant) => report.print_ok(&surface, format_args!("sells for `{slug}` ({})", merchant.name)),
            None => report.print_failure(
                &surface,
                format_args!(
                    "there is no merchant `{slug}`; run {}",
                    format_hint(config, &format!("admin merchant create {slug}"))
                ),
            ),
        }
    }
    Ok(())
}

/// Prints a warning for each chain that has open invoices but is disabled or no longer configured.
async fn warn_of_unfollowed_invoices(report: &mut CheckReport, config: &Config, db: &Db) -> Result<(), CommandError> {
    let followed: Vec<ChainId> =
        config.chains.values().filter(|chain| chain.enabled).map(|chain| chain.id.clone()).collect();
    let unfollowed_invoices: Result<_, db::Error> = db
        .read("count_waiting_unfollowed_invoices", move |tx| {
            Box::pin(async move { invoices::count_waiting_on_unfollowed_chains(tx, &followed).await })
        })
        .await;
    for (chain, count) in unfollowed_invoices? {
        report.print_warning(
            &format!("chain {chain}"),
            format_args!(
                "{count} open invoices are on this chain, but it is not enabled: they cannot be paid and do not expire; enable \
                 [chains.{chain}] until none is open"
            ),
        );
    }
    Ok(())
}

/// Prints the first address of each account, so that the operator can compare it with the address that the signer
/// derives.
fn check_deposit_keys_and_print_addresses(report: &mut CheckReport, config: &Config) {
    let mut shown = BTreeMap::new();
    for chain in config.chains.values().filter(|chain| chain.enabled) {
        let Some(account) = config.find_newest_deposit_account_key(chain) else { continue };
        let subject = format!("keys of {}", chain.id);
        match Deriver::from_account_key(&account.xpub, chain.address_scheme())
            .and_then(|deriver| deriver.derive_address(0))
        {
            Ok(address) if shown.insert(address.text.clone(), &chain.id).is_none() => {
                let path = if account.path.is_empty() { "the account" } else { account.path.as_str() };
                report.print_ok(
                    &subject,
                    format_args!(
                        "the first address of {path} is {address}; `settled-signer keys derive` must print the same"
                    ),
                );
            }
            Ok(_) => report.print_ok(&subject, "the account is shared with the chain above"),
            Err(e) => {
                report.print_failure(&subject, format_args!("{e}; paste what `settled-signer keys xpubs` prints"))
            }
        }
    }
}

/// Compares the configuration with the facts in the database. When a chain's identity or a token's decimals have
/// changed, the daemon does not start.
fn check_config_against_stored_facts(report: &mut CheckReport, chain: &ChainConfig, immutable_facts: &StoredFacts) {
    let identity = chain.identity.clone().map(|id| Fact::new_chain_identity(&chain.id, id));
    let tokens = chain.assets().filter(|(_, asset)| !asset.is_native());
    let facts =
        identity.into_iter().chain(tokens.map(|(_, asset)| Fact::new_asset_decimals(&asset.id, asset.decimals)));
    let mut matching = 0;
    for fact in facts {
        match find_differing_stored_value(immutable_facts, &fact) {
            Some(stored) => report.print_failure(
                &format!("chain {}, database", chain.id),
                format_args!(
                    "{} is {} in the configuration, but {stored} in the database; {RESTORE}",
                    fact.name, fact.value
                ),
            ),
            None => matching += usize::from(immutable_facts.contains_key(&fact.name)),
        }
    }
    if matching > 0 {
        report.print_ok(
            &format!("chain {}, database", chain.id),
            format_args!("{matching} stored facts match the configuration"),
        );
    }
}

/// The advice that is printed when the facts of a chain differ from the stored facts.
const RESTORE: &str = "restore the old configuration, or use a new database";

/// Returns the stored value of a fact when it differs from the given value; `None` when both are equal or nothing is
/// stored.
fn find_differing_stored_value<'a>(immutable_facts: &'a StoredFacts, fact: &Fact) -> Option<&'a String> {
    immutable_facts.get(&fact.name).filter(|stored| **stored != fact.value)
}

async fn check_nodes_and_tokens(report: &mut CheckReport, config: &Config, chain: &ChainConfig, stored: &StoredState) {
    let subject = format!("chain {}", chain.id);
    let only_this_chain = Config { chains: BTreeMap::from([(chain.id.clone(), chain.clone())]), ..config.clone() };
    let source = match daemon::drivers::open_enabled_chain_sources(&only_this_chain, None) {
        Ok(sources) => sources.get(&chain.id).cloned(),
        Err(e) => {
            report.obstacles.add_chain(&chain.id, "has a driver that cannot be opened");
            return report.print_failure(&subject, format_args!("{e:#}"));
        }
    };
    let Some(source) = source else { return };
    for endpoint in source.check_endpoints().await {
        let endpoint_subject = format!("{subject}, {}", endpoint.endpoint);
        match endpoint.outcome {
            Ok(finding) => report.print_ok(&endpoint_subject, finding),
            Err(problem) => report.print_failure(
                &endpoint_subject,
                format_args!("{problem}; check that the node runs and that its address is right"),
            ),
        }
    }
    if source.needs_second_source() && source.independent_provider_count() < 2 {
        report.print_warning(&subject, format_args!("the chain {SINGLE_PROVIDER}"));
    }
    check_identity_of_node(report, &subject, chain, source.as_ref(), &stored.facts).await;
    let tip = check_tip_age_and_clock(report, &subject, chain, source.as_ref(), Clock::System.now()).await;
    let cursor = stored.cursors.get(&chain.id);
    if let Some(tip) = tip {
        check_that_next_block_is_readable(report, &subject, chain, source.as_ref(), cursor, tip).await;
    }
    if let Some(reason) = cursor.and_then(|cursor| cursor.halted.as_ref()) {
        report.obstacles.add_chain(&chain.id, "is halted");
        report.print_failure(
            &subject,
            format_args!("is halted: {reason}; decide, then run `settled admin chain resume {}`", chain.id),
        );
    }
    check_token_decimals(report, &subject, chain, source.as_ref(), &stored.facts).await;
}

async fn check_token_decimals(
    report: &mut CheckReport,
    subject: &str,
    chain: &ChainConfig,
    source: &dyn Source,
    immutable_facts: &StoredFacts,
) {
    for (code, asset) in chain.assets() {
        let chain::AssetKind::Token { contract } = &asset.kind else { continue };
        let token = format!("{subject}, {code}");
        let problem = match source.decimals(contract).await {
            Ok(decimals) => {
                let fact = Fact::new_asset_decimals(&asset.id, decimals);
                if find_differing_stored_value(immutable_facts, &fact).is_some() {
                    format!(
                        "the contract reports {decimals} decimals, but the database has stored another number; {RESTORE}"
                    )
                } else if decimals == asset.decimals {
                    report.print_ok(&token, format_args!("{decimals} decimals, as configured"));
                    continue;
                } else {
                    let configured = asset.decimals;
                    format!(
                        "the contract reports {decimals} decimals, but the configuration has {configured}; correct the \
                         configuration"
                    )
                }
            }
            Err(e) => format!("{contract}: {e}"),
        };
        report.obstacles.add_token(&asset.id);
        report.print_failure(&token, problem);
    }
}

async fn check_identity_of_node(
    report: &mut CheckReport,
    subject: &str,
    chain: &ChainConfig,
    source: &dyn Source,
    immutable_facts: &StoredFacts,
) {
    match (source.identity().await, &chain.identity) {
        (Err(e), _) => {
            report.obstacles.add_chain(&chain.id, "has no node that answers");
            report.print_failure(subject, format_args!("{e}; check that the node runs and that its address is right"))
        }
        (Ok(identity), Some(wanted)) if identity.id != *wanted => {
            report.obstacles.add_chain(&chain.id, "has a node of another network");
            report.print_failure(
                subject,
                format_args!(
                    "the node is {}, but [chains.{}] has identity {wanted}; name a node of that network",
                    identity.id, chain.id
                ),
            );
        }
        (Ok(identity), _) => {
            match find_differing_stored_value(
                immutable_facts,
                &Fact::new_chain_identity(&chain.id, identity.id.clone()),
            ) {
                Some(stored) => {
                    report.obstacles.add_chain(&chain.id, "has a node of another network");
                    report.print_failure(
                        subject,
                        format_args!(
                            "the node is {}, but the database was filled from {stored}; {RESTORE}",
                            identity.id
                        ),
                    );
                }
                None => report.print_ok(subject, format_args!("the node is {}", identity.id)),
            }
        }
    }
}

/// Checks the age of the node's newest block, and by its time the machine's clock. Returns the height of the block;
/// `None` when no endpoint returned it.
async fn check_tip_age_and_clock(
    report: &mut CheckReport,
    subject: &str,
    chain: &ChainConfig,
    source: &dyn Source,
    now: Instant,
) -> Option<Height> {
    let tip = match source.tip().await {
        Ok(tip) => tip,
        Err(e) => {
            report.obstacles.add_chain(&chain.id, "has no node that answers");
            report.print_failure(subject, e);
            return None;
        }
    };
    let age = now.unix_seconds().saturating_sub(tip.head.time);
    let stale_age = i64::try_from((chain.block_time * STALE_AFTER_BLOCKS).as_secs()).unwrap_or(i64::MAX);
    match age {
        age if age < -CLOCK_SKEW_SECONDS_MAX => {
            report.print_failure(
                "clock",
                format_args!(
                    "block {} of {} is {} s in the future; set the clock by NTP",
                    tip.head.height, chain.id, -age
                ),
            );
        }
        age if age > stale_age => report.print_warning(
            subject,
            format_args!("the newest block is {age} s old: the node is still syncing, or the chain has stopped"),
        ),
        age => report.print_ok(subject, format_args!("block {} is {} s old", tip.head.height, age.max(0))),
    }
    Some(tip.head.height)
}

/// Checks that some endpoint still has the block that the daemon reads next. A pruned node deletes old blocks, and the
/// daemon skips none.
async fn check_that_next_block_is_readable(
    report: &mut CheckReport,
    subject: &str,
    chain: &ChainConfig,
    source: &dyn Source,
    cursor: Option<&Cursor>,
    tip: Height,
) {
    let after_cursor = cursor.and_then(|cursor| cursor.recent.last()).map(|block| block.height.saturating_add(1));
    let Some(next) = after_cursor.or(chain.start_height).filter(|next| *next <= tip) else { return };
    match source.blocks(next, next, &WatchSet::default()).await {
        // The node does not have this block after a reorg. That is no failure, because the daemon rewinds.
        Ok(_) | Err(SourceError::BlockNotFound(_)) => {
            let behind = tip.saturating_sub(next).saturating_add(1);
            report.print_ok(subject, format_args!("block {next} is read next; {behind} blocks are to be read"));
        }
        Err(error @ SourceError::Unsupported(_)) => {
            report.obstacles.add_chain(&chain.id, "has no node with the next block to read");
            let advice = describe_missing_blocks(chain.family, &chain.id, next);
            report.print_failure(subject, format_args!("{advice} ({error})"));
        }
        Err(error @ (SourceError::Unavailable(_) | SourceError::InvalidResponse(_))) => {
            report.obstacles.add_chain(&chain.id, "has no node with the next block to read");
            report.print_failure(subject, format_args!("block {next}, which is read next: {error}"));
        }
    }
}

/// Prints a warning when the public URL is https but no proxy is trusted. The daemon itself speaks only HTTP, so a
/// proxy must be in front of it.
fn warn_if_https_without_trusted_proxy(report: &mut CheckReport, config: &Config) {
    if config.server.public_url.scheme() == "https" && config.server.trusted_proxies.is_empty() {
        report.print_warning(
            "proxy",
            "[server] public_url is https, so a proxy is in front of the daemon, but trusted_proxies is empty: all clients \
             share the rate limits of one address; name the proxy's network, such as \"127.0.0.1/32\"",
        );
    }
}

/// Connects to the mail server and logs in, but sends no mail. When mails are not sent by SMTP, prints where they go
/// instead.
async fn check_mail_server(report: &mut CheckReport, config: &Config) {
    let server = format!("{}:{}", config.mail.smtp.host, config.mail.smtp.port);
    match config.mail.transport {
        MailTransport::Log => {
            return report
                .print_warning("mail", "[mail] transport is \"log\", so buyers get no mail; set it to \"smtp\"");
        }
        MailTransport::File => {
            return report.print_ok("mail", "mails are written to the folder `mail` in the data folder, and not sent");
        }
        MailTransport::Smtp => {}
    }
    let transport = match Transport::new(&config.mail, &config.data.folder) {
        Ok(transport) => transport,
        Err(e) => return report.print_failure("mail", e),
    };
    match transport.test_server_login_if_smtp().await {
        Ok(()) => report.print_ok("mail", format_args!("{server} accepts connection, encryption and login")),
        Err(e) => report.print_failure(
            "mail",
            format_args!("{server}: {e}; check [mail.smtp]: host, port, security, user, password_file and ca_file"),
        ),
    }
}

async fn check_rates(report: &mut CheckReport, config: &Config) {
    for (pair, rate) in &config.rates.fixed {
        report.print_ok(
            &format!("rates, {pair}"),
            format_args!("the configuration fixes it at {rate}; it never becomes stale, so keep it up to date"),
        );
    }
    if let Some(missing) = daemon::startup_checks::describe_missing_currency_rate(config) {
        report.print_failure("rates", missing);
    }
    match config.rates.mode {
        RatesMode::Fixed => check_fixed_rates_are_complete(report, config),
        RatesMode::Feeds => check_rates_of_exchanges(report, config).await,
    }
}

/// Checks that the configuration has a fixed USD rate for every checkout asset on an enabled chain. It is called only
/// if no rates come from exchanges.
fn check_fixed_rates_are_complete(report: &mut CheckReport, config: &Config) {
    let missing = list_pairs_without_fixed_rate(config);
    for pair in &missing {
        report.obstacles.add_pair(pair);
        report.print_warning(
            "rates",
            format_args!(
                "[rates.fixed] has no \"{pair}\", so buyers cannot pay with this coin; set it, or set mode = \"feeds\""
            ),
        );
    }
    if missing.is_empty() {
        report.print_ok("rates", "the configuration fixes all rates");
    }
}

async fn check_rates_of_exchanges(report: &mut CheckReport, config: &Config) {
    let pairs = list_pairs_without_fixed_rate(config);
    let feeds = match Feeds::new(&config.rates, Clock::System) {
        Ok(feeds) => feeds,
        Err(e) => return report.print_failure("rates", e),
    };
    let mut observations = Vec::new();
    for (source, outcome) in feeds.request_prices_by_exchange(&pairs).await {
        match outcome {
            Ok(quotes) => {
                report.print_ok(&format!("rates, {source}"), format_args!("{} quotes", quotes.len()));
                observations.extend(quotes);
            }
            Err(e) => report.print_warning(&format!("rates, {source}"), e),
        }
    }
    for (pair, outcome) in
        RateConsensus::new(&config.rates).decide_and_record_rates(Clock::System.now(), &pairs, &observations)
    {
        match outcome {
            Ok(agreed) => report.print_ok("rates", format_args!("{pair} is {}, {agreed}", agreed.value)),
            Err(e) => {
                report.obstacles.add_pair(&pair);
                report.print_failure(
                    "rates",
                    format_args!("{pair}: {e}; allow connections to the exchanges, or set the pair in [rates.fixed]"),
                );
            }
        }
    }
}

/// Prints with which coins buyers can pay, according to all earlier checks. Reports a failure when chains are enabled
/// but buyers can pay with no coin.
fn check_that_some_coin_can_be_paid(report: &mut CheckReport, config: &Config) {
    if !config.chains.values().any(|chain| chain.enabled) {
        return report.print_warning(
            "coins",
            "NO COIN CAN BE PAID: no chain is enabled; set enabled = true in [chains.ethereum], for example, and name a \
             node",
        );
    }
    let coins = report.obstacles.group_coins_by_payability(config);
    match (coins.payable.is_empty(), coins.unpayable.is_empty()) {
        (true, true) => report.print_failure(
            "coins",
            "NO COIN CAN BE PAID: no asset in [surfaces.checkout.assets] is on an enabled chain; name one there",
        ),
        (true, false) => report.print_failure(
            "coins",
            format_args!("NO COIN CAN BE PAID: {}; see the lines above", coins.unpayable.join(", ")),
        ),
        (false, _) => {
            report.print_ok("coins", format_args!("buyers can pay with {}", coins.payable.join(", ")));
            if !coins.unpayable.is_empty() {
                report.print_warning("coins", format_args!("buyers cannot pay with {}", coins.unpayable.join(", ")));
            }
        }
    }
}

/// Returns the pairs, such as BTC/USD, that have no fixed rate in the configuration, for the checkout assets on enabled
/// chains.
fn list_pairs_without_fixed_rate(config: &Config) -> Vec<Pair> {
    let assets =
        config.surfaces.checkout.assets.keys().filter_map(|code| config.find_checkout_asset_of_enabled_chain(code));
    let pairs: BTreeSet<Pair> = assets.map(|(_, asset)| Pair::new(&asset.symbol, "USD")).collect();
    pairs.into_iter().filter(|pair| !config.rates.fixed.contains_key(pair)).collect()
}
