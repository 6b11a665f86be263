//! P11 to P13: deposits booked in one transaction for each block, against the bare rows of the same deposits.

mod bare;

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
use money::deposits::{self, DepositService, Grace, Limits};
use money::effects::PaymentListener;
use money::ledger::PostError;
use money::payments::PaymentChange;
use sqlx::Connection;
use tokio::runtime::Runtime;

use crate::accounts;
use crate::books::postgres::Server;
use crate::books::{DUE, NOW, SqliteFile, account};
use crate::made::{fill_postgres, header};
use crate::report::{Bounds, Report, turns};

const ROUNDS: usize = 7;
const OPEN: u64 = 6_000;
/// Deposits of a turn, whether they come 64 or one by one in a block.
const DEPOSITS: u64 = 256;
const LONELY: u64 = 48;
const LIMITS: Limits = Limits { grace: Grace { ms: 60_000 }, keep: 256 };

pub fn run(report: &mut Report, runtime: &Runtime) {
    sqlite(report, runtime);
    let server = runtime.block_on(Server::start());
    postgres(report, runtime, &server);
}

fn sqlite(report: &mut Report, runtime: &Runtime) {
    let (file, bare_file) = runtime.block_on(async {
        let file = SqliteFile::filled(&accounts::token(), OPEN).await;
        (file, SqliteFile::filled(&accounts::token(), OPEN).await)
    });
    let db = runtime.block_on(file.open());
    let mut bare = bare::Sqlite::start(bare_file.connect());
    let mut ours = runtime.block_on(Books::start(db));

    if report.wants(&["P12"]) {
        let before = (ours.paid, ours.statements());
        let turns = turns(ROUNDS, DEPOSITS, || bare.book(DEPOSITS, 64), || ours.book(runtime, DEPOSITS, 64));
        let bounds = Bounds::AtLeast { gate: 500, goal: 650 };
        report.ratio("P12", "deposits/s, 64 in a block, by bare rows; SQLite", bounds, &turns);
        report.plain(
            "P12",
            "SQL statements for each deposit, 64 in a block; SQLite",
            "",
            Bounds::Told,
            ours.each(before),
        );
    }
    if report.wants(&["P11"]) {
        let before = (ours.paid, ours.statements());
        let turns = turns(ROUNDS, LONELY, || bare.book(LONELY, 1), || ours.book(runtime, LONELY, 1));
        let bounds = Bounds::AtMost { gate: 2_000, goal: 1_400 };
        report.ratio("P11", "a block with one deposit by its bare rows; SQLite", bounds, &turns);
        report.plain("P11", "SQL statements for a block with one deposit; SQLite", "", Bounds::Told, ours.each(before));
    }
    if report.wants(&["P13"]) {
        let mut disk = Disk::new();
        let turns = turns(ROUNDS, DEPOSITS, || disk.sync(DEPOSITS), || ours.book(runtime, DEPOSITS, 64));
        let bounds = Bounds::AtLeast { gate: 1_500, goal: 2_500 };
        report.ratio("P13", "deposits/s, 64 in a block, by fdatasync/s; SQLite", bounds, &turns);
    }
}

fn postgres(report: &mut Report, runtime: &Runtime, server: &Server) {
    let (scratch, bare_scratch) = runtime.block_on(async {
        let ours = TestDatabase::postgres(server.url()).await;
        (ours, TestDatabase::postgres(server.url()).await)
    });
    let (mut ours, mut bare) = runtime.block_on(async {
        for url in [scratch.config().url, bare_scratch.config().url] {
            let mut connection = sqlx::PgConnection::connect(&url).await.expect("a database");
            fill_postgres(&mut connection, &accounts::token(), OPEN).await;
        }
        let db = Db::open(&Config::new(scratch.config().url)).await.expect("a database");
        (Books::start(db).await, bare::Postgres::start(&bare_scratch.config().url).await)
    });
    if report.wants(&["P12"]) {
        let before = (ours.paid, ours.statements());
        let bare = || runtime.block_on(bare.book(DEPOSITS, 64));
        let turns = turns(ROUNDS, DEPOSITS, bare, || ours.book(runtime, DEPOSITS, 64));
        let bounds = Bounds::AtLeast { gate: 600, goal: 850 };
        report.ratio("P12", "deposits/s, 64 in a block, by bare rows; PostgreSQL, fsync", bounds, &turns);
        let each = ours.each(before);
        report.plain("P12", "SQL statements for each deposit, 64 in a block; PostgreSQL", "", Bounds::Told, each);
    }
    if report.wants(&["P11"]) {
        let before = (ours.paid, ours.statements());
        let bare = || runtime.block_on(bare.book(LONELY, 1));
        let turns = turns(ROUNDS, LONELY, bare, || ours.book(runtime, LONELY, 1));
        let bounds = Bounds::AtMost { gate: 2_000, goal: 1_400 };
        report.ratio("P11", "a block with one deposit by its bare rows; PostgreSQL, fsync", bounds, &turns);
        let each = ours.each(before);
        report.plain("P11", "SQL statements for a block with one deposit; PostgreSQL", "", Bounds::Told, each);
    }
    runtime.block_on(ours.db.close());
}

/// Our own way.
struct Books {
    db: Db,
    chain: FollowedChain,
    asset: chain::AssetId,
    height: u64,
    /// Invoices paid so far; each deposit pays one.
    paid: u64,
}

impl Books {
    async fn start(db: Db) -> Books {
        let token = accounts::token();
        let chain = FollowedChain {
            id: token.chain.clone(),
            family: chain::Family::Evm,
            mode: Mode::Test,
            // Nothing becomes final while it is measured: the bare rows have no release either.
            depths: Depths::flat(1, 1_000_000),
            watched: Arc::new(WatchSet::default()),
            siblings: Vec::new(),
            dust: Dust::default(),
        };
        let id = chain.id.clone();
        let start = db.write("start", move |tx| Box::pin(async move { deposits::start(tx, &id, &header(0)).await }));
        start.await.expect("a cursor");
        Books { db, chain, asset: token.id, height: 0, paid: 0 }
    }

    fn book(&mut self, runtime: &Runtime, deposits: u64, in_block: u64) -> Duration {
        let blocks: Vec<Block> = (0..deposits / in_block).map(|_| self.next_block(in_block)).collect();
        let start = Instant::now();
        runtime.block_on(async {
            for block in blocks {
                self.apply(block).await.expect("a block is booked");
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
                to: account(self.paid),
                from: Some("0x00000000000000000000000000000000000000Aa".to_owned()),
                amount: Amount::from(DUE),
            }
        };
        let count = u32::try_from(deposits).expect("few");
        Block { header, transfers: (0..count).map(transfer).collect(), spends: Vec::new() }
    }

    async fn apply(&self, block: Block) -> Result<(), PostError> {
        let expected = block.transfers.len();
        let reached = Some(deposits::position(&self.chain, block.header.height, None));
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

    /// Statements for each deposit since so many deposits and statements, in thousandths.
    fn each(&self, (paid, statements): (u64, u64)) -> u64 {
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

/// Four kibibytes overwritten and synced: what the disk can do.
struct Disk(std::fs::File);

impl Disk {
    fn new() -> Disk {
        let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).expect("a file of the build");
        file.write_all(&[0; 1 << 20]).and_then(|()| file.sync_all()).expect("a file");
        Disk(file)
    }

    fn sync(&mut self, times: u64) -> Duration {
        let start = Instant::now();
        for number in 0..times {
            let at = self.0.seek(SeekFrom::Start(number % 256 * 4_096));
            at.and_then(|_| self.0.write_all(&[1; 4_096])).and_then(|()| self.0.sync_data()).expect("a write");
        }
        start.elapsed()
    }
}
