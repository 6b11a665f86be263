//! The command `settled serve`: runs the daemon.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::commands::backup;
use crate::commands::command_error::CommandError;
use crate::commands::context::{Context, RunningDaemon};
use crate::commands::database::{self, MigratedDatabase};
use crate::commands::dispatch::Dispatcher;
use crate::commands::hints::format_hint;
use crate::commands::installation::Installation;
use crate::commands::logging;
use crate::commands::private_files::create_private_folder_if_missing;
use crate::control::server::ControlServer;
use crate::daemon::{Daemon, Setup};
use crate::ops::{signals, supervisor};
use clock::Clock;
use db::file_lock::DataFolderLock;

/// The maximum delay, in milliseconds, with which a chain's cursor is stored when the new blocks contain no transfers.
/// After a crash these blocks are read again, which has no other effect.
const CURSOR_FLUSH_MS: i64 = 1_000;

/// Selects the installation that the daemon serves.
#[derive(clap::Args)]
pub struct Args {
    /// Let this instance create its address mark ([data] mark_path), although the database has given out addresses. Needed
    /// once for each further machine, and when the mark is lost but the database is not older than it.
    #[arg(long)]
    join: bool,
    #[command(flatten)]
    installation: Installation,
}

/// Runs the daemon until a signal stops it. Also stops it, with exit code 4, when its lock on the database is lost,
/// because another daemon may then use the database.
pub async fn run_daemon_until_stopped(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load_config()?;
    logging::start_logging_to_stderr(&config.log)?;
    let shutdown_signal = signals::catch_shutdown_signals()?;
    let folder = config.data.folder.clone();
    create_private_folder_if_missing(&folder)?;
    let lock = DataFolderLock::lock_data_folder(&folder)?;
    backup::remove_leftover_backups(&folder);
    let MigratedDatabase { db, mut instance_lock, envelope, applied } =
        database::lock_migrate_and_load_or_create_keys(&config).await?;
    for migration in applied {
        info!("migration {migration} was applied to the database");
    }
    let clock = Clock::System;
    let daemon = Daemon::start_daemon(Setup {
        config: config.clone(),
        clock: clock.clone(),
        db: db.clone(),
        envelope: envelope.clone(),
        simnet: None,
        cursor_flush_ms: CURSOR_FLUSH_MS,
        join: args.join,
        autonomous: true,
    })
    .await?;
    if daemon.checkout_shop.is_none() && config.surfaces.checkout.mount.enabled {
        let slug = &config.surfaces.checkout.mount.merchant;
        warn!(
            "the checkout surface is not served, because there is no merchant `{slug}`: run {}, then restart",
            format_hint(&config, &format!("admin merchant create {slug}"))
        );
    }

    let running = RunningDaemon::from_started_daemon(&daemon, clock.now());
    let context = Context::without_daemon(Arc::new(config), db, clock, envelope);
    let context = Context { wake: daemon.wake.clone(), daemon: Some(running), ..context };
    let (stop, stopped) = watch::channel(false);
    let server = ControlServer::remove_old_and_bind_socket(&folder)
        .map_err(|e| CommandError::error_with_context("control socket", e))?;
    let serving =
        server.serve_requests_until_stopped(Arc::new(Dispatcher(context)), daemon.tasks.clone(), stopped.clone());
    let control = daemon.tasks.spawn("control socket", serving);
    let watchdog = supervisor::notify_ready_and_spawn_supervisor(&daemon, &stopped);

    let ended = tokio::select! {
        () = shutdown_signal => Ok(()),
        lost = instance_lock.keep_lock_until_lost() => Err(CommandError::daemon_error(format!(
            "the lock on the database is lost ({lost}); this daemon has stopped, so that two daemons never write to it"
        ))),
    };
    stop.send_replace(true);
    daemon.shut_down().await;
    for task in [control, watchdog] {
        // If the task panicked, the panic was already reported.
        let _ended = task.await;
    }
    instance_lock.release().await;
    info!("settled has ended");
    drop(lock);
    ended
}
