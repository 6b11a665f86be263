//! Compares settled with the physical limit in the same run: address derivation, reading of logs and blocks, booking of
//! deposits.
//!
//! `cargo bench --bench ratio` prints a table, and `-- --json` prints JSON. An argument such as `P12` selects one figure.

#[path = "../usdt/mod.rs"]
mod usdt;
#[path = "../node_answers/mod.rs"]
mod node_answers;
#[path = "../databases/mod.rs"]
mod databases;
#[path = "../report/mod.rs"]
mod report;

mod addresses;
mod bitcoin;
mod blocks;
mod deposits;
mod logs;
mod synthetic;

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
    let runtime = runtime.expect("the machine can start threads");
    if report.wants(&["P8"]) {
        blocks::run(&mut report, &runtime);
    }
    if report.wants(&["P11", "P12", "P13"]) {
        deposits::run(&mut report, &runtime);
    }
    report.end()
}
