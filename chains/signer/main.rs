//! `settled-signer`: the process that holds the keys.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use signer::keys;

/// Holds the keys of settled: the daemon itself knows account xpubs only.
#[derive(Parser)]
#[command(name = "settled-signer", version, after_help = keys::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create, import, show and check keys.
    #[command(subcommand)]
    Keys(keys::Command),
}

fn main() -> ExitCode {
    let Cli { command: Command::Keys(command) } = Cli::parse();
    match stay_out_of_core_dumps().and_then(|()| keys::run(&command, &mut std::io::stdout())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("settled-signer: {error:#}");
            keys::exit_code(&error)
        }
    }
}

/// A core dump or a debugger of the same user would see the seed.
fn stay_out_of_core_dumps() -> anyhow::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .context("core dumps cannot be forbidden")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("the process cannot be made undumpable")
}
