//! P8: what a block costs does not depend on how many invoices are open.

use std::sync::Arc;
use std::time::Duration;

use chain::{Block, BlockRef, Header, TxId, WatchSet};
use cpu_time::ProcessTime;
use db::Db;
use evm::logs::{TokenContracts, for_each_watched_transfer};
use ids::Mode;
use money::assets::{Depths, Dust, FollowedChain};
use money::deposits::{self, DepositService, Grace, Limits};
use money::invoices;
use money::ledger::PostError;
use rpc::Rejection;
use tokio::runtime::Runtime;

use crate::accounts;
use crate::answers;
use crate::books::{NOW, SqliteFile, account};
use crate::deposits::PaidCounter;
use crate::made::header;
use crate::report::{Bounds, Report, turns};

const ROUNDS: usize = 11;
const BLOCKS: u64 = 40;
/// Of every block; one of them pays an invoice.
const LOGS: u64 = 150;
const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
const LIMITS: Limits = Limits { grace: Grace { ms: 60_000 }, keep: 256 };

pub fn run(report: &mut Report, runtime: &Runtime) {
    let mut few = runtime.block_on(Followed::start(FEW));
    let mut many = runtime.block_on(Followed::start(MANY));
    let turns = turns(ROUNDS, BLOCKS, || few.follow(runtime), || many.follow(runtime));
    let bounds = Bounds::AtMost { gate: 1_200, goal: 1_100 };
    report.ratio("P8", "CPU for each block, 10⁶ open invoices by 10³", bounds, &turns);
    let blocks = (u64::try_from(ROUNDS).expect("few") + 1) * BLOCKS;
    let (few, many) = (few.statements(), many.statements());
    let bounds = Bounds::Exactly(few * 1_000 / blocks);
    report.plain("P8", "SQL statements for each block, 10⁶ open as 10³", "", bounds, many * 1_000 / blocks);
}

/// A chain that is followed for so many open invoices.
struct Followed {
    db: Db,
    chain: FollowedChain,
    contracts: TokenContracts,
    /// The next block, and the next invoice that is paid.
    height: u64,
    paid: u64,
    open: u64,
    statements_before: u64,
    _file: SqliteFile,
}

impl Followed {
    async fn start(open: u64) -> Followed {
        let token = accounts::token();
        let file = SqliteFile::filled(&token, open).await;
        let db = file.open().await;
        let watched = Arc::new(WatchSet::default());
        for number in 1..=open {
            watched.insert(account(number));
        }
        let chain = FollowedChain {
            id: token.chain.clone(),
            family: chain::Family::Evm,
            mode: Mode::Test,
            depths: Depths::flat(1, 12),
            watched,
            siblings: Vec::new(),
            dust: Dust::default(),
        };
        let id = chain.id.clone();
        let start = db.write("start", move |tx| Box::pin(async move { deposits::start(tx, &id, &header(0)).await }));
        start.await.expect("a cursor");
        let statements_before = db.counters().sql_statements;
        let contracts = TokenContracts::new(&[token]).expect("a contract");
        Followed { db, chain, contracts, height: 1, paid: 1, open, statements_before, _file: file }
    }

    /// Reads and books some blocks, and tells the CPU time of the whole process.
    fn follow(&mut self, runtime: &Runtime) -> Duration {
        let answers: Vec<Vec<u8>> = (0..BLOCKS).map(|_| self.next_answer()).collect();
        let start = ProcessTime::now();
        for answer in &answers {
            let block = self.read(answer, header(self.height)).expect("an answer");
            assert_eq!(block.transfers.len(), 1);
            runtime.block_on(self.book(block)).expect("a block is booked");
            self.height += 1;
        }
        start.elapsed()
    }

    fn next_answer(&mut self) -> Vec<u8> {
        // Far apart, so that one payment does not warm the pages of the next.
        self.paid = (self.paid + self.open / 997 * 2 + 1) % self.open;
        let ours = account(self.paid + 1);
        answers::logs((0..LOGS).map(|log| if log == 77 { ours } else { accounts::stranger(log) }))
    }

    fn read(&self, answer: &[u8], header: Header) -> Result<Block, Rejection> {
        let mut transfers = Vec::new();
        for_each_watched_transfer(answer, &self.chain.watched.read_addresses(), &self.contracts, |hit, _| {
            let mut txid = header.hash.0;
            txid[31] = u8::try_from(transfers.len()).unwrap_or(u8::MAX);
            transfers.push(hit.into_transfer(TxId(txid), 1, 77));
        })?;
        Ok(Block { header, transfers, spends: Vec::new() })
    }

    /// What the following worker does with a block at the tip.
    async fn book(&self, block: Block) -> Result<(), PostError> {
        let reached = Some(deposits::position(&self.chain, block.header.height, None));
        let from = BlockRef { height: block.header.height - 1, hash: block.header.parent };
        let id = self.chain.id.clone();
        let service = DepositService::new(self.chain.clone(), LIMITS, Arc::new(PaidCounter::default()));
        self.db
            .write("apply_blocks", move |tx| {
                Box::pin(async move { service.apply_blocks(tx, NOW, from, &[block], reached).await.map(drop) })
            })
            .await?;
        let passed = NOW.plus_ms(-LIMITS.grace.ms);
        let expirable = self.db.read("list_expirable", move |tx| {
            Box::pin(async move { invoices::list_expirable(tx, &id, NOW, passed, LIMITS.grace, 100).await })
        });
        assert!(expirable.await?.is_empty());
        Ok(())
    }

    fn statements(&self) -> u64 {
        self.db.counters().sql_statements - self.statements_before
    }
}
