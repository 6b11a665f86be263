//! P14 to P16: orders made and read over HTTP, against the bare rows of the same orders and against an empty answer.

mod bare;
mod shop;

use std::future::Future;
use std::time::Duration;

use chain::derive;
use db::testing::TestDatabase;
use tokio::runtime::Runtime;

use crate::books::SqliteFile;
use crate::books::postgres::Server;
use crate::client::{self, Crowd};
use crate::report::{Bounds, Report, Turn, quantile, sorted, thousandths, turns};
use shop::Shop;

const ROUNDS: usize = 7;
const ALONE: u32 = 96;
const CROWD: u32 = 64;
const ORDERS: u32 = 1_024;
const READS: u32 = 4_096;

/// The bounds that a database is held to.
struct Target {
    name: &'static str,
    crowd: Bounds,
    read: Bounds,
}

pub fn run(report: &mut Report, runtime: &Runtime) {
    let (file, bare_file) = (SqliteFile::new(), SqliteFile::new());
    let shop = runtime.block_on(async { Shop::open(file.open().await).await });
    let mut bare = runtime.block_on(async {
        let shop = Shop::open(bare_file.open().await).await;
        shop.close().await;
        bare::Sqlite::new(bare_file.connect())
    });
    if report.wants(&["P14"]) {
        let alone = turns(ROUNDS, 1, || bare.orders(ALONE), || runtime.block_on(shop.orders(1, ALONE)).each);
        let bounds = Bounds::AtLeast { gate: 500, goal: 600 };
        report.ratio("P14", "orders/s over HTTP, 1 client, by bare commits; SQLite", bounds, &alone);
    }
    let target = Target {
        name: "SQLite",
        crowd: Bounds::AtLeast { gate: 3_000, goal: 5_000 },
        read: Bounds::AtLeast { gate: 300, goal: 550 },
    };
    crowds(report, runtime, &shop, &target, async |_| bare.orders(ALONE));
    let shop = if report.wants(&["P2"]) { runtime.block_on(count_derivations(report, shop, &file)) } else { shop };
    runtime.block_on(shop.close());

    let server = runtime.block_on(Server::start());
    let (scratch, bare_scratch) = runtime
        .block_on(async { (TestDatabase::postgres(server.url()).await, TestDatabase::postgres(server.url()).await) });
    let shop = runtime.block_on(Shop::connect(&scratch.config().url));
    let mut bare = runtime.block_on(async {
        let shop = Shop::connect(&bare_scratch.config().url).await;
        shop.close().await;
        bare::Postgres::connect(&bare_scratch.config().url).await
    });
    let target = Target {
        name: "PostgreSQL, fsync",
        crowd: Bounds::AtLeast { gate: 500, goal: 800 },
        read: Bounds::AtLeast { gate: 120, goal: 180 },
    };
    crowds(report, runtime, &shop, &target, async |orders| bare.orders(orders).await);
    runtime.block_on(shop.close());
}

/// P2: an order costs one curve operation, and a restart with all those orders none.
async fn count_derivations(report: &mut Report, shop: Shop, file: &SqliteFile) -> Shop {
    let before = derive::count_derivations();
    shop.orders(CROWD, 128).await;
    let each = (derive::count_derivations() - before) * 1_000 / 128;
    report.plain("P2", "curve operations for each order", "", Bounds::Exactly(1_000), each);
    let before = derive::count_derivations();
    let shop = shop.restart(file).await;
    let restarted = (derive::count_derivations() - before) * 1_000;
    report.plain("P2", "curve operations of a restart", "", Bounds::Exactly(0), restarted);
    shop
}

fn crowds<F>(report: &mut Report, runtime: &Runtime, shop: &Shop, target: &Target, mut bare: F)
where
    F: AsyncFnMut(u32) -> Duration,
{
    let name = target.name;
    if report.wants(&["P14", "P15"]) {
        let mut latencies = Vec::new();
        let ours = || {
            let Crowd { each, latencies: seen } = runtime.block_on(shop.orders(CROWD, ORDERS));
            latencies.push(seen);
            each
        };
        let turns = turns(ROUNDS, 1, || runtime.block_on(bare(ORDERS)), ours);
        report.ratio("P14", format!("orders/s over HTTP, 64 clients, by bare commits; {name}"), target.crowd, &turns);
        let rate = 1_000_000_000_000 / median(&turns).max(1);
        report.plain("P14", format!("orders/s over HTTP, 64 clients; {name}"), "/s", Bounds::Told, rate);
        // The first crowd met a cold server.
        spread(report, name, &latencies[1..]);
    }
    if report.wants(&["P16"]) {
        let order = runtime.block_on(shop.order());
        let read = client::get(&format!("/api/orders/{order}/status"));
        let ask = |request: &[u8]| runtime.block_on(shop.ask(request)).each;
        let hello = client::get("/healthz");
        let turns = turns(ROUNDS, 1, || ask(&hello), || ask(&read));
        report.ratio("P16", format!("orders read/s, 64 clients, by an empty answer; {name}"), target.read, &turns);
    }
}

/// P15: the slow answers of each crowd by its usual one.
fn spread(report: &mut Report, name: &str, crowds: &[Vec<u64>]) {
    let at = |seen: &Vec<u64>, percent: usize| seen[(seen.len() - 1) * percent / 100];
    let turns: Vec<Turn> = crowds.iter().map(|seen| Turn { limit: quantile(seen, 2), ours: at(seen, 99) }).collect();
    let bounds = Bounds::AtMost { gate: 10_000, goal: 6_000 };
    report.ratio("P15", format!("99th of a hundred orders by the median, 64 clients; {name}"), bounds, &turns);
    let slowest = sorted(crowds.iter().map(|seen| at(seen, 100)));
    let bounds = Bounds::AtMost { gate: 200_000, goal: 60_000 };
    let slowest = thousandths(quantile(&slowest, 2), 1_000_000);
    report.plain("P15", format!("slowest order of a thousand, 64 clients; {name}"), "ms", bounds, slowest);
}

fn median(turns: &[Turn]) -> u64 {
    quantile(&sorted(turns.iter().map(|turn| turn.ours)), 2)
}

impl Shop {
    fn orders(&self, clients: u32, orders: u32) -> impl Future<Output = Crowd> {
        let body = format!(
            r#"{{"productId":"{}","quantity":1,"contactEmail":"a@example.com","paymentMethod":"crypto","coin":"erc20_usdt"}}"#,
            self.product
        );
        let request = client::post("/api/orders", &body);
        async move { client::crowd(self.address(), clients, orders, &request, "201").await }
    }

    fn ask(&self, request: &[u8]) -> impl Future<Output = Crowd> {
        client::crowd(self.address(), CROWD, READS, request, "200")
    }
}
