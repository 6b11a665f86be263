//! `settled backup TO`.

use std::path::PathBuf;

use crate::commands::control::{self, Command};
use crate::commands::exit::Failure;
use crate::commands::out::say;
use crate::commands::place::Place;

/// The copy is consistent and complete, or not there. The keys that encrypt goods at rest (`envelope.keys` in the data
/// folder) are not in it: keep a copy of them somewhere else, because without them the goods cannot be read.
#[derive(clap::Args)]
pub struct Args {
    /// The file to make; an existing one is never overwritten.
    to: PathBuf,
    #[command(flatten)]
    place: Place,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    // The daemon may stand in another folder.
    let to = std::path::absolute(&args.to).map_err(|e| Failure::while_(args.to.display(), e))?;
    say(control::ask(&args.place, Command::Backup { to }).await?);
    Ok(())
}
