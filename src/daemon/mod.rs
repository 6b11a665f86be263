//! Wiring: opens the database, builds drivers, spawns workers, mounts surfaces, shuts down. No business rules.

mod mounts;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use chain::{ChainId, Deriver, Family, Source, WatchSet};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use crate::feeds::Feeds;
use crate::workers::rescan::Rescan;
use crate::workers::{Heartbeats, Worker, Workers, balance_check, expiry, follow, fulfil, ledger, mempool, rates};
use clock::{Clock, Instant};
use config::{self, Config, Driver, RatesMode};
use db::{self, Db};
use envelope::Envelope;
use ids::{Mode, Shop};
use money::addresses::{Addresses, ChainAccount};
use money::assets::{Assets, Depths, Dust, FollowedChain, PaymentAsset};
use money::deposits::{self, DepositService, Grace};
use money::immutable_facts::{self, Fact, Mismatch};
use money::invoices;
use money::pricing::{Currency, Fiat, RateBook};
use shop::fulfilment::EmailTemplates;
use shop::orders::PaymentChangeHandler;
use shop::orders::payment::{PaymentService, Tolerance};
use shop::{merchants, stock};
use tasks::Tasks;
use tasks::Wake;
use web::guard::Guard;
use web::health::Health;
use web::serve;

/// How long a start waits for nodes before it serves without their chains.
const FOLLOW_WAIT: Duration = Duration::from_secs(5);
/// Blocks that come at least this often are waited for before a window ends.
const STEADY_MAX: Duration = Duration::from_secs(60);
/// Blocks asked for at once while catching up.
const BATCH_BLOCKS: u64 = 100;
/// Public servers of Esplora count requests by the minute.
const ADDRESS_PAUSE: Duration = Duration::from_secs(60);

/// What a daemon is made of.
pub struct Setup {
    pub config: Config,
    pub clock: Clock,
    /// Opened already, so that whoever starts a daemon decides on locks and migrations.
    pub db: Db,
    pub envelope: Arc<Envelope>,
    /// The model chains, when any chain runs on them.
    pub simnet: Option<simnet::Simnet>,
    /// Blocks without transfers may be stored this late.
    pub cursor_flush_ms: i64,
    /// Whether workers run by themselves, or only when [`Daemon::run_until_idle`] is called.
    pub autonomous: bool,
}

/// A running daemon.
pub struct Daemon {
    pub address: SocketAddr,
    pub config: Arc<Config>,
    pub db: Db,
    /// What keeps the daemon from its work.
    pub health: Health,
    /// The shop of the checkout surface; without one the surface is not mounted.
    pub checkout_shop: Option<Shop>,
    pub tasks: Tasks,
    /// What reads blocks again when a person asks for it.
    pub rescans: HashMap<ChainId, Rescan>,
    pub wake: Wake,
    workers: Workers,
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
}

impl Daemon {
    pub async fn start(setup: Setup) -> anyhow::Result<Daemon> {
        let Setup { config, clock, db, envelope, simnet, cursor_flush_ms, autonomous } = setup;
        let config = Arc::new(config);
        let tasks = Tasks::default();
        let sources = sources(&config, simnet.as_ref())?;
        let book = rates::book(&config.rates);
        let assets = Arc::new(assets(&config, &book)?);
        let addresses = Arc::new(open_addresses(&config, &assets, &db, clock.now()).await?);
        warn_of_orphaned_invoices(&assets, &db).await?;
        let transport = Arc::new(mail::Transport::new(&config.mail, &config.data.folder)?);
        tell_missing_keys(&db, clock.now(), &envelope).await?;
        let checkout_shop = find_shop(&db, &config.surfaces.checkout.mount).await?;

        let letters = EmailTemplates { order_url: config.mail.order_url.clone() };

        let wake = Wake::default();
        let mut all: Vec<Arc<dyn Worker>> = Vec::new();
        let mut followers: Vec<Arc<dyn Worker>> = Vec::new();
        let mut rescans = HashMap::new();
        if config.rates.mode == RatesMode::Feeds {
            let feeds = Feeds::new(&config.rates, clock.clone())?;
            all.push(Arc::new(rates::Rates::new(
                db.clone(),
                clock.clone(),
                &config.rates,
                &assets,
                feeds,
                book.clone(),
            )));
        }
        for chain in assets.chains() {
            let Some(source) = sources.get(&chain.id).cloned() else { continue };
            let settings = config.chains.get(&chain.id).context("a coin's chain is configured")?;
            let limits = follow::Limits {
                batch: BATCH_BLOCKS,
                tip_age_max_ms: tip_age_max_ms(settings),
                quiet_tip_max_ms: quiet_tip_max_ms(settings),
                start_height: settings.start_height,
                cursor_flush_ms,
                probe_patience_ms: i64::try_from(config.policy.balance_timeout.as_millis()).unwrap_or(i64::MAX),
            };
            if chain.family == Family::Evm && settings.driver == Driver::Node && source.independent_endpoints() < 2 {
                tracing::warn!(
                    chain = %chain.id,
                    "{} has one endpoint, whose word nobody confirms: a second one of somebody else would", chain.id
                );
            }
            let reconciler = balance_check::BalanceReconciler::new(
                db.clone(),
                clock.clone(),
                deposit_service(&config, settings, chain),
                source.clone(),
            );
            all.push(Arc::new(balance_check::BalanceCheckWorker::new(reconciler.clone())));
            rescans.insert(chain.id.clone(), Rescan::new(reconciler.clone()));
            let assets = settings.assets().map(|(_, asset)| asset.clone()).collect();
            let follower =
                Arc::new(follow::FollowWorker::new(reconciler, addresses.clone(), assets, limits, settings.poll));
            followers.push(follower.clone());
            all.push(follower);
            // After the follower: what it has just read is not on its way any more.
            all.push(Arc::new(mempool::MempoolWorker::new(
                db.clone(),
                clock.clone(),
                chain.clone(),
                source,
                settings.poll,
            )));
        }
        all.push(Arc::new(fulfil::FulfilmentWorker::new(db.clone(), clock.clone(), envelope.clone(), letters)));
        all.push(Arc::new(expiry::ExpiryWorker::new(db.clone(), clock.clone())));
        all.push(Arc::new(crate::workers::mail::Mail::new(db.clone(), clock.clone(), transport)));
        all.push(Arc::new(ledger::Seal::new(db.clone())));
        all.push(Arc::new(ledger::Fold::new(db.clone())));
        let workers = Workers::new(all, wake.clone());
        if autonomous {
            begin_to_follow(&followers).await;
        }

        let health = Health::default();
        let payment_service = PaymentService {
            assets,
            rates: book,
            addresses: Addresses::clone(&addresses),
            tolerance: Tolerance {
                basis_points: config.policy.tolerance_basis_points,
                usd: Fiat::new(Currency::USD, config.policy.tolerance_usd_cents),
            },
        };
        let checkout = checkout_shop.map(|shop| checkout::Services {
            options: config.surfaces.checkout.clone(),
            shop,
            db: db.clone(),
            clock: clock.clone(),
            payment_service,
            envelope,
            wake: wake.clone(),
        });
        let guard = Guard::new(&config.server, clock, tasks.clone());
        let router = mounts::router(&config, &guard, &health, checkout);
        let listener = TcpListener::bind(config.server.listen).await.with_context(|| {
            format!("cannot listen on {}: is another program using the port?", config.server.listen)
        })?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let mut running = vec![
            tasks.spawn("http", serve::serve(listener, router, config.server.clone(), tasks.clone(), stopped.clone())),
        ];
        if autonomous {
            running.extend(workers.spawn(&tasks, &stopped));
        } else {
            // The first rates, so that a quote is possible before anybody drives the workers.
            workers.run_until_idle().await;
        }
        info!(%address, "settled listens on {address}");
        Ok(Daemon { address, config, db, health, checkout_shop, tasks, rescans, wake, workers, stop, running })
    }

    /// Lets every worker finish what there is to do.
    pub async fn run_until_idle(&self) {
        self.workers.run_until_idle().await;
    }

    /// How the workers get on.
    pub fn heartbeats(&self) -> Heartbeats {
        self.workers.beats()
    }

    /// Ends requests and workers, then closes the database.
    pub async fn stop(self) {
        // Nobody listens only when everything has ended already.
        self.stop.send_replace(true);
        self.wake.wake();
        let limit = self.config.server.shutdown_timeout + Duration::from_secs(1);
        for task in self.running {
            if tokio::time::timeout(limit, task).await.is_err() {
                tracing::warn!("a task did not end in time");
            }
        }
        self.db.close().await;
    }
}

/// Gives every follower a moment to find its chain, so that its assets are offered from the first request on. A chain whose
/// nodes are silent opens later, when they answer.
async fn begin_to_follow(followers: &[Arc<dyn Worker>]) {
    let begin = followers.iter().map(|follower| tokio::time::timeout(FOLLOW_WAIT, follower.run()));
    for (follower, began) in followers.iter().zip(futures_util::future::join_all(begin).await) {
        match began {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("{} cannot begin yet: {error:#}", follower.name()),
            Err(_elapsed) => tracing::warn!("{} has no answer yet", follower.name()),
        }
    }
}

/// Nobody looks at invoices of a chain that was disabled or renamed, so their windows never end.
async fn warn_of_orphaned_invoices(assets: &Assets, db: &Db) -> anyhow::Result<()> {
    let followed: Vec<ChainId> = assets.chains().map(|chain| chain.id.clone()).collect();
    let orphaned_invoices: Result<_, db::Error> = db
        .read("count_orphaned", move |tx| Box::pin(async move { invoices::count_orphaned(tx, &followed).await }))
        .await;
    for (chain, count) in orphaned_invoices? {
        tracing::warn!(
            chain,
            "{count} invoices wait for money on {chain}, which is not enabled: they neither get paid nor end until it is"
        );
    }
    Ok(())
}

/// Many blocks, and never less than two minutes: chains are uneven, clocks differ.
fn tip_age_max_ms(chain: &config::ChainConfig) -> i64 {
    let age = chain.block_time.saturating_mul(10).max(Duration::from_secs(120));
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

/// Two blocks' time, where that is long: one block in seven comes later, and windows wait for those.
fn quiet_tip_max_ms(chain: &config::ChainConfig) -> Option<i64> {
    let rare = chain.block_time > STEADY_MAX;
    rare.then(|| i64::try_from(chain.block_time.saturating_mul(2).as_millis()).unwrap_or(i64::MAX))
}

/// Books the deposits of a chain; orders follow their payments.
fn deposit_service(config: &Config, settings: &config::ChainConfig, chain: &FollowedChain) -> DepositService {
    let grace = Grace { ms: i64::try_from(config.policy.grace.as_millis()).unwrap_or(i64::MAX) };
    let limits = deposits::Limits { grace, keep: settings.keep_blocks };
    DepositService::new(chain.clone(), limits, Arc::new(PaymentChangeHandler))
}

/// The reading halves of all enabled chains.
pub fn sources(config: &Config, simnet: Option<&simnet::Simnet>) -> anyhow::Result<BTreeMap<ChainId, Arc<dyn Source>>> {
    let mut sources: BTreeMap<ChainId, Arc<dyn Source>> = BTreeMap::new();
    for chain in config.chains.values().filter(|chain| chain.enabled) {
        let source = match chain.driver {
            Driver::Simnet => simnet.and_then(|simnet| simnet.source(&chain.id)).with_context(|| {
                format!("[chains.{}] runs on a model chain, which only `settled dev` has", chain.id)
            })?,
            Driver::Node => node_source(chain)?,
        };
        sources.insert(chain.id.clone(), source);
    }
    Ok(sources)
}

fn node_source(chain: &config::ChainConfig) -> anyhow::Result<Arc<dyn Source>> {
    match chain.family {
        chain::Family::Evm => Ok(Arc::new(evm(chain).with_context(|| format!("[chains.{}]", chain.id))?)),
        chain::Family::Tron => Ok(Arc::new(tron(chain).with_context(|| format!("[chains.{}]", chain.id))?)),
        chain::Family::Bitcoin => Ok(Arc::new(btc(chain).with_context(|| format!("[chains.{}]", chain.id))?)),
    }
}

/// The driver of an EVM chain behind its configured endpoints.
pub fn evm(chain: &config::ChainConfig) -> anyhow::Result<evm::Evm> {
    let chain_id = chain.identity.as_deref().context("identity must be the chain id")?;
    let pool = pool(chain)?;
    Ok(evm::Evm::new(evm::EvmConfig {
        chain: chain.id.clone(),
        chain_id: chain_id.parse().with_context(|| format!("identity `{chain_id}` is not a chain id"))?,
        assets: chain.assets().map(|(_, asset)| asset.clone()).collect(),
        pool,
        finality: match chain.finality {
            config::Finality::Tag => evm::FinalitySource::Tag,
            config::Finality::Depth => evm::FinalitySource::Depth,
        },
        range_depth: chain.final_depth,
        verify: evm::Commitments {
            header: chain.verify.header,
            transactions: chain.verify.transactions,
            receipts: chain.verify.receipts,
        },
        trace: match chain.trace {
            config::Trace::None => evm::TraceApi::None,
            config::Trace::Debug => evm::TraceApi::Debug,
            config::Trace::Parity => evm::TraceApi::Parity,
        },
    })?)
}

/// The driver of a TRON chain behind its configured endpoints.
pub fn tron(chain: &config::ChainConfig) -> anyhow::Result<tron::Tron> {
    let chain_id = chain.identity.as_deref().context("identity must be the chain id")?;
    Ok(tron::Tron::new(tron::TronConfig {
        chain: chain.id.clone(),
        chain_id: chain_id.parse().with_context(|| format!("identity `{chain_id}` is not a chain id"))?,
        assets: chain.assets().map(|(_, asset)| asset.clone()).collect(),
        pool: pool(chain)?,
    })?)
}

/// The driver of a Bitcoin network behind its configured endpoints.
pub fn btc(chain: &config::ChainConfig) -> anyhow::Result<btc::Bitcoin> {
    let (_, asset) = chain.assets().next().context("the coin is missing")?;
    Ok(btc::Bitcoin::new(btc::BitcoinConfig {
        address_pause: ADDRESS_PAUSE,
        network: chain.network,
        asset: asset.clone(),
        backend: match chain.api {
            config::Api::Core => btc::Backend::Core,
            config::Api::Esplora => btc::Backend::Esplora,
        },
        address_type: match chain.address_kind {
            config::AddressKind::P2wpkh => btc::AddressType::P2wpkh,
            config::AddressKind::P2tr => btc::AddressType::P2tr,
        },
        verify: btc::Verify { work: chain.verify.header, commitments: chain.verify.transactions },
        pool: pool(chain)?,
    })?)
}

fn pool(chain: &config::ChainConfig) -> anyhow::Result<rpc::Config> {
    let mut endpoints = Vec::new();
    for endpoint in &chain.endpoints {
        endpoints.push(node(endpoint)?);
    }
    let mut pool = rpc::Config::new(endpoints).with_block_time(chain.block_time);
    pool.deadline = chain.timeout;
    pool.body_bytes_max = usize::try_from(chain.answer_bytes_max)?;
    Ok(pool)
}

fn node(endpoint: &config::Endpoint) -> anyhow::Result<rpc::Endpoint> {
    let url = match (&endpoint.url, endpoint.url_file.read()?) {
        (_, Some(url)) => url,
        (Some(url), None) => url.to_string().into(),
        (None, None) => bail!("an endpoint has neither `url` nor `url_file`"),
    };
    let roles: Vec<rpc::Role> = endpoint
        .roles
        .iter()
        .map(|role| match role {
            config::Role::Read => rpc::Role::Read,
            config::Role::Broadcast => rpc::Role::Broadcast,
        })
        .collect();
    let limits = rpc::Limits { per_second: endpoint.requests_per_second, per_day: endpoint.requests_per_day };
    let mut node = rpc::Endpoint::new(url.expose_secret())?.with_roles(&roles).with_limits(limits);
    if let Some(solidity) = &endpoint.solidity_url {
        node = node.with_path_override("walletsolidity", solidity.as_str())?;
    }
    if let Some(file) = endpoint.login_file.path()? {
        node = node.with_login_file(file);
    }
    let Some(headers) = endpoint.headers_file.read()? else { return Ok(node) };
    for line in headers.expose_secret().lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':').context("a line of headers_file is not `Name: value`")?;
        node = node.with_header(name.trim(), value.trim())?;
    }
    Ok(node)
}

/// What of the model chains the configuration asks for.
pub fn simnet_specs(config: &Config) -> Vec<simnet::ChainSpec> {
    let chains = config.chains.values().filter(|chain| chain.enabled && chain.driver == Driver::Simnet);
    chains
        .map(|chain| simnet::ChainSpec {
            chain: chain.id.clone(),
            family: chain.family,
            assets: chain.assets().map(|(_, asset)| asset.clone()).collect(),
            finality: match chain.finality {
                config::Finality::Tag => simnet::Finality::Depth(chain.final_depth),
                config::Finality::Depth => simnet::Finality::None,
            },
        })
        .collect()
}

/// What reads blocks of a chain again where no daemon runs.
pub async fn rescan(config: &Config, db: &Db, clock: Clock, id: &ChainId) -> anyhow::Result<Rescan> {
    let settings = config.chains.get(id).filter(|chain| chain.enabled);
    let settings = settings.with_context(|| format!("[chains.{id}] is not enabled in the configuration"))?;
    if settings.driver == Driver::Simnet {
        bail!("[chains.{id}] is a model chain, which only the running `settled dev` has");
    }
    let assets = assets(config, &rates::book(&config.rates))?;
    open_addresses(config, &assets, db, clock.now()).await?;
    let chain = assets.chain(id).context("an enabled chain is known")?;
    let deposits = deposit_service(config, settings, chain);
    let reconciler = balance_check::BalanceReconciler::new(db.clone(), clock, deposits, node_source(settings)?);
    Ok(Rescan::new(reconciler))
}

fn assets(config: &Config, book: &RateBook) -> anyhow::Result<Assets> {
    let mut chains = Vec::new();
    let mut watched: HashMap<(Family, Mode), Arc<WatchSet>> = HashMap::new();
    for chain in config.chains.values().filter(|chain| chain.enabled) {
        let is_sibling = |other: &&config::ChainConfig| {
            (other.family, other.mode) == (chain.family, chain.mode) && other.id != chain.id
        };
        chains.push(FollowedChain {
            id: chain.id.clone(),
            family: chain.family,
            mode: chain.mode,
            depths: depths(chain)?,
            watched: watched.entry((chain.family, chain.mode)).or_default().clone(),
            siblings: config.chains.values().filter(is_sibling).map(|other| other.id.clone()).collect(),
            dust: Dust::below(
                Fiat::new(Currency::USD, config.policy.dust_usd_cents),
                book.clone(),
                chain.assets().map(|(_, asset)| (asset, asset.symbol.as_str())),
            ),
        });
    }
    let assets = config.surfaces.checkout.assets.keys().filter_map(|code| {
        let (_, asset) = config.checkout_asset(code)?;
        Some(PaymentAsset { code: code.clone(), asset: asset.clone(), rate_symbol: asset.symbol.clone() })
    });
    Ok(Assets::new(chains, assets.collect()))
}

fn depths(chain: &config::ChainConfig) -> anyhow::Result<Depths> {
    let mut tiers = Vec::new();
    let mut largest = u32::try_from(chain.final_depth)?;
    for tier in &chain.confirmations {
        let depth = u32::try_from(tier.depth)?;
        match tier.below_usd {
            Some(bound) => {
                let cents = bound.checked_mul(rust_decimal::Decimal::ONE_HUNDRED).context("a bound is out of range")?;
                tiers.push((i64::try_from(cents.trunc().mantissa())?, depth));
            }
            None => largest = depth,
        }
    }
    let (last, least) = (u32::try_from(chain.final_depth)?, u32::try_from(chain.final_depth_min)?);
    Ok(Depths { tiers, largest, last, least })
}

async fn open_addresses(config: &Config, assets: &Assets, db: &Db, now: Instant) -> anyhow::Result<Addresses> {
    let mut accounts = Vec::new();
    // Blocks are searched for one kind of addresses: those of another kind that were issued before would not be found.
    let mut kinds = Vec::new();
    let mut with_outputs = Vec::new();
    for chain in assets.chains() {
        let settings = config.chains.get(&chain.id).context("a coin's chain is configured")?;
        if chain.family == chain::Family::Bitcoin {
            let name = format!("address_kind of {}", chain.id);
            kinds.push(Fact { name, value: settings.address_kind.as_str().to_owned() });
            with_outputs.push((chain.id.clone(), chain.watched.clone()));
        }
        let Some(account) = config.deposit_account(settings) else { continue };
        let deriver = Deriver::new(&account.xpub, settings.scheme())
            .with_context(|| format!("the account key for {} cannot be used", chain.id))?;
        accounts.push(ChainAccount {
            chain: chain.id.clone(),
            family: chain.family,
            xpub: account.xpub.clone(),
            deriver,
            watched: chain.watched.clone(),
        });
    }
    // Chains that are read fill the set they share by themselves.
    let silent = |siblings: &&ChainId| assets.chain(siblings).is_none();
    let siblings = assets
        .chains()
        .flat_map(|chain| chain.siblings.iter().filter(silent).map(|siblings| (chain.id.clone(), siblings.clone())));
    let siblings: Vec<(ChainId, ChainId)> = siblings.collect();
    let open = db.write("open_addresses", move |tx| {
        Box::pin(async move {
            immutable_facts::record_or_compare(tx, now, &kinds).await?;
            let addresses = Addresses::open(tx, accounts).await?;
            for (chain, watched) in &with_outputs {
                watched.insert_outputs(
                    deposits::list_unspent(tx, chain, i64::MAX).await?.into_iter().map(|unspent| unspent.output),
                );
            }
            for (chain, siblings) in &siblings {
                addresses.watch_sibling(tx, chain, siblings).await?;
            }
            Ok::<_, Mismatch>(addresses)
        })
    });
    Ok(open.await?)
}

/// Goods that nobody can read are said at every start, before they are sold.
async fn tell_missing_keys(db: &Db, now: Instant, envelope: &Arc<Envelope>) -> anyhow::Result<()> {
    let envelope = envelope.clone();
    let missing: Result<_, db::Error> = db
        .write("review_keys", move |tx| Box::pin(async move { stock::review_missing_keys(tx, now, &envelope).await }))
        .await;
    for error in missing?.into_iter().filter_map(|key| key.error) {
        tracing::error!("stock cannot be read: {error}");
    }
    Ok(())
}

async fn find_shop(db: &Db, mount: &config::Mount) -> anyhow::Result<Option<Shop>> {
    if !mount.enabled {
        return Ok(None);
    }
    let (slug, mode) = (mount.merchant.clone(), mount.mode);
    let merchant =
        db.read("find_merchant", move |tx| Box::pin(async move { merchants::find_by_slug(tx, &slug).await })).await?;
    Ok(merchant.map(|merchant| Shop { merchant: merchant.id, mode }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_rise_with_the_value() {
        let config = Config::default();
        let depths = depths(&config.chains[&ChainId::new("bitcoin").unwrap()]).unwrap();
        for (cents, depth) in [(0, 1), (99_999, 1), (100_000, 2), (999_999, 2), (1_000_000, 6), (100_000_000, 6)] {
            assert_eq!(depths.confirmations(Some(cents)), depth, "{cents}");
        }
        assert_eq!(depths.confirmations(None), 6, "unknown worth needs the most");
    }
}
