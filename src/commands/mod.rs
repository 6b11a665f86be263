//! The command line. A command parses its arguments, calls one operation and prints the outcome: results go to standard
//! output and errors to standard error. The exit code tells scripts the kind of failure.

mod admin;
mod audit;
mod backup;
mod check;
mod command_error;
pub mod context;
mod database;
mod dev;
pub mod dispatch;
mod envelope_keys;
mod hints;
mod init;
mod installation;
mod logging;
mod migrate;
pub mod operation;
mod output;
mod payable_coins;
mod private_files;
pub mod rescan;
mod restore;
mod serve;
mod status;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use command_error::CommandError;

const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 the command failed, or `audit` or `check` found a problem; 2 wrong arguments; 3 the configuration is \
wrong; 4 the data folder or the database is in use by another daemon, or no daemon runs and one is needed.

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
    /// Run a demo without a configuration: simulated chains with worthless coins, and a shop with stock.
    #[command(after_help = EXIT_CODES)]
    Dev(dev::Args),
    /// Run the daemon.
    #[command(after_help = EXIT_CODES)]
    Serve(serve::Args),
    /// Write a first configuration with comments; an existing file is never overwritten.
    #[command(after_help = EXIT_CODES)]
    Init(init::Args),
    /// Apply pending migrations to the database.
    #[command(after_help = EXIT_CODES)]
    Migrate(migrate::Args),
    /// Examine the configuration, the database, keys, nodes and rates, and report how to fix what is wrong.
    #[command(after_help = EXIT_CODES)]
    Check(check::Args),
    /// Recompute the ledger from its postings and compare it with the stored balances; changes nothing.
    #[command(after_help = EXIT_CODES)]
    Audit(audit::Args),
    /// Read blocks again and book missing transfers, after a token was added to the configuration.
    #[command(after_help = EXIT_CODES)]
    Rescan(rescan::Args),
    /// Copy the database to a new file, also while the daemon runs.
    #[command(after_help = EXIT_CODES)]
    Backup(backup::Args),
    /// After the database was restored from a backup: skip the addresses that were given out since.
    #[command(after_help = EXIT_CODES)]
    Restore(restore::Args),
    /// Print the state of the running daemon.
    #[command(after_help = EXIT_CODES)]
    Status(status::Args),
    /// Manage merchants, users, tokens, products, stock, coupons, orders, reviews and chains.
    #[command(after_help = EXIT_CODES)]
    Admin(admin::Args),
}

/// Parses the command line, runs the command and returns its exit code.
pub fn run_command_line() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return CommandError::general_error(format!("the runtime cannot be started: {error}"))
                .print_and_get_exit_code();
        }
    };
    match runtime.block_on(run_command(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.print_and_get_exit_code(),
    }
}

async fn run_command(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Dev(args) => dev::run_demo_or_subcommand(args).await,
        Command::Serve(args) => serve::run_daemon_until_stopped(args).await,
        Command::Init(args) => init::write_config_file_and_print_next_steps(&args),
        Command::Migrate(args) => migrate::apply_pending_migrations_and_print(args).await,
        Command::Check(args) => check::run_and_print_all_checks(args).await,
        Command::Audit(args) => audit::audit_and_print_report(args).await,
        Command::Rescan(args) => rescan::rescan_piecewise_and_print(args).await,
        Command::Backup(args) => backup::back_up_database_to_target(args).await,
        Command::Restore(args) => restore::skip_addresses_and_print(args).await,
        Command::Status(args) => status::print_daemon_status(args).await,
        Command::Admin(args) => admin::execute_admin_command_and_print(args).await,
    }
}
