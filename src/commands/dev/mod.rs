//! `settled dev`: the daemon on simulated chains, started by one command without a configuration. Its coins have no
//! value.

mod miners;
pub mod demo_config;
mod demo_clock;
pub mod operations;
mod keys;
mod evm_node;
mod pay;
mod shop;
mod walk_through;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use tokio::sync::watch;
use url::Url;

use crate::commands::backup;
use crate::commands::command_error::CommandError;
use crate::commands::context::{Context, RunningDaemon};
use crate::commands::database::{self, MigratedDatabase};
use crate::commands::dispatch::Dispatcher;
use crate::commands::logging;
use crate::commands::output::print_line_or_exit;
use crate::commands::private_files::create_private_folder_if_missing;
use crate::control::server::ControlServer;
use crate::daemon::{self, Daemon, Setup};
use crate::ops::{signals, supervisor};
use db::file_lock::DataFolderLock;

/// The default data folder of the demo.
pub const FOLDER: &str = ".settled-dev";

/// The options of the demo, or a subcommand for a running demo.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: Start,
}

#[derive(Subcommand)]
enum Command {
    /// Pay an order of the running demo as a buyer would, and show the progress.
    Pay(pay::Args),
}

#[derive(clap::Args)]
struct Start {
    /// Address on which the demo listens; port 0 takes any free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Data folder of the demo. A later start continues with its data.
    #[arg(long, value_name = "FOLDER", default_value = FOLDER)]
    data: PathBuf,
    /// Accept ETH and USDT (ERC-20) on this node, such as http://127.0.0.1:8545, instead of a simulated chain. On anvil
    /// a test USDT is deployed.
    #[arg(long, value_name = "URL")]
    evm: Option<Url>,
}

/// Starts the demo, or runs the given subcommand.
pub async fn run_demo_or_subcommand(args: Args) -> Result<(), CommandError> {
    match args.command {
        Some(Command::Pay(args)) => pay::pay_order_and_print_progress(args).await,
        None => run_demo_until_stopped(args.start).await,
    }
}

async fn run_demo_until_stopped(args: Start) -> Result<(), CommandError> {
    create_private_folder_if_missing(&args.data)?;
    let folder = args.data.canonicalize().map_err(|e| CommandError::error_with_context(args.data.display(), e))?;
    let lock = DataFolderLock::lock_data_folder(&folder)?;
    let node = match &args.evm {
        Some(url) => Some(evm_node::inspect_node_and_deploy_usdt_on_anvil(&folder, url).await?),
        None => None,
    };
    let accounts = keys::derive_accounts_toml_from_seed(&keys::open_or_create_demo_seed(&folder)?)?;
    let config = demo_config::build_demo_config_with_env(
        &folder,
        &demo_config::Options {
            listen: demo_config::replace_port_zero_by_free_port(args.listen)?,
            accounts,
            node: node.clone(),
        },
    )?;
    logging::start_logging_to_stderr(&config.log)?;
    backup::remove_leftover_backups(&folder);
    let shutdown_signal = signals::catch_shutdown_signals()?;

    let clock = demo_clock::load_demo_clock(&folder)?;
    let MigratedDatabase { db, envelope, instance_lock, .. } =
        database::lock_migrate_and_load_or_create_keys(&config).await?;
    let context = Context::without_daemon(Arc::new(config.clone()), db.clone(), clock.clone(), envelope);
    let token = shop::create_missing_shop_and_load_token(&context, &folder).await?;

    let chains = folder.join("chains");
    create_private_folder_if_missing(&chains)?;
    let specs = daemon::drivers::list_enabled_simnet_chains(&config);
    let simnet = simnet::Simnet::open_or_create(&chains, specs, clock.now().unix_seconds())
        .map_err(|e| CommandError::error_with_context("simulated chains", e))?;
    let daemon = Daemon::start_daemon(Setup {
        config: config.clone(),
        clock: clock.clone(),
        db,
        envelope: context.envelope.clone(),
        simnet: Some(simnet.clone()),
        cursor_flush_ms: 0,
        join: true,
        autonomous: true,
    })
    .await?;

    let running = RunningDaemon::from_started_daemon(&daemon, clock.now());
    let (stop, stopped) = watch::channel(false);
    let demo = operations::Demo::new(simnet.clone(), node.as_ref().map(|node| node.url.clone()));
    let blocks = miners::spawn_miners(&daemon.tasks, &config, &demo, &clock, &stopped);
    let server = ControlServer::remove_old_and_bind_socket(&folder)
        .map_err(|e| CommandError::error_with_context("control socket", e))?;
    let context = Context { wake: daemon.wake.clone(), daemon: Some(running), ..context };
    let handler = operations::DemoHandler { dispatcher: Dispatcher(context), demo };
    let serving = server.serve_requests_until_stopped(Arc::new(handler), daemon.tasks.clone(), stopped.clone());
    let control = daemon.tasks.spawn("control socket", serving);
    let watcher = supervisor::notify_ready_and_spawn_supervisor(&daemon, &stopped);

    print_line_or_exit(walk_through::format_walk_through(&walk_through::Facts {
        address: daemon.address,
        folder: &args.data,
        token: &token,
        node: node.as_ref(),
    }));
    shutdown_signal.await;
    print_line_or_exit("Stopping. The data stays for the next start.");
    stop.send_replace(true);
    daemon.shut_down().await;
    for task in blocks.into_iter().chain([control, watcher]) {
        // If the task panicked, the panic was already logged.
        let _ended = task.await;
    }
    instance_lock.release().await;
    drop(lock);
    Ok(())
}
