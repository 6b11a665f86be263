//! The command `settled rescan CHAIN FROM TO`.

use anyhow::{Context as _, bail};
use chain::ChainId;
use serde::{Deserialize, Serialize};

use crate::commands::admin;
use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use crate::commands::hints::format_hint;
use crate::commands::installation::Installation;
use crate::commands::operation::{self, Operation};
use crate::commands::output::print_line_or_exit;
use crate::daemon::{addresses, assets, drivers, workers};
use crate::workers::rescan::{RescanPiece, Rescanner};
use crate::workers::{balance_check, rates};
use clock::Clock;
use config::{Config, Driver};
use db::Db;
use tasks::Wake;

/// The blocks to read again. An operator uses the command after adding a token to the configuration, because transfers
/// of the token in earlier blocks are not booked yet. Transfers that are already booked do not change, so a range can
/// be read any number of times. A transfer without an open invoice is booked as unallocated and opens a review. On
/// Bitcoin the range should end at the newest block, because the later blocks show which outputs were spent.
#[derive(clap::Args)]
pub struct Args {
    /// Name of the chain in the configuration.
    chain: String,
    /// First block to read.
    from: u64,
    /// Last block to read; the daemon must have read it before.
    to: u64,
    #[command(flatten)]
    installation: Installation,
}

/// The operation that reads the first blocks of a range again and books missing transfers. The command repeats it, each
/// time from the first block that was not read, until the whole range is read.
#[derive(Serialize, Deserialize)]
pub struct RescanNextPiece {
    /// Name of the chain in the configuration.
    pub chain: String,
    /// First block to read.
    pub from: u64,
    /// Last block of the range.
    pub to: u64,
}

/// Rescans the range piece by piece and prints the progress after each piece.
pub async fn rescan_piecewise_and_print(args: Args) -> Result<(), CommandError> {
    let Args { chain, from, to, installation } = args;
    if from > to {
        return Err(CommandError::usage_error(format!("the first block {from} is behind the last block {to}")));
    }
    let (mut next, mut sum) = (from, RescanPiece { to, booked: 0, known: 0, doubtful: 0 });
    while next <= to {
        let range = RescanNextPiece { chain: chain.clone(), from: next, to };
        let piece = operation::execute_in_daemon_or_locally(&installation, range).await?;
        print_line_or_exit(format_args!(
            "{chain}: blocks {next} to {} of {to}: {} booked, {} known",
            piece.to, piece.booked, piece.known
        ));
        sum.booked += piece.booked;
        sum.known += piece.known;
        sum.doubtful += piece.doubtful;
        next = piece.to.saturating_add(1);
    }
    print_line_or_exit(format_args!(
        "{} transfers were missing and are booked now, {} were booked before.",
        sum.booked, sum.known
    ));
    if sum.doubtful > 0 {
        print_line_or_exit(format_args!(
            "{} transfers may be booked already by the balance of their address: see the reviews `rescan.possible_duplicate` in {}.",
            sum.doubtful,
            format_hint(&installation.load_config()?, admin::reviews::LIST)
        ));
    }
    Ok(())
}

impl Operation for RescanNextPiece {
    const NAME: &'static str = "rescan";
    type Context = Context;
    type Output = RescanPiece;

    async fn execute(self, context: &Context) -> Result<RescanPiece, String> {
        let in_words = |error: anyhow::Error| format!("{error:#}");
        let chain = ChainId::parse(&self.chain).map_err(|e| e.to_string())?;
        if self.from > self.to {
            return Err(format!("the first block {} is behind the last block {}", self.from, self.to));
        }
        let rescanner = find_or_open_rescanner(context, &chain).await?;
        rescanner.rescan_next_piece(&context.actor, self.from, self.to).await.map_err(in_words)
    }
}

/// Returns the daemon's rescanner of the chain, or without a daemon one that works in this process.
///
/// # Errors
/// Fails with a sentence when the chain is not followed, or cannot be opened.
pub async fn find_or_open_rescanner(context: &Context, chain: &ChainId) -> Result<Rescanner, String> {
    match &context.daemon {
        Some(daemon) => daemon.rescans.get(chain).cloned().ok_or(format!("the daemon does not follow {chain}")),
        None => open_standalone_rescanner(&context.config, &context.db, context.clock.clone(), chain)
            .await
            .map_err(|error| format!("{error:#}")),
    }
}

/// Returns a rescanner of the chain that works in this process, without a daemon. Like the start of a daemon, this
/// stores the account keys of all enabled chains, and stores or compares their address kinds.
///
/// # Errors
/// Fails when the chain is not enabled, is a model chain, or cannot be opened.
async fn open_standalone_rescanner(config: &Config, db: &Db, clock: Clock, id: &ChainId) -> anyhow::Result<Rescanner> {
    let chain_config = config.chains.get(id).filter(|chain| chain.enabled);
    let chain_config = chain_config.with_context(|| format!("[chains.{id}] is not enabled in the configuration"))?;
    if chain_config.driver == Driver::Simnet {
        bail!("[chains.{id}] is a model chain, which only the running `settled dev` has");
    }
    let book = rates::build_fixed_rate_book(&config.rates);
    let payment_assets = assets::build_assets_and_followed_chains(config, &book)?;
    addresses::load_addresses_and_record_kinds(config, &payment_assets, db, clock.now()).await?;
    let chain = payment_assets.find_followed_chain(id).context("an enabled chain is followed")?;
    let source = drivers::open_node_source(chain_config)?;
    let deposits = workers::build_deposit_service(config, chain_config, chain, source.as_ref(), &book, Wake::default());
    let reconciler = balance_check::BalanceReconciler::new(db.clone(), clock, deposits, source);
    Ok(Rescanner::new(reconciler))
}
