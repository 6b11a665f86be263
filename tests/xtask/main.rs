//! What developers of settled run now and then: `cargo xtask --help`.

use std::process::Command;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What developers of settled run now and then")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds the node of Bitcoin that the tests start where neither BITCOIND nor PATH has one, and names it.
    Bitcoind,
    /// Runs the TRON node that the tests use until it is stopped, and says how settled and wallets find it.
    Tron {
        #[arg(long, default_value_t = 8_090)]
        port: u16,
    },
    /// Plays random seeds and kills against the whole daemon, on SQLite and PostgreSQL. `cargo test` does a little of it.
    Soak {
        /// How many seeds are played on each database.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first seed; a failure names its own.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Moves of one seed.
        #[arg(long, default_value_t = 300)]
        moves: u64,
        /// How often the real process is killed.
        #[arg(long, default_value_t = 50)]
        kills: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Bitcoind => {
            println!("{}", provision::bitcoind::binary()?.display());
            Ok(())
        }
        Task::Tron { port } => {
            // A program of its own, so that its virtual machine is compiled only for who wants it.
            let mut node = Command::new(env!("CARGO"));
            run(node.args(["run", "--quiet", "--package", "tronnode", "--", &port.to_string()]))
        }
        Task::Soak { seeds, from, moves, kills } => {
            let mut test = Command::new(env!("CARGO"));
            // With what is played on the screen, so that a long run can be watched.
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
            run(&mut test)
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().context("cargo cannot be started")?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}
