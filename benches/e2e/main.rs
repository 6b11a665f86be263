//! Measures the whole daemon: orders over HTTP, requests to nodes, applied TRON blocks, and the start and idle load with a
//! million open invoices.
//!
//! `cargo bench --bench e2e` prints a table, and `-- --json` prints JSON. An argument such as `P14` selects one figure.

#[path = "../usdt/mod.rs"]
mod usdt;
#[path = "../databases/mod.rs"]
mod databases;
#[path = "../report/mod.rs"]
mod report;

mod client;
mod orders;
mod process;
mod requests;
mod solidified;

use std::process::ExitCode;

use report::Report;

fn main() -> ExitCode {
    // Log lines are formatted as in production and then discarded.
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false).with_writer(std::io::sink).init();
    let mut report = Report::new("e2e");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the machine can start threads");
    if report.wants(&["P10"]) {
        requests::run(&mut report, &runtime);
    }
    if report.wants(&["P2", "P14", "P15", "P16"]) {
        orders::run(&mut report, &runtime);
    }
    if report.wants(&["P21", "P23"]) {
        process::run(&mut report, &runtime);
    }
    if report.wants(&["TRON"]) {
        solidified::run(&mut report, &runtime);
    }
    report.end()
}
