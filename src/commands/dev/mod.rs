//! `settled dev`: the whole daemon on simulated chains, with one command and no configuration. Nothing in it has any worth.

mod blocks;
mod demo_config;
pub mod demo;
mod keys;
mod node;
mod pay;
mod shop;
mod walk;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use tokio::sync::watch;
use url::Url;

use crate::commands::backup;
use crate::commands::context::{Context, RunningDaemon};
use crate::commands::dispatch::Dispatcher;
use crate::commands::exit::CommandError;
use crate::commands::installation::{self, Prepared, make_folder};
use crate::commands::logging;
use crate::commands::out::print_line;
use crate::control::server::Server;
use crate::daemon::{self, Daemon, Setup};
use crate::ops;
use config::Config;
use db::file_lock::DataFolderLock;

pub const FOLDER: &str = ".settled-dev";

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
    /// Pay an order of the running demo as a buyer would, and say what happens.
    Pay(pay::Args),
}

#[derive(clap::Args)]
struct Start {
    /// Where the demo answers; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where it keeps everything; a second start goes on where the first ended.
    #[arg(long, value_name = "FOLDER", default_value = FOLDER)]
    data: PathBuf,
    /// Take ETH and USDT (ERC-20) on this node instead of a simulated chain, such as http://127.0.0.1:8545. When it is
    /// anvil, a test USDT is deployed on it.
    #[arg(long, value_name = "URL")]
    evm: Option<Url>,
}

pub async fn run(args: Args) -> Result<(), CommandError> {
    match args.command {
        Some(Command::Pay(args)) => pay::run(args).await,
        None => start(args.start).await,
    }
}

/// The configuration of a demo that was started before.
pub fn config_of(folder: &Path) -> Result<Config, CommandError> {
    let seed = keys::open(folder)?.ok_or_else(|| {
        CommandError::daemon(format!("{} is no data folder of `settled dev`; start the demo first", folder.display()))
    })?;
    demo_config::load(
        folder,
        &demo_config::Wanted { listen: demo_config::unknown(), accounts: keys::accounts(&seed)?, node: None },
    )
}

async fn start(args: Start) -> Result<(), CommandError> {
    make_folder(&args.data)?;
    let folder = args.data.canonicalize().map_err(|e| CommandError::with_context(args.data.display(), e))?;
    let lock = DataFolderLock::acquire(&folder)?;
    let node = match &args.evm {
        Some(url) => Some(node::prepare(&folder, url).await?),
        None => None,
    };
    let accounts = keys::accounts(&keys::open_or_create(&folder)?)?;
    let config = demo_config::load(
        &folder,
        &demo_config::Wanted { listen: free_port(args.listen)?, accounts, node: node.clone() },
    )?;
    logging::start(&config.log)?;
    backup::remove_leftovers(&folder);
    let shutdown_signal = ops::shutdown_signal()?;

    let clock = demo::clock(&folder)?;
    let Prepared { db, envelope, .. } = installation::prepare(&config).await?;
    let context = Context::offline(Arc::new(config.clone()), db.clone(), clock.clone(), envelope);
    let token = shop::open(&context, &folder).await?;

    let chains = folder.join("chains");
    make_folder(&chains)?;
    let specs = daemon::simnet_specs(&config);
    let simnet = simnet::Simnet::open(&chains, specs, clock.now().unix_seconds())
        .map_err(|e| CommandError::with_context("simulated chains", e))?;
    let daemon = Daemon::start(Setup {
        config: config.clone(),
        clock: clock.clone(),
        db,
        envelope: context.envelope.clone(),
        simnet: Some(simnet.clone()),
        cursor_flush_ms: 0,
        autonomous: true,
    })
    .await?;

    let running = RunningDaemon::new(&daemon, clock.now());
    let (stop, stopped) = watch::channel(false);
    let demo = demo::Demo::new(simnet.clone(), node.as_ref().map(|node| node.url.clone()));
    let blocks = blocks::spawn(&daemon.tasks, &config, &demo, &clock, &stopped);
    let server = Server::bind(&folder).map_err(|e| CommandError::with_context("control socket", e))?;
    let context = Context { wake: daemon.wake.clone(), daemon: Some(running), ..context };
    let handler = demo::DemoHandler { dispatcher: Dispatcher(context), demo };
    let serving = server.serve(Arc::new(handler), daemon.tasks.clone(), stopped.clone());
    let control = daemon.tasks.spawn("control socket", serving);
    let watcher = ops::spawn(&daemon, &stopped);

    print_line(walk::text(&walk::Facts {
        address: daemon.address,
        folder: &args.data,
        token: &token,
        node: node.as_ref(),
    }));
    shutdown_signal.await;
    print_line("Stopping. What happened is kept for the next start.");
    stop.send_replace(true);
    daemon.stop().await;
    for task in blocks.into_iter().chain([control, watcher]) {
        // A task that panicked was reported already.
        let _ended = task.await;
    }
    drop(lock);
    Ok(())
}

/// A port that is free now, so that everything that shows an address can show the real one.
fn free_port(listen: SocketAddr) -> Result<SocketAddr, CommandError> {
    if listen.port() != 0 {
        return Ok(listen);
    }
    let probe = std::net::TcpListener::bind(listen).and_then(|listener| listener.local_addr());
    probe.map_err(|e| CommandError::with_context(format!("cannot listen on {listen}"), e))
}
