//! P11 to P13: deposits booked in one database transaction per block, compared with inserting only their rows.

mod baseline;

use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chain::{Amount, Block, BlockRef, Transfer, TransferIndex, TxId, TxPart, WatchSet};
use db::testing::TestDatabase;
use db::{Config, Db, Tx};
use futures_util::future::BoxFuture;
use ids::Mode;
use money::assets::{Depths, Dust, FollowedChain};
use money::cursors;
use money::deposits::{DepositLimits, DepositService, Grace};
use money::effects::PaymentListener;
use money::ledger::PostError;
use money::payments::PaymentChange;
use sqlx::Connection;
use tokio::runtime::Runtime;

use crate::databases::postgres::SyncingServer;
use crate::databases::{DUE, NOW, SqliteFile, invoice_address};
use crate::report::{Bounds, Report, take_samples};
use crate::synthetic::{fill_postgres, header};
use crate::usdt;

const ROUNDS: usize = 7;
const OPEN: u64 = 6_000;
/// The number of deposits per sample, with 64 deposits in each block.
const DEPOSITS: u64 = 256;
/// The number of deposits per sample, with one deposit in each block.
const SINGLE_DEPOSITS: u64 = 48;
const LIMITS: DepositLimits = DepositLimits { grace: Grace { ms: 60_000 }, keep: 256 };

/// Measures and reports P11, P12 and P13.
pub fn run(report: &mut Report, runtime: &Runtime) {
    sqlite(report, runtime);
    let server = runtime.block_on(SyncingServer::start());
    postgres(report, runtime, &server);
}

fn sqlite(report: &mut Report, runtime: &Runtime) {
    let (file, baseline_file) = runtime.block_on(async {
        let file = SqliteFile::with_open_invoices(&usdt::asset(), OPEN).await;
        (file, SqliteFile::with_open_invoices(&usdt::asset(), OPEN).await)
    });
    let db = runtime.block_on(file.open());
    let mut baseline = baseline::Sqlite::start(baseline_file.connect());
    let mut ours = runtime.block_on(DepositBench::start(db));

    if report.wants(&["P12"]) {
        let before = (ours.paid, ours.statements());
        let samples =
            take_samples(ROUNDS, DEPOSITS, || baseline.book(DEPOSITS, 64), || ours.book(runtime, DEPOSITS, 64));
        let bounds = Bounds::AtLeast { gate: 500, goal: 650 };
        report.ratio("P12", "deposits/s, 64 in a block, by bare rows; SQLite", bounds, &samples);
        report.plain(
            "P12",
            "SQL statements for each deposit, 64 in a block; SQLite",
            "",
            Bounds::Informative,
            ours.statements_per_deposit(before),
        );
    }
    if report.wants(&["P11"]) {
        let before = (ours.paid, ours.statements());
        let samples = take_samples(
            ROUNDS,
            SINGLE_DEPOSITS,
            || baseline.book(SINGLE_DEPOSITS, 1),
            || ours.book(runtime, SINGLE_DEPOSITS, 1),
        );
        let bounds = Bounds::AtMost { gate: 2_000, goal: 1_400 };
        report.ratio("P11", "a block with one deposit by its bare rows; SQLite", bounds, &samples);
        report.plain(
            "P11",
            "SQL statements for a block with one deposit; SQLite",
            "",
            Bounds::Informative,
            ours.statements_per_deposit(before),
        );
    }
    if report.wants(&["P13"]) {
        let mut disk = SyncedFile::new();
        let samples = take_samples(ROUNDS, DEPOSITS, || disk.sync(DEPOSITS), || ours.book(runtime, DEPOSITS, 64));
        let bounds = Bounds::AtLeast { gate: 1_500, goal: 2_500 };
        report.ratio("P13", "deposits/s, 64 in a block, by fdatasync/s; SQLite", bounds, &samples);
    }
}

fn postgres(report: &mut Report, runtime: &Runtime, server: &SyncingServer) {
    let (scratch, baseline_scratch) = runtime.block_on(async {
        let ours = TestDatabase::create_postgres(server.url()).await;
        (ours, TestDatabase::create_postgres(server.url()).await)
    });
    let (mut ours, mut baseline) = runtime.block_on(async {
        for url in [scratch.config().url, baseline_scratch.config().url] {
            let mut connection = sqlx::PgConnection::connect(&url).await.expect("the database opens");
            fill_postgres(&mut connection, &usdt::asset(), OPEN).await;
        }
        let db = Db::open(&Config::new(scratch.config().url)).await.expect("the database opens");
        (DepositBench::start(db).await, baseline::Postgres::start(&baseline_scratch.config().url).await)
    });
    if report.wants(&["P12"]) {
        let before = (ours.paid, ours.statements());
        let baseline = || runtime.block_on(baseline.book(DEPOSITS, 64));
        let samples = take_samples(ROUNDS, DEPOSITS, baseline, || ours.book(runtime, DEPOSITS, 64));
        let bounds = Bounds::AtLeast { gate: 600, goal: 850 };
        report.ratio("P12", "deposits/s, 64 in a block, by bare rows; PostgreSQL, fsync", bounds, &samples);
        let each = ours.statements_per_deposit(before);
        report.plain(
            "P12",
            "SQL statements for each deposit, 64 in a block; PostgreSQL",
            "",
            Bounds::Informative,
            each,
        );
    }
    if report.wants(&["P11"]) {
        let before = (ours.paid, ours.statements());
        let baseline = || runtime.block_on(baseline.book(SINGLE_DEPOSITS, 1));
        let samples = take_samples(ROUNDS, SINGLE_DEPOSITS, baseline, || ours.book(runtime, SINGLE_DEPOSITS, 1));
        let bounds = Bounds::AtMost { gate: 2_000, goal: 1_400 };
        report.ratio("P11", "a block with one deposit by its bare rows; PostgreSQL, fsync", bounds, &samples);
        let each = ours.statements_per_deposit(before);
        report.plain("P11", "SQL statements for a block with one deposit; PostgreSQL", "", Bounds::Informative, each);
    }
    runtime.block_on(ours.db.close());
}

/// Books deposits as the daemon does.
struct DepositBench {
    db: Db,
    chain: FollowedChain,
    asset: chain::AssetId,
    height: u64,
    /// The number of paid invoices; each deposit pays one.
    paid: u64,
}

impl DepositBench {
    async fn start(db: Db) -> DepositBench {
        let token = usdt::asset();
        let chain = FollowedChain {
            id: token.chain.clone(),
            family: chain::Family::Evm,
            mode: Mode::Test,
            // No deposit becomes final during the measurement, because the baseline does not finalise deposits either.
            depths: Depths::depths_without_tiers(1, 1_000_000),
            watched: Arc::new(WatchSet::default()),
            siblings: Vec::new(),
            dust: Dust::default(),
        };
        let id = chain.id.clone();
        let start = db.write("start", move |tx| {
            Box::pin(async move { cursors::start_following_chain(tx, &id, &header(0)).await })
        });
        start.await.expect("the cursor is stored");
        DepositBench { db, chain, asset: token.id, height: 0, paid: 0 }
    }

    fn book(&mut self, runtime: &Runtime, deposits: u64, in_block: u64) -> Duration {
        let blocks: Vec<Block> = (0..deposits / in_block).map(|_| self.next_block(in_block)).collect();
        let start = Instant::now();
        runtime.block_on(async {
            for block in blocks {
                self.apply(block).await.expect("the block is booked");
            }
        });
        start.elapsed()
    }

    fn next_block(&mut self, deposits: u64) -> Block {
        self.height += 1;
        let header = header(self.height);
        let transfer = |number: u32| {
            self.paid += 1;
            let mut txid = header.hash.0;
            txid[16..20].copy_from_slice(&number.to_be_bytes());
            Transfer {
                txid: TxId(txid),
                index: TransferIndex { tx_index: number, part: TxPart::Log(number) },
                asset: self.asset.clone(),
                to: invoice_address(self.paid),
                from: Some("0x00000000000000000000000000000000000000Aa".to_owned()),
                amount: Amount::from(DUE),
            }
        };
        let count = u32::try_from(deposits).expect("the number is small");
        Block { header, transfers: (0..count).map(transfer).collect(), spends: Vec::new() }
    }

    async fn apply(&self, block: Block) -> Result<(), PostError> {
        let expected = block.transfers.len();
        let reached = Some(cursors::compute_position(&self.chain, block.header.height, None));
        let from = BlockRef { height: block.header.height - 1, hash: block.header.parent };
        let paid = Arc::new(PaidCounter::default());
        let service = DepositService::new(self.chain.clone(), LIMITS, paid.clone());
        let applied = self.db.write("apply_blocks", move |tx| {
            Box::pin(async move { service.apply_blocks(tx, NOW, from, &[block], reached).await })
        });
        applied.await?;
        assert_eq!(paid.0.load(Ordering::Relaxed), expected, "every deposit pays its invoice");
        Ok(())
    }

    fn statements(&self) -> u64 {
        self.db.counters().sql_statements
    }

    /// Returns the number of statements per deposit since the given counts, in thousandths.
    fn statements_per_deposit(&self, (paid, statements): (u64, u64)) -> u64 {
        (self.statements() - statements) * 1_000 / (self.paid - paid).max(1)
    }
}

/// Counts the payments that became paid.
#[derive(Default)]
pub struct PaidCounter(AtomicUsize);

impl PaymentListener for PaidCounter {
    fn on_payment_changes<'a>(
        &'a self,
        _: &'a mut Tx,
        _: clock::Instant,
        changes: &'a [PaymentChange],
    ) -> BoxFuture<'a, Result<(), db::Error>> {
        let paid = changes.iter().filter(|change| matches!(change, PaymentChange::Paid(_))).count();
        self.0.fetch_add(paid, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A file whose blocks of 4 KiB are overwritten and synced, to measure the disk.
struct SyncedFile(std::fs::File);

impl SyncedFile {
    fn new() -> SyncedFile {
        let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).expect("the build folder is writable");
        file.write_all(&[0; 1 << 20]).and_then(|()| file.sync_all()).expect("the file is writable");
        SyncedFile(file)
    }

    fn sync(&mut self, times: u64) -> Duration {
        let start = Instant::now();
        for number in 0..times {
            let position = self.0.seek(SeekFrom::Start(number % 256 * 4_096));
            position
                .and_then(|_| self.0.write_all(&[1; 4_096]))
                .and_then(|()| self.0.sync_data())
                .expect("the file is writable");
        }
        start.elapsed()
    }
}
