//! Ratios to the physical limit, taken in the same run: address derivation, reading logs and blocks, booking deposits.
//!
//! `cargo bench --bench ratio` prints a table, with `-- --json` JSON; a word such as `P12` takes that figure alone.

#[path = "../accounts/mod.rs"]
mod accounts;
#[path = "../answers/mod.rs"]
mod answers;
#[path = "../books/mod.rs"]
mod books;
#[path = "../report/mod.rs"]
mod report;

mod addresses;
mod bitcoin;
mod blocks;
mod deposits;
mod logs;
mod made;

use std::process::ExitCode;

use report::Report;

fn main() -> ExitCode {
    let mut report = Report::new("ratio");
    if report.wants(&["P1", "P2"]) {
        addresses::run(&mut report);
    }
    if report.wants(&["P3", "P4", "P5", "P6"]) {
        logs::run(&mut report);
    }
    if report.wants(&["P7"]) {
        bitcoin::run(&mut report);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads can be started");
    if report.wants(&["P8"]) {
        blocks::run(&mut report, &runtime);
    }
    if report.wants(&["P11", "P12", "P13"]) {
        deposits::run(&mut report, &runtime);
    }
    report.end()
}
