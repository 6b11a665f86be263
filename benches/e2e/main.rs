//! The whole daemon: orders over HTTP, requests to nodes, blocks of TRON applied, start and rest with a million open invoices.
//!
//! `cargo bench --bench e2e` prints a table, with `-- --json` JSON; a word such as `P14` takes that figure alone.

#[path = "../accounts/mod.rs"]
mod accounts;
#[path = "../books/mod.rs"]
mod books;
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
    // Every line is made as in production, and then thrown away.
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false).with_writer(std::io::sink).init();
    let mut report = Report::new("e2e");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
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
