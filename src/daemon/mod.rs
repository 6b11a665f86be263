//! Starts and stops the daemon: builds drivers and workers, mounts the surfaces, serves HTTP. Has no business rules.

pub mod assets;
pub mod addresses;
pub mod address_mark;
pub mod drivers;
pub mod startup_checks;
mod mounts;
pub mod workers;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chain::ChainId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::daemon::workers::{DaemonWorkers, WorkerServices};
use crate::workers::heartbeats::Heartbeats;
use crate::workers::rescan::Rescanner;
use crate::workers::{Workers, rates};
use clock::Clock;
use config::Config;
use db::Db;
use envelope::Envelope;
use ids::Shop;
use money::addresses::{Addresses, MarkFile};
use money::assets::Assets;
use money::pricing::{Currency, Fiat, RateBook};
use shop::orders::new_payment::{PaymentService, Tolerance};
use tasks::{Tasks, Wake};
use web::guard::Guard;
use web::health::Health;
use web::serve;

/// The configuration and the services that a daemon needs to start.
pub struct Setup {
    /// The configuration, which was validated when it was loaded.
    pub config: Config,
    /// The clock that the whole daemon uses. A test or the demo may set it ahead of the system time.
    pub clock: Clock,
    /// The open database. The caller has locked and migrated it.
    pub db: Db,
    /// The keys that decrypt goods, which are the items that the shop sells.
    pub envelope: Arc<Envelope>,
    /// The model chains, which this process simulates; `None` when no chain is a model chain.
    pub simnet: Option<simnet::Simnet>,
    /// The maximum delay, in milliseconds, with which a chain's cursor is stored when the new blocks contain no
    /// transfers.
    pub cursor_flush_ms: i64,
    /// True when this instance may create its address mark although the database has leased addresses.
    pub join: bool,
    /// True when each worker runs in its own loop; false when only [`Daemon::run_workers_until_idle`] runs them.
    pub autonomous: bool,
}

/// A running daemon.
pub struct Daemon {
    /// The address on which the surfaces are served.
    pub address: SocketAddr,
    /// The configuration with which the daemon was started.
    pub config: Arc<Config>,
    /// The open database, which [`Daemon::shut_down`] closes.
    pub db: Db,
    /// The problems that `/readyz` reports.
    pub health: Health,
    /// The shop of the checkout surface. `None` when the surface is disabled or its merchant does not exist; then the
    /// surface is not served.
    pub checkout_shop: Option<Shop>,
    /// The background tasks of the daemon, and the number of their panics.
    pub tasks: Tasks,
    /// The rescanner of each followed chain, which reads old blocks again and books missing transfers.
    pub rescans: HashMap<ChainId, Rescanner>,
    /// The signal that ends the pauses of the workers early.
    pub wake: Wake,
    workers: Workers,
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
}

impl Daemon {
    /// Builds all services and serves HTTP in the background. With `autonomous`, runs each follower once and then
    /// starts the loops of the workers; without it, runs all workers until they are idle and starts no loops.
    ///
    /// # Errors
    /// Fails when the configuration cannot be used, the database fails, or the address cannot be bound.
    pub async fn start_daemon(setup: Setup) -> anyhow::Result<Daemon> {
        let Setup { config, clock, db, envelope, simnet, cursor_flush_ms, join, autonomous } = setup;
        let config = Arc::new(config);
        let tasks = Tasks::default();
        let wake = Wake::default();
        let sources = drivers::open_enabled_chain_sources(&config, simnet.as_ref())?;
        let rates = rates::build_fixed_rate_book(&config.rates);
        let assets = Arc::new(assets::build_assets_and_followed_chains(&config, &rates)?);
        let mark = Arc::new(MarkFile::new(config.mark_path()));
        address_mark::refuse_database_behind_mark(&mark, &db, join).await?;
        let addresses = addresses::load_addresses_and_record_kinds(&config, &assets, &db, clock.now()).await?;
        let addresses = Arc::new(addresses.with_mark_file(mark.clone()));
        mark.copy_database_mark(&db).await?;
        startup_checks::warn_of_unfollowed_invoices(&assets, &db).await?;
        if let Some(missing) = startup_checks::describe_missing_currency_rate(&config) {
            warn!("{missing}");
        }
        startup_checks::sync_key_reviews_and_log_missing_keys(&db, clock.now(), &envelope).await?;
        let checkout_shop = mounts::find_shop_of_enabled_surface(&db, &config.surfaces.checkout.mount).await?;

        let health = Health::default();
        let services = WorkerServices {
            config: &config,
            clock: &clock,
            db: &db,
            envelope: &envelope,
            sources: &sources,
            assets: &assets,
            addresses: &addresses,
            rates: &rates,
            health: &health,
            cursor_flush_ms,
        };
        let DaemonWorkers { all: workers, followers, rescans } =
            workers::build_daemon_workers(&services, wake.clone())?;
        if autonomous {
            workers::run_followers_once_with_timeout(&followers).await;
        }

        let checkout = checkout_shop.map(|shop| checkout::Services {
            options: config.surfaces.checkout.clone(),
            shop,
            db: db.clone(),
            clock: clock.clone(),
            payment_service: build_payment_service(&config, assets, rates, &addresses),
            envelope,
            wake: wake.clone(),
        });
        let (stop, stopped) = watch::channel(false);
        let guard = Guard::new(&config.server, clock, tasks.clone(), stopped.clone());
        let router = mounts::build_http_router(&config, &guard, &health, checkout);
        let listener = serve::bind_listener(&config.server).with_context(|| {
            format!("cannot listen on {}: is another program using the port?", config.server.listen)
        })?;
        let address = listener.local_addr()?;
        let mut running = vec![tasks.spawn(
            "http",
            serve::serve_http_until_stopped(listener, router, config.server.clone(), tasks.clone(), stopped.clone()),
        )];
        if autonomous {
            running.extend(workers.spawn_worker_loops(&tasks, &stopped));
        } else {
            // This run requests the first exchange rates. Without them, the first requests could not create invoices.
            workers.run_workers_until_idle().await;
        }
        info!(%address, "settled listens on {address}");
        Ok(Daemon { address, config, db, health, checkout_shop, tasks, rescans, wake, workers, stop, running })
    }

    /// Runs the workers until none of them has work left.
    pub async fn run_workers_until_idle(&self) {
        self.workers.run_workers_until_idle().await;
    }

    /// Returns the results of the last runs of all workers.
    pub fn worker_heartbeats(&self) -> Heartbeats {
        self.workers.heartbeats()
    }

    /// Stops accepting requests, waits until the running requests and workers have ended, then closes the database. A
    /// task that takes longer than the configured shutdown time-out is no longer waited for.
    pub async fn shut_down(self) {
        self.stop.send_replace(true);
        self.wake.wake();
        let limit = self.config.server.shutdown_timeout + Duration::from_secs(1);
        for task in self.running {
            if tokio::time::timeout(limit, task).await.is_err() {
                warn!("a task did not end within {} s of the shutdown", limit.as_secs());
            }
        }
        self.db.close().await;
    }
}

fn build_payment_service(
    config: &Config,
    assets: Arc<Assets>,
    rates: RateBook,
    addresses: &Addresses,
) -> PaymentService {
    let policy = &config.policy;
    PaymentService {
        assets,
        rates,
        addresses: addresses.clone(),
        tolerance: Tolerance {
            basis_points: policy.tolerance_basis_points,
            usd: Fiat::new(Currency::USD, policy.tolerance_usd_cents),
        },
    }
}
