//! `settled status`.

use crate::commands::control::{self, Command};
use crate::commands::exit::Failure;
use crate::commands::out::say;
use crate::commands::place::Place;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

/// Exit code 4 when no daemon runs.
pub async fn run(args: Args) -> Result<(), Failure> {
    let config = args.place.load()?;
    say(control::ask_daemon(&config.data.folder, &Command::Status).await?);
    Ok(())
}
