//! P8: the cost of a block does not depend on the number of open invoices.

use std::sync::Arc;
use std::time::Duration;

use chain::{Block, BlockRef, Header, TxId, WatchSet};
use cpu_time::ProcessTime;
use db::Db;
use evm::logs::for_each_watched_transfer_in_reply;
use evm::token_contracts::TokenContracts;
use ids::Mode;
use money::assets::{Depths, Dust, FollowedChain};
use money::cursors;
use money::deposits::{DepositLimits, DepositService, Grace};
use money::invoices;
use money::ledger::PostError;
use rpc::Rejection;
use tokio::runtime::Runtime;

use crate::databases::{NOW, SqliteFile, invoice_address};
use crate::deposits::PaidCounter;
use crate::node_answers;
use crate::report::{Bounds, Report, take_samples};
use crate::synthetic::header;
use crate::usdt;

const ROUNDS: usize = 11;
const BLOCKS: u64 = 40;
/// The number of logs in each block; one of them pays an invoice.
const LOGS: u64 = 150;
const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
const LIMITS: DepositLimits = DepositLimits { grace: Grace { ms: 60_000 }, keep: 256 };

/// Measures and reports P8.
pub fn run(report: &mut Report, runtime: &Runtime) {
    let mut few = runtime.block_on(FollowBench::start(FEW));
    let mut many = runtime.block_on(FollowBench::start(MANY));
    let samples = take_samples(ROUNDS, BLOCKS, || few.follow(runtime), || many.follow(runtime));
    let bounds = Bounds::AtMost { gate: 1_200, goal: 1_100 };
    report.ratio("P8", "CPU for each block, 10⁶ open invoices by 10³", bounds, &samples);
    let blocks = (u64::try_from(ROUNDS).expect("the number is small") + 1) * BLOCKS;
    let (few, many) = (few.statements(), many.statements());
    let bounds = Bounds::Exactly(few * 1_000 / blocks);
    report.plain("P8", "SQL statements for each block, 10⁶ open as 10³", "", bounds, many * 1_000 / blocks);
}

/// A followed chain with a database of open invoices.
struct FollowBench {
    db: Db,
    chain: FollowedChain,
    contracts: TokenContracts,
    /// The height of the next block.
    height: u64,
    /// The number of the invoice that was paid last.
    paid: u64,
    open: u64,
    statements_before: u64,
    _file: SqliteFile,
}

impl FollowBench {
    async fn start(open: u64) -> FollowBench {
        let token = usdt::asset();
        let file = SqliteFile::with_open_invoices(&token, open).await;
        let db = file.open().await;
        let watched = Arc::new(WatchSet::default());
        for number in 1..=open {
            watched.insert(invoice_address(number));
        }
        let chain = FollowedChain {
            id: token.chain.clone(),
            family: chain::Family::Evm,
            mode: Mode::Test,
            depths: Depths::depths_without_tiers(1, 12),
            watched,
            siblings: Vec::new(),
            dust: Dust::default(),
        };
        let id = chain.id.clone();
        let start = db.write("start", move |tx| {
            Box::pin(async move { cursors::start_following_chain(tx, &id, &header(0)).await })
        });
        start.await.expect("the cursor is stored");
        let statements_before = db.counters().sql_statements;
        let contracts = TokenContracts::from_assets(&[token]).expect("the contract is valid");
        FollowBench { db, chain, contracts, height: 1, paid: 1, open, statements_before, _file: file }
    }

    /// Reads and books some blocks and returns the CPU time of the whole process.
    fn follow(&mut self, runtime: &Runtime) -> Duration {
        let answers: Vec<Vec<u8>> = (0..BLOCKS).map(|_| self.next_answer()).collect();
        let start = ProcessTime::now();
        for answer in &answers {
            let block = self.read(answer, header(self.height)).expect("the answer is valid");
            assert_eq!(block.transfers.len(), 1);
            runtime.block_on(self.book(block)).expect("the block is booked");
            self.height += 1;
        }
        start.elapsed()
    }

    fn next_answer(&mut self) -> Vec<u8> {
        // Consecutive payments are far apart, so that one does not load the database pages of the next into the cache.
        self.paid = (self.paid + self.open / 997 * 2 + 1) % self.open;
        let ours = invoice_address(self.paid + 1);
        node_answers::log_answer((0..LOGS).map(|log| if log == 77 { ours } else { usdt::holder(log) }))
    }

    fn read(&self, answer: &[u8], header: Header) -> Result<Block, Rejection> {
        let mut transfers = Vec::new();
        for_each_watched_transfer_in_reply(answer, &self.chain.watched.lock_addresses(), &self.contracts, |hit, _| {
            let mut txid = header.hash.0;
            txid[31] = u8::try_from(transfers.len()).unwrap_or(u8::MAX);
            transfers.push(hit.into_transfer(TxId(txid), 1, 77));
        })?;
        Ok(Block { header, transfers, spends: Vec::new() })
    }

    /// Books a block as the follow worker does at the tip.
    async fn book(&self, block: Block) -> Result<(), PostError> {
        let reached = Some(cursors::compute_position(&self.chain, block.header.height, None));
        let from = BlockRef { height: block.header.height - 1, hash: block.header.parent };
        let id = self.chain.id.clone();
        let service = DepositService::new(self.chain.clone(), LIMITS, Arc::new(PaidCounter::default()));
        self.db
            .write("apply_blocks", move |tx| {
                Box::pin(async move { service.apply_blocks(tx, NOW, from, &[block], reached).await.map(drop) })
            })
            .await?;
        let passed = NOW.plus_ms(-LIMITS.grace.ms);
        let expirable = self.db.read("list_expirable_invoices", move |tx| {
            Box::pin(async move { invoices::list_expirable_invoices(tx, &id, NOW, passed, LIMITS.grace, 100).await })
        });
        assert!(expirable.await?.is_empty());
        Ok(())
    }

    fn statements(&self) -> u64 {
        self.db.counters().sql_statements - self.statements_before
    }
}
