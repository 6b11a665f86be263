//! `settled check`: everything the daemon needs, each with what to do when it is not there. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chain::{ChainId, Deriver, Family, Source};

use crate::commands::exit::CommandError;
use crate::commands::installation::{Installation, missing_database, open_database, open_envelope};
use crate::commands::out::print_line;
use crate::daemon;
use crate::feeds::{Feeds, RateConsensus};
use crate::ops::disk;
use clock::{Clock, Instant};
use config::{ChainConfig, Config, Pair, RatesMode};
use db::{self, Db};
use envelope::Envelope;
use money::immutable_facts::{self, Fact};
use money::invoices;
use shop::{merchants, stock};

/// A chain whose newest block is older than so many of its blocks is behind, or stands.
const LATE_BLOCKS: u32 = 50;
/// A block from the future by more than this: the clock is wrong.
const SKEW_SECONDS: i64 = 60;
const FREE_MIB_USUAL: u64 = 2_048;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    installation: Installation,
}

/// What was found, printed as it is found.
#[derive(Default)]
struct Findings {
    failed: u32,
    warned: u32,
}

impl Findings {
    fn ok(&mut self, what: &str, found: impl std::fmt::Display) {
        print_line(format_args!("OK    {what}: {found}"));
    }

    fn warn(&mut self, what: &str, found: impl std::fmt::Display) {
        self.warned += 1;
        print_line(format_args!("WARN  {what}: {found}"));
    }

    fn fail(&mut self, what: &str, found: impl std::fmt::Display) {
        self.failed += 1;
        print_line(format_args!("FAIL  {what}: {found}"));
    }
}

/// Exit code 1 when something fails; warnings alone are no failure.
pub async fn run(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load()?;
    let mut findings = Findings::default();
    let f = &mut findings;
    f.ok("configuration", "every option is known and within its bounds");
    check_folder(f, &config.data.folder);
    let immutable_facts = check_database(f, &config).await?;
    check_keys(f, &config);
    for chain in config.chains.values().filter(|chain| chain.enabled) {
        check_pinned(f, chain, &immutable_facts);
        check_chain(f, &config, chain, &immutable_facts).await;
    }
    if !config.chains.values().any(|chain| chain.enabled) {
        f.warn(
            "chains",
            "none is enabled, so nobody can pay on one; set enabled = true in [chains.ethereum] and name a node",
        );
    }
    check_rates(f, &config).await;
    print_line(format_args!("{} failures, {} warnings", findings.failed, findings.warned));
    if findings.failed == 0 { Ok(()) } else { Err(CommandError::findings()) }
}

fn check_folder(f: &mut Findings, folder: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let name = folder.display();
    let metadata = match std::fs::metadata(folder) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return f.warn(
                "data folder",
                format_args!(
                    "{name} is not there yet; the daemon makes it when it may, else `install -d -m 700 {name}`"
                ),
            );
        }
        Err(e) => return f.fail("data folder", format_args!("{name}: {e}")),
    };
    let others = metadata.permissions().mode() & 0o077;
    match (metadata.is_dir(), others) {
        (false, _) => f.fail("data folder", format_args!("{name} is no folder; name another one in [data] folder")),
        (true, 0) => f.ok("data folder", format_args!("{name}, closed to others")),
        (true, _) => f.warn("data folder", format_args!("{name} is open to others; run `chmod 700 {name}`")),
    }
    match disk::free_bytes(folder).map(|bytes| bytes / 1024 / 1024) {
        Ok(free) if free < FREE_MIB_USUAL => {
            f.warn("disk", format_args!("{free} MiB are free; make room before it is full"))
        }
        Ok(free) => f.ok("disk", format_args!("{free} MiB are free")),
        Err(e) => f.fail("disk", format_args!("{name}: {e}")),
    }
}

/// What the database stored of chains and tokens when it first read them, by name.
type Pinned = BTreeMap<String, String>;

async fn check_database(f: &mut Findings, config: &Config) -> Result<Pinned, CommandError> {
    let mut immutable_facts = Pinned::new();
    let url = &config.database.url;
    if let Some(file) = missing_database(config)? {
        let file = file.display();
        f.warn("database", format_args!("{file} is not there yet; the daemon makes it at its first start"));
        return Ok(immutable_facts);
    }
    let db = match open_database(config).await {
        Ok(db) => db,
        Err(e) => {
            f.fail("database", e);
            return Ok(immutable_facts);
        }
    };
    match db.pending_migrations().await {
        Err(e) => f.fail("database", e),
        Ok(pending) if !pending.is_empty() => {
            f.warn(
                "database",
                format_args!("{url} lacks {}; the daemon adds it, or run `settled migrate`", pending.join(", ")),
            );
        }
        Ok(_) => {
            f.ok("database", format_args!("{url} has the schema of this version"));
            check_merchants(f, config, &db).await?;
            check_forsaken(f, config, &db).await?;
            let stored: Result<_, db::Error> =
                db.read("list_pinned", |tx| Box::pin(async move { immutable_facts::list(tx).await })).await;
            immutable_facts = stored?;
            match open_envelope(&config.data.folder) {
                Ok(envelope) => check_goods(f, &db, envelope).await?,
                Err(e) => f.fail("goods", e),
            }
        }
    }
    db.close().await;
    Ok(immutable_facts)
}

/// Whether every key is there that stock was sealed under.
async fn check_goods(f: &mut Findings, db: &Db, envelope: Envelope) -> Result<(), CommandError> {
    let keys: Result<_, db::Error> =
        db.read("list_keys", move |tx| Box::pin(async move { stock::list_keys_in_use(tx, &envelope).await })).await;
    let missing: Vec<_> = keys?.into_iter().filter_map(|key| key.error).collect();
    for error in &missing {
        f.fail("goods", format_args!("stock cannot be read: {error}; restore envelope.keys from its copy"));
    }
    if missing.is_empty() {
        f.ok("envelope keys", "they can be read, and so can the stock");
    }
    Ok(())
}

async fn check_merchants(f: &mut Findings, config: &Config, db: &Db) -> Result<(), CommandError> {
    for (name, mount) in config.surfaces.mounts().into_iter().filter(|(_, mount)| mount.enabled) {
        let slug = mount.merchant.clone();
        let found =
            db.read("find_merchant", move |tx| Box::pin(async move { merchants::find_by_slug(tx, &slug).await }));
        let found: Result<_, db::Error> = found.await;
        let (surface, slug) = (format!("surface {name}"), &mount.merchant);
        match found? {
            Some(merchant) => f.ok(&surface, format_args!("sells for `{slug}` ({})", merchant.name)),
            None => f.fail(
                &surface,
                format_args!("there is no merchant `{slug}`; run `settled admin merchant create {slug}`"),
            ),
        }
    }
    Ok(())
}

/// Invoices of chains that were disabled or renamed.
async fn check_forsaken(f: &mut Findings, config: &Config, db: &Db) -> Result<(), CommandError> {
    let followed: Vec<ChainId> =
        config.chains.values().filter(|chain| chain.enabled).map(|chain| chain.id.clone()).collect();
    let orphaned_invoices: Result<_, db::Error> = db
        .read("count_orphaned", move |tx| Box::pin(async move { invoices::count_orphaned(tx, &followed).await }))
        .await;
    for (chain, count) in orphaned_invoices? {
        f.warn(
            &format!("chain {chain}"),
            format_args!(
                "{count} invoices wait for money there, but it is not enabled: they neither get paid nor end; enable \
                 [chains.{chain}] until none is open"
            ),
        );
    }
    Ok(())
}

/// The first address of each account, for comparison with what the signer derives.
fn check_keys(f: &mut Findings, config: &Config) {
    let mut shown = BTreeMap::new();
    for chain in config.chains.values().filter(|chain| chain.enabled) {
        let Some(account) = config.deposit_account(chain) else { continue };
        let what = format!("keys of {}", chain.id);
        match Deriver::new(&account.xpub, chain.scheme()).and_then(|deriver| deriver.derive_address(0)) {
            Ok(address) if shown.insert(address.text.clone(), &chain.id).is_none() => {
                let path = if account.path.is_empty() { "its account" } else { account.path.as_str() };
                f.ok(
                    &what,
                    format_args!("{path} begins with {address}; `settled-signer keys derive` must say the same"),
                );
            }
            Ok(_) => f.ok(&what, "the account is shared with the chain above"),
            Err(e) => f.fail(&what, format_args!("{e}; paste what `settled-signer keys xpubs` prints")),
        }
    }
}

/// What is configured against what is stored: the daemon refuses to go on with another network or other decimals.
fn check_pinned(f: &mut Findings, chain: &ChainConfig, immutable_facts: &Pinned) {
    let identity = chain.identity.clone().map(|id| Fact::identity(&chain.id, id));
    let tokens = chain.assets().filter(|(_, asset)| !asset.is_native());
    let facts = identity.into_iter().chain(tokens.map(|(_, asset)| Fact::decimals(&asset.id, asset.decimals)));
    let mut agreeing = 0;
    for fact in facts {
        match stored_otherwise(immutable_facts, &fact) {
            Some(stored) => f.fail(
                &format!("chain {}, database", chain.id),
                format_args!(
                    "{} is {} in the configuration, but {stored} in the database; {RESTORE}",
                    fact.name, fact.value
                ),
            ),
            None => agreeing += usize::from(immutable_facts.contains_key(&fact.name)),
        }
    }
    if agreeing > 0 {
        f.ok(&format!("chain {}, database", chain.id), format_args!("{agreeing} stored facts are what is configured"));
    }
}

const RESTORE: &str = "go back to what it was, or begin another database";

fn stored_otherwise<'a>(immutable_facts: &'a Pinned, fact: &Fact) -> Option<&'a String> {
    immutable_facts.get(&fact.name).filter(|stored| **stored != fact.value)
}

async fn check_chain(f: &mut Findings, config: &Config, chain: &ChainConfig, immutable_facts: &Pinned) {
    let what = format!("chain {}", chain.id);
    let alone = Config { chains: BTreeMap::from([(chain.id.clone(), chain.clone())]), ..config.clone() };
    let source = match daemon::sources(&alone, None) {
        Ok(sources) => sources.get(&chain.id).cloned(),
        Err(e) => return f.fail(&what, format_args!("{e:#}")),
    };
    let Some(source) = source else { return };
    for report in source.check_endpoints().await {
        let endpoint = format!("{what}, {}", report.endpoint);
        match report.outcome {
            Ok(found) => f.ok(&endpoint, found),
            Err(problem) => f.fail(&endpoint, format_args!("{problem}; is it running, and is its address right?")),
        }
    }
    if chain.family == Family::Evm && source.independent_endpoints() < 2 {
        f.warn(&what, "its only endpoint is believed without a second opinion; name another one, of somebody else");
    }
    check_identity(f, &what, chain, source.as_ref(), immutable_facts).await;
    check_tip(f, &what, chain, source.as_ref(), Clock::System.now()).await;
    for (code, asset) in chain.assets() {
        let chain::AssetKind::Token { contract } = &asset.kind else { continue };
        let token = format!("{what}, {code}");
        match source.decimals(contract).await {
            Ok(decimals) if stored_otherwise(immutable_facts, &Fact::decimals(&asset.id, decimals)).is_some() => f
                .fail(
                    &token,
                    format_args!("its contract says {decimals} decimals, and the database stored others; {RESTORE}"),
                ),
            Ok(decimals) if decimals == asset.decimals => {
                f.ok(&token, format_args!("{decimals} decimals, as configured"))
            }
            Ok(decimals) => f.fail(
                &token,
                format_args!("its contract says {decimals} decimals, the configuration {}", asset.decimals),
            ),
            Err(e) => f.fail(&token, format_args!("{contract}: {e}")),
        }
    }
}

async fn check_identity(
    f: &mut Findings,
    what: &str,
    chain: &ChainConfig,
    source: &dyn Source,
    immutable_facts: &Pinned,
) {
    match (source.identity().await, &chain.identity) {
        (Err(e), _) => f.fail(what, format_args!("{e}; is the node running, and is its address right?")),
        (Ok(said), Some(wanted)) if said.id != *wanted => {
            f.fail(
                what,
                format_args!(
                    "the node is {}, but [chains.{}] is {wanted}; name a node of that network",
                    said.id, chain.id
                ),
            );
        }
        (Ok(said), _) => match stored_otherwise(immutable_facts, &Fact::identity(&chain.id, said.id.clone())) {
            Some(stored) => f.fail(
                what,
                format_args!("the node is {}, but the database was filled from {stored}; {RESTORE}", said.id),
            ),
            None => f.ok(what, format_args!("the node is {}", said.id)),
        },
    }
}

async fn check_tip(f: &mut Findings, what: &str, chain: &ChainConfig, source: &dyn Source, now: Instant) {
    let tip = match source.tip().await {
        Ok(tip) => tip,
        Err(e) => return f.fail(what, e),
    };
    let age = now.unix_seconds().saturating_sub(tip.head.time);
    let late = i64::try_from((chain.block_time * LATE_BLOCKS).as_secs()).unwrap_or(i64::MAX);
    match age {
        age if age < -SKEW_SECONDS => {
            f.fail(
                "clock",
                format_args!(
                    "block {} of {} is {} s in the future; set the clock by NTP",
                    tip.head.height, chain.id, -age
                ),
            );
        }
        age if age > late => {
            f.warn(what, format_args!("the newest block is {age} s old: the node catches up, or the chain stands"))
        }
        age => f.ok(what, format_args!("block {} is {} s old", tip.head.height, age.max(0))),
    }
}

async fn check_rates(f: &mut Findings, config: &Config) {
    match config.rates.mode {
        RatesMode::Fixed => f.ok("rates", "fixed by the configuration"),
        RatesMode::Feeds => ask_feeds(f, config).await,
    }
}

async fn ask_feeds(f: &mut Findings, config: &Config) {
    let pairs = pairs(config);
    let feeds = match Feeds::new(&config.rates, Clock::System) {
        Ok(feeds) => feeds,
        Err(e) => return f.fail("rates", e),
    };
    let mut observations = Vec::new();
    for (source, answer) in feeds.request_all(&pairs).await {
        match answer {
            Ok(said) => {
                f.ok(&format!("rates, {source}"), format_args!("{} quotes", said.len()));
                observations.extend(said);
            }
            Err(e) => f.warn(&format!("rates, {source}"), e),
        }
    }
    for (pair, outcome) in RateConsensus::new(&config.rates).evaluate_round(Clock::System.now(), &pairs, &observations)
    {
        match outcome {
            Ok(agreed) => f.ok("rates", format_args!("{pair} is {}, {agreed}", agreed.value)),
            Err(e) => {
                f.fail("rates", format_args!("{pair}: {e}; open the way to the exchanges, or set it in [rates.fixed]"))
            }
        }
    }
}

/// What the coins on sale are worth in dollars, where the configuration does not say.
fn pairs(config: &Config) -> Vec<Pair> {
    let coins = config.surfaces.checkout.assets.keys().filter_map(|coin| config.checkout_asset(coin));
    let pairs: BTreeSet<Pair> = coins.map(|(_, asset)| Pair::new(&asset.symbol, "USD")).collect();
    pairs.into_iter().filter(|pair| !config.rates.fixed.contains_key(pair)).collect()
}
