//! `settled serve`.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::commands::backup;
use crate::commands::control::socket::Control;
use crate::commands::control::{Context, Running};
use crate::commands::exit::CommandError;
use crate::commands::installation::{self, Installation, Prepared, make_folder};
use crate::commands::logging;
use crate::daemon::{Daemon, Setup};
use crate::ops;
use clock::Clock;
use db::file_lock::DataFolderLock;

/// Blocks without transfers are stored at most this late: reading them again after a crash costs nothing but time.
const LAZY_MS: i64 = 1_000;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    installation: Installation,
}

pub async fn run(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load()?;
    logging::start(&config.log)?;
    let end = ops::end()?;
    let folder = config.data.folder.clone();
    make_folder(&folder)?;
    let lock = DataFolderLock::acquire(&folder)?;
    backup::sweep(&folder);
    let Prepared { db, mut claim, envelope, applied } = installation::prepare(&config).await?;
    for name in applied {
        info!("the database was brought to {name}");
    }
    let clock = Clock::System;
    let daemon = Daemon::start(Setup {
        config: config.clone(),
        clock: clock.clone(),
        db: db.clone(),
        envelope: envelope.clone(),
        simnet: None,
        cursor_flush_ms: LAZY_MS,
        autonomous: true,
    })
    .await?;
    if daemon.checkout_shop.is_none() && config.surfaces.checkout.mount.enabled {
        let slug = &config.surfaces.checkout.mount.merchant;
        warn!("the checkout surface has no merchant: run `settled admin merchant create {slug}`, then restart");
    }

    let running = Running {
        address: daemon.address,
        started_at: clock.now(),
        chains: config.chains.values().filter(|chain| chain.enabled).map(|chain| chain.id.clone()).collect(),
        rescans: daemon.rescans.clone(),
        health: daemon.health.clone(),
    };
    let context = Context::offline(Arc::new(config), db, clock, envelope);
    let context = Context { wake: daemon.wake.clone(), daemon: Some(running), ..context };
    let (stop, stopped) = watch::channel(false);
    let control = Control::bind(&folder).map_err(|e| CommandError::with_context("control socket", e))?;
    let control = daemon.tasks.spawn("control socket", control.serve(context, daemon.tasks.clone(), stopped.clone()));
    let watcher = ops::spawn(&daemon, &stopped);

    let ended = tokio::select! {
        () = end => Ok(()),
        lost = claim.wait_until_lost() => Err(CommandError::daemon(format!(
            "the claim on the database is lost ({lost}); this daemon has stopped, so that there are never two"
        ))),
    };
    stop.send_replace(true);
    daemon.stop().await;
    for task in [control, watcher] {
        // A task that panicked was reported already.
        let _ended = task.await;
    }
    claim.release().await;
    info!("settled has ended");
    drop(lock);
    ended
}
