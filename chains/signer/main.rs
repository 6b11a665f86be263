//! `settled-signer`: the program that holds the private keys.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use signer::{keys_args, keys_command};

/// Manages the private keys of settled. The daemon `settled` itself needs only the account xpubs.
#[derive(Parser)]
#[command(name = "settled-signer", version, after_help = keys_command::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create, import, show and check keys.
    #[command(subcommand)]
    Keys(keys_args::Command),
}

fn main() -> ExitCode {
    let Cli { command: Command::Keys(command) } = Cli::parse();
    match forbid_core_dumps_and_debuggers()
        .and_then(|()| keys_command::run_keys_command(&command, &mut std::io::stdout()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("settled-signer: {error:#}");
            keys_command::exit_code_of_error(&error)
        }
    }
}

/// Disables core dumps of this process, and debuggers that the same user attaches to it. Both would reveal the seed.
fn forbid_core_dumps_and_debuggers() -> anyhow::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("cannot disable core dumps")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("cannot protect the memory of this process against other programs")
}
