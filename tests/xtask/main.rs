//! Tasks for developers of settled: `cargo xtask --help` lists them.

mod currencies;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks for developers of settled")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Print the path of the bitcoind that tests use. Build it first if it is neither in BITCOIND nor on PATH.
    Bitcoind,
    /// Run the TRON stand-in node of the tests until Ctrl-C. Print how to connect settled and wallets to it.
    Tron {
        /// The port to listen on.
        #[arg(long, default_value_t = 8_090)]
        port: u16,
    },
    /// Print the source file `src/money/pricing/minor_units.rs`, generated from list one of ISO 4217.
    Currencies {
        /// The file `list-one.xml`, which the maintenance agency of the standard publishes.
        list_one: PathBuf,
    },
    /// Test the whole daemon with random actions and kills, on SQLite and PostgreSQL. `cargo test` runs a short version.
    Soak {
        /// The number of random seeds to run on each database.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first seed. To repeat a failure, use the seed that it printed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// The number of random actions per seed.
        #[arg(long, default_value_t = 300)]
        moves: u64,
        /// The number of times the real process is killed.
        #[arg(long, default_value_t = 50)]
        kills: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Bitcoind => {
            println!("{}", provision::bitcoind::find_or_build_bitcoind()?.display());
            Ok(())
        }
        Task::Tron { port } => {
            // The node is a separate program, so that its virtual machine is compiled only when it is used.
            let mut node = Command::new(env!("CARGO"));
            run_cargo(node.args(["run", "--quiet", "--package", "tronnode", "--", &port.to_string()]))
        }
        Task::Currencies { list_one } => {
            let xml =
                std::fs::read_to_string(&list_one).with_context(|| format!("cannot read {}", list_one.display()))?;
            print!("{}", currencies::generate_minor_units_source(&xml)?);
            Ok(())
        }
        Task::Soak { seeds, from, moves, kills } => {
            let mut test = Command::new(env!("CARGO"));
            // `--nocapture` shows the progress of a long run.
            test.args([
                "test",
                "--package",
                "settled",
                "--test",
                "it",
                "--",
                "soak",
                "--nocapture",
                "--test-threads",
                "2",
            ]);
            test.env("SETTLED_SOAK_SEEDS", seeds.to_string()).env("SETTLED_SOAK_FROM", from.to_string());
            test.env("SETTLED_SOAK_MOVES", moves.to_string()).env("SETTLED_SOAK_KILLS", kills.to_string());
            run_cargo(&mut test)
        }
    }
}

fn run_cargo(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the task failed: {status}");
    }
    Ok(())
}
