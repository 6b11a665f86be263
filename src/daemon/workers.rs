//! Builds the workers of the daemon, and the deposit service and the reconciler of each chain that they share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chain::{ChainId, Source};

use crate::daemon::startup_checks;
use crate::feeds::Feeds;
use crate::workers::follow::readiness::ChainReadiness;
use crate::workers::rescan::Rescanner;
use crate::workers::{
    Worker, Workers, balance_check, expiry, follow, fulfilment, initial_balances, ledger, mempool, rates,
};
use clock::Clock;
use config::{ChainConfig, Config, RatesMode};
use db::Db;
use envelope::Envelope;
use money::addresses::Addresses;
use money::assets::{Assets, FollowedChain};
use money::deposits::{DepositLimits, DepositService, Grace, SingleSourceLimit};
use money::pricing::RateBook;
use shop::fulfilment::EmailTemplates;
use shop::orders::PaymentChangeHandler;
use tasks::Wake;
use web::health::Health;

/// Maximum time for which the start of the daemon waits for the nodes of all chains. A chain whose nodes do not respond
/// in time is followed later.
const FIRST_RUN_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum block time of a chain with steady blocks. On such a chain, an invoice expires only after a block that is
/// younger than the end of its payment window.
const STEADY_BLOCK_TIME_MAX: Duration = Duration::from_secs(60);
/// Maximum number of blocks in one request while the follower catches up.
const BATCH_BLOCKS: u64 = 100;
/// The age, in block times, from which the newest block of a node (its tip) is stale. A tip younger than
/// [`TIP_AGE_MIN`] is never stale.
const TIP_AGE_MAX_BLOCKS: u32 = 10;
/// The minimum age of a stale tip. It matters on chains with short block times, where the intervals between blocks vary
/// and clocks differ by more than some block times.
const TIP_AGE_MIN: Duration = Duration::from_secs(120);

/// The services that workers use.
pub struct WorkerServices<'a> {
    /// The configuration of chains, rates, payment policy and mail.
    pub config: &'a Config,
    /// The clock for payment windows and retries.
    pub clock: &'a Clock,
    /// The database that all workers share.
    pub db: &'a Db,
    /// The keys that decrypt goods for their delivery.
    pub envelope: &'a Arc<Envelope>,
    /// The source of each enabled chain.
    pub sources: &'a BTreeMap<ChainId, Arc<dyn Source>>,
    /// The payment assets and their chains.
    pub assets: &'a Arc<Assets>,
    /// The deposit addresses that the followers watch.
    pub addresses: &'a Arc<Addresses>,
    /// The exchange rates, which one of the workers refreshes.
    pub rates: &'a RateBook,
    /// The problems at `/readyz`, where each follower reports why its chain accepts no orders.
    pub health: &'a Health,
    /// The maximum time, in milliseconds, for which a chain's cursor is not stored when the new blocks contain no
    /// transfers.
    pub cursor_flush_ms: i64,
}

/// The workers of a daemon.
pub struct DaemonWorkers {
    /// Every worker, the followers included.
    pub all: Workers,
    /// The followers, which a start runs once before the daemon serves requests.
    pub followers: Vec<Arc<dyn Worker>>,
    /// The rescanner of each followed chain.
    pub rescans: HashMap<ChainId, Rescanner>,
}

/// Builds all workers. [`Workers::run_workers_until_idle`] runs the workers in the order of this list.
///
/// # Errors
/// Fails when the configuration of the feeds or of the mail transport cannot be used.
pub fn build_daemon_workers(services: &WorkerServices<'_>, wake: Wake) -> anyhow::Result<DaemonWorkers> {
    let WorkerServices { config, clock, db, envelope, sources, assets, rates, .. } = services;
    let (db, clock) = (|| (*db).clone(), || (*clock).clone());
    let mut all: Vec<Arc<dyn Worker>> = Vec::new();
    let mut followers: Vec<Arc<dyn Worker>> = Vec::new();
    let mut rescans = HashMap::new();
    if config.rates.mode == RatesMode::Feeds {
        let feeds = Feeds::new(&config.rates, clock())?;
        all.push(Arc::new(rates::RateWorker::new(db(), clock(), &config.rates, assets, feeds, (*rates).clone())));
    }
    for chain in assets.list_followed_chains() {
        let Some(source) = sources.get(&chain.id).cloned() else { continue };
        let chain_config = config.chains.get(&chain.id).context("the chain of an asset is configured")?;
        startup_checks::warn_if_single_provider(chain_config, source.as_ref());
        let deposits = build_deposit_service(config, chain_config, chain, source.as_ref(), rates, wake.clone());
        let reconciler = balance_check::BalanceReconciler::new(db(), clock(), deposits, source.clone());
        rescans.insert(chain.id.clone(), Rescanner::new(reconciler.clone()));
        // The balances of new addresses are read first, because later comparisons need them.
        all.push(build_initial_balance_worker(services, chain_config, source.clone()));
        all.push(Arc::new(balance_check::BalanceCheckWorker::new(reconciler.clone())));
        let follower = build_follow_worker(services, chain_config, reconciler);
        followers.push(follower.clone());
        all.push(follower);
        // The mempool worker runs after the follower, so that it does not show transfers as unconfirmed that the
        // follower has just read in a block.
        all.push(build_mempool_worker(services, chain, chain_config, source));
    }
    let templates = EmailTemplates { order_url: config.mail.order_url.clone() };
    let transport = Arc::new(mail::Transport::new(&config.mail, &config.data.folder)?);
    all.push(Arc::new(fulfilment::FulfilmentWorker::new(db(), clock(), (*envelope).clone(), templates)));
    all.push(Arc::new(expiry::ExpiryWorker::new(db(), clock())));
    all.push(Arc::new(crate::workers::mail::MailWorker::new(db(), clock(), transport)));
    all.push(Arc::new(ledger::HashChainWorker::new(db())));
    all.push(Arc::new(ledger::BalanceRollUpWorker::new(db())));
    Ok(DaemonWorkers { all: Workers::new(all, wake), followers, rescans })
}

fn build_follow_worker(
    services: &WorkerServices<'_>,
    chain: &ChainConfig,
    reconciler: balance_check::BalanceReconciler,
) -> Arc<follow::FollowWorker> {
    let config = services.config;
    let limits = follow::machine::FollowLimits {
        batch: BATCH_BLOCKS,
        tip_age_max_ms: stale_tip_age_ms(chain),
        quiet_tip_max_ms: slow_chain_tip_age_max_ms(chain),
        start_height: chain.start_height,
        cursor_flush_ms: services.cursor_flush_ms,
        balance_patience_ms: i64::try_from(config.policy.balance_timeout.as_millis()).unwrap_or(i64::MAX),
    };
    let WorkerServices { addresses, assets, health, .. } = services;
    let readiness = ChainReadiness::new(chain.id.clone(), (*addresses).clone(), (*assets).clone(), (*health).clone());
    let assets = chain.assets().map(|(_, asset)| asset.clone()).collect();
    Arc::new(follow::FollowWorker::new(reconciler, readiness, assets, limits, chain.poll))
}

fn build_initial_balance_worker(
    services: &WorkerServices<'_>,
    chain: &ChainConfig,
    source: Arc<dyn Source>,
) -> Arc<initial_balances::InitialBalanceWorker> {
    Arc::new(initial_balances::InitialBalanceWorker {
        db: services.db.clone(),
        clock: services.clock.clone(),
        chain: chain.id.clone(),
        assets: chain.assets().map(|(_, asset)| asset.clone()).collect(),
        addresses: services.addresses.clone(),
        source,
        pause: chain.poll,
    })
}

fn build_mempool_worker(
    services: &WorkerServices<'_>,
    chain: &FollowedChain,
    chain_config: &ChainConfig,
    source: Arc<dyn Source>,
) -> Arc<mempool::MempoolWorker> {
    let (db, clock) = (services.db.clone(), services.clock.clone());
    Arc::new(mempool::MempoolWorker::new(db, clock, chain.clone(), source, chain_config.poll))
}

/// Runs every follower once, so that the first request can already pay with the assets of all chains. The assets of a
/// chain whose nodes do not respond in time become available later.
pub async fn run_followers_once_with_timeout(followers: &[Arc<dyn Worker>]) {
    let runs = followers.iter().map(|follower| tokio::time::timeout(FIRST_RUN_TIMEOUT, follower.run_once()));
    for (follower, outcome) in followers.iter().zip(futures_util::future::join_all(runs).await) {
        match outcome {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("the worker {} failed and will be repeated: {error:#}", follower.name()),
            Err(_elapsed) => {
                let seconds = FIRST_RUN_TIMEOUT.as_secs();
                tracing::warn!("the worker {} got no answer within {seconds} s and will be repeated", follower.name());
            }
        }
    }
}

/// Returns the age, in milliseconds, from which a tip is stale: the node is behind, or the chain has stopped.
fn stale_tip_age_ms(chain: &ChainConfig) -> i64 {
    let age = chain.block_time.saturating_mul(TIP_AGE_MAX_BLOCKS).max(TIP_AGE_MIN);
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the maximum age, in milliseconds, of a tip that counts as the present state of a chain with slow blocks: two
/// block times. One block in seven takes longer. Returns `None` on chains with steady blocks, where an invoice always
/// waits for a block that is younger than the end of its payment window.
fn slow_chain_tip_age_max_ms(chain: &ChainConfig) -> Option<i64> {
    let is_slow = chain.block_time > STEADY_BLOCK_TIME_MAX;
    is_slow.then(|| i64::try_from(chain.block_time.saturating_mul(2).as_millis()).unwrap_or(i64::MAX))
}

/// Returns the service that books the deposits of a chain and updates the orders that these deposits pay. A payment wakes
/// the workers, which then deliver its order.
pub fn build_deposit_service(
    config: &Config,
    chain_config: &ChainConfig,
    chain: &FollowedChain,
    source: &dyn Source,
    rates: &RateBook,
    wake: Wake,
) -> DepositService {
    let grace = Grace { ms: i64::try_from(config.policy.grace.as_millis()).unwrap_or(i64::MAX) };
    let limits = DepositLimits { grace, keep: chain_config.keep_blocks };
    let listener = fulfilment::WakingPaymentListener::new(PaymentChangeHandler, wake);
    let service = DepositService::new(chain.clone(), limits, Arc::new(listener));
    if !source.needs_second_source() {
        return service;
    }
    let symbols = chain_config.assets().map(|(_, asset)| (asset, asset.symbol.as_str()));
    let usd_cents_max = config.policy.single_source_max_usd_cents;
    service.require_second_source(SingleSourceLimit::new(usd_cents_max, rates.clone(), symbols))
}
