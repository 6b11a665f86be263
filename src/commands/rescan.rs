//! `settled rescan CHAIN FROM TO`.

use chain::ChainId;
use serde::{Deserialize, Serialize};

use crate::commands::admin;
use crate::commands::control::{self, Answer, Command, Context};
use crate::commands::exit::CommandError;
use crate::commands::installation::Installation;
use crate::commands::out::print_line;
use crate::daemon;
use crate::workers::rescan::Piece;

/// Blocks that were read before the token was listed know nothing of it. What is booked already stays as it is, so that a
/// range can be read as often as one likes; money that invoices did not wait for is kept apart with a review. On Bitcoin, read on
/// to the newest block: what was spent meanwhile is known from the blocks that spend it.
#[derive(clap::Args)]
pub struct Args {
    /// Name of the chain in the configuration.
    chain: String,
    /// First block.
    from: u64,
    /// Last block; the daemon must have read it before.
    to: u64,
    #[command(flatten)]
    installation: Installation,
}

/// A range, of which one piece is read.
#[derive(Serialize, Deserialize)]
pub struct Ask {
    pub chain: String,
    pub from: u64,
    pub to: u64,
}

pub async fn run(args: Args) -> Result<(), CommandError> {
    let Args { chain, from, to, installation } = args;
    if from > to {
        return Err(CommandError::usage(format!("block {from} stands behind block {to}")));
    }
    let (mut next, mut sum) = (from, Piece { to, booked: 0, known: 0, doubtful: 0 });
    while next <= to {
        let ask = Ask { chain: chain.clone(), from: next, to };
        let piece = match control::ask(&installation, Command::Rescan(ask)).await? {
            Answer::Rescanned(piece) => piece,
            Answer::Said(_) | Answer::Copied(_) | Answer::Order(_) => {
                return Err(CommandError::failed("the daemon answered something else"));
            }
        };
        print_line(format_args!(
            "{chain}: blocks {next} to {} of {to}: {} booked, {} known",
            piece.to, piece.booked, piece.known
        ));
        sum.booked += piece.booked;
        sum.known += piece.known;
        sum.doubtful += piece.doubtful;
        next = piece.to.saturating_add(1);
    }
    print_line(format_args!(
        "{} transfers were missing and are booked now, {} were there before.",
        sum.booked, sum.known
    ));
    if sum.doubtful > 0 {
        print_line(format_args!(
            "{} may be what was booked by the balance of their address: see the reviews `rescan.doubtful` in `{}`.",
            sum.doubtful,
            admin::reviews::LIST
        ));
    }
    Ok(())
}

/// One piece of the range, beginning at its first block.
pub async fn execute(context: &Context, ask: &Ask) -> Result<Piece, String> {
    let refused = |error: anyhow::Error| format!("{error:#}");
    let chain = ChainId::new(&ask.chain).map_err(|e| e.to_string())?;
    if ask.from > ask.to {
        return Err(format!("block {} stands behind block {}", ask.from, ask.to));
    }
    let rescan = match &context.daemon {
        Some(running) => running.rescans.get(&chain).cloned().ok_or(format!("the daemon does not follow {chain}"))?,
        None => daemon::rescan(&context.config, &context.db, context.clock.clone(), &chain).await.map_err(refused)?,
    };
    rescan.piece(&context.actor, ask.from, ask.to).await.map_err(refused)
}
