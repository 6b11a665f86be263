//! P14 to P16: orders created over HTTP, compared with inserting only their rows, and orders read over HTTP, compared with an
//! empty answer.

mod baseline;
mod shop;

use std::future::Future;
use std::time::Duration;

use chain::derive;
use db::testing::TestDatabase;
use tokio::runtime::Runtime;

use crate::client::{self, LoadResult};
use crate::databases::SqliteFile;
use crate::databases::postgres::SyncingServer;
use crate::report::{Bounds, Report, Sample, quantile, sorted, take_samples, thousandths};
use shop::BenchShop;

const ROUNDS: usize = 7;
const ALONE: u32 = 96;
const CROWD: u32 = 64;
const ORDERS: u32 = 1_024;
const READS: u32 = 4_096;

/// The bounds for one kind of database.
struct DatabaseBounds {
    name: &'static str,
    crowd: Bounds,
    read: Bounds,
}

/// Measures and reports P2, P14, P15 and P16.
pub fn run(report: &mut Report, runtime: &Runtime) {
    let (file, baseline_file) = (SqliteFile::new(), SqliteFile::new());
    let shop = runtime.block_on(async { BenchShop::open(file.open().await).await });
    let mut baseline = runtime.block_on(async {
        let shop = BenchShop::open(baseline_file.open().await).await;
        shop.close().await;
        baseline::Sqlite::new(baseline_file.connect())
    });
    if report.wants(&["P14"]) {
        let alone = take_samples(ROUNDS, 1, || baseline.orders(ALONE), || runtime.block_on(shop.orders(1, ALONE)).each);
        let bounds = Bounds::AtLeast { gate: 500, goal: 600 };
        report.ratio("P14", "orders/s over HTTP, 1 client, by bare commits; SQLite", bounds, &alone);
    }
    let target = DatabaseBounds {
        name: "SQLite",
        crowd: Bounds::AtLeast { gate: 3_000, goal: 5_000 },
        read: Bounds::AtLeast { gate: 300, goal: 550 },
    };
    measure_concurrent_clients(report, runtime, &shop, &target, async |_| baseline.orders(ALONE));
    let shop = if report.wants(&["P2"]) { runtime.block_on(count_derivations(report, shop, &file)) } else { shop };
    runtime.block_on(shop.close());

    let server = runtime.block_on(SyncingServer::start());
    let (scratch, baseline_scratch) = runtime.block_on(async {
        (TestDatabase::create_postgres(server.url()).await, TestDatabase::create_postgres(server.url()).await)
    });
    let shop = runtime.block_on(BenchShop::connect(&scratch.config().url));
    let mut baseline = runtime.block_on(async {
        let shop = BenchShop::connect(&baseline_scratch.config().url).await;
        shop.close().await;
        baseline::Postgres::connect(&baseline_scratch.config().url).await
    });
    let target = DatabaseBounds {
        name: "PostgreSQL, fsync",
        crowd: Bounds::AtLeast { gate: 500, goal: 800 },
        read: Bounds::AtLeast { gate: 120, goal: 180 },
    };
    measure_concurrent_clients(report, runtime, &shop, &target, async |orders| baseline.orders(orders).await);
    runtime.block_on(shop.close());
}

/// P2: an order costs one curve operation, and a restart those of the leased addresses that were not issued.
async fn count_derivations(report: &mut Report, shop: BenchShop, file: &SqliteFile) -> BenchShop {
    let before = derive::count_derivations();
    shop.orders(CROWD, 128).await;
    let each = (derive::count_derivations() - before) * 1_000 / 128;
    report.plain("P2", "curve operations for each order", "", Bounds::Exactly(1_000), each);
    let before = derive::count_derivations();
    let shop = shop.restart(file).await;
    let restarted = (derive::count_derivations() - before) * 1_000;
    // Only leased addresses that were not issued are derived: at most the rest of one lease.
    assert!(restarted <= 64_000, "a restart derived {restarted} thousandths of addresses");
    report.plain("P2", "curve operations of a restart", "", Bounds::Informative, restarted);
    shop
}

fn measure_concurrent_clients<F>(
    report: &mut Report,
    runtime: &Runtime,
    shop: &BenchShop,
    target: &DatabaseBounds,
    mut baseline: F,
) where
    F: AsyncFnMut(u32) -> Duration,
{
    let name = target.name;
    if report.wants(&["P14", "P15"]) {
        let mut latencies = Vec::new();
        let ours = || {
            let LoadResult { each, latencies: seen } = runtime.block_on(shop.orders(CROWD, ORDERS));
            latencies.push(seen);
            each
        };
        let samples = take_samples(ROUNDS, 1, || runtime.block_on(baseline(ORDERS)), ours);
        report.ratio("P14", format!("orders/s over HTTP, 64 clients, by bare commits; {name}"), target.crowd, &samples);
        let rate = 1_000_000_000_000 / median(&samples).max(1);
        report.plain("P14", format!("orders/s over HTTP, 64 clients; {name}"), "/s", Bounds::Informative, rate);
        // The first run is a warm-up.
        report_latencies(report, name, &latencies[1..]);
    }
    if report.wants(&["P16"]) {
        let order = runtime.block_on(shop.order());
        let read = client::get(&format!("/api/orders/{order}/status"));
        let ask = |request: &[u8]| runtime.block_on(shop.send_concurrently(request)).each;
        let hello = client::get("/healthz");
        let samples = take_samples(ROUNDS, 1, || ask(&hello), || ask(&read));
        report.ratio("P16", format!("orders read/s, 64 clients, by an empty answer; {name}"), target.read, &samples);
    }
}

/// P15: the slow answers of each run, divided by its median.
fn report_latencies(report: &mut Report, name: &str, crowds: &[Vec<u64>]) {
    let at = |seen: &Vec<u64>, percent: usize| seen[(seen.len() - 1) * percent / 100];
    let samples: Vec<Sample> =
        crowds.iter().map(|seen| Sample { limit: quantile(seen, 2), ours: at(seen, 99) }).collect();
    let bounds = Bounds::AtMost { gate: 10_000, goal: 6_000 };
    report.ratio("P15", format!("99th of a hundred orders by the median, 64 clients; {name}"), bounds, &samples);
    let slowest = sorted(crowds.iter().map(|seen| at(seen, 100)));
    let bounds = Bounds::AtMost { gate: 200_000, goal: 60_000 };
    let slowest = thousandths(quantile(&slowest, 2), 1_000_000);
    report.plain("P15", format!("slowest order of a thousand, 64 clients; {name}"), "ms", bounds, slowest);
}

fn median(samples: &[Sample]) -> u64 {
    quantile(&sorted(samples.iter().map(|turn| turn.ours)), 2)
}

impl BenchShop {
    fn orders(&self, clients: u32, orders: u32) -> impl Future<Output = LoadResult> {
        let body = format!(
            r#"{{"productId":"{}","quantity":1,"contactEmail":"a@example.com","paymentMethod":"crypto","coin":"erc20_usdt"}}"#,
            self.product
        );
        let request = client::post("/api/orders", &body);
        async move { client::run_clients(self.address(), clients, orders, &request, "201").await }
    }

    fn send_concurrently(&self, request: &[u8]) -> impl Future<Output = LoadResult> {
        client::run_clients(self.address(), CROWD, READS, request, "200")
    }
}
