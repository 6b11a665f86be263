//! The command line. A command parses its arguments, calls one operation and prints the outcome: results on standard
//! output, errors on standard error, and an exit code for scripts.

mod admin;
mod audit;
mod backup;
mod check;
pub mod context;
mod dev;
pub mod dispatch;
mod exit;
mod init;
mod installation;
mod logging;
mod migrate;
pub mod operation;
mod out;
pub mod rescan;
mod serve;
mod status;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::CommandError;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 something failed, or `audit` and `check` found something; 2 wrong usage; 3 the configuration is \
wrong; 4 the data folder is in use by another daemon, or a running daemon is needed and none runs.

Secrets are never taken from arguments or from the environment.";

/// Self-hosted crypto payment and settlement daemon.
#[derive(Parser)]
#[command(name = "settled", version, after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a complete demo: simulated chains, a shop with stock, no configuration; worthless coins only.
    #[command(after_help = EXIT_CODES)]
    Dev(dev::Args),
    /// Run the daemon with a configuration.
    #[command(after_help = EXIT_CODES)]
    Serve(serve::Args),
    /// Write a commented configuration to begin with; an existing file is never overwritten.
    #[command(after_help = EXIT_CODES)]
    Init(init::Args),
    /// Bring the database to the schema of this version.
    #[command(after_help = EXIT_CODES)]
    Migrate(migrate::Args),
    /// Examine configuration, database, keys, nodes and rates, and say how to fix what is wrong.
    #[command(after_help = EXIT_CODES)]
    Check(check::Args),
    /// Recompute the ledger from its postings and compare it with what is stored; changes nothing.
    #[command(after_help = EXIT_CODES)]
    Audit(audit::Args),
    /// Read blocks again and book what is missing, after a token was listed late.
    #[command(after_help = EXIT_CODES)]
    Rescan(rescan::Args),
    /// Copy the database to a new file while the daemon runs.
    #[command(after_help = EXIT_CODES)]
    Backup(backup::Args),
    /// Say what the running daemon is doing.
    #[command(after_help = EXIT_CODES)]
    Status(status::Args),
    /// Create, list and change merchants, users, tokens, products, stock and coupons; see to orders and reviews.
    #[command(after_help = EXIT_CODES)]
    Admin(admin::Args),
}

/// What the binary does.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CommandError::failed(format!("threads cannot be started: {error}")).report(),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Dev(args) => dev::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Init(args) => init::run(&args),
        Command::Migrate(args) => migrate::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Rescan(args) => rescan::run(args).await,
        Command::Backup(args) => backup::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Admin(args) => admin::run(args).await,
    }
}
