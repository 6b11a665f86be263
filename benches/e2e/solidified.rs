//! The number of solidified TRON blocks per second that settled can process, over HTTP from a server with prepared answers.
//! First the driver alone reads and matches them; then the follow worker applies them, which books and settles payments.
//!
//! A block has 250 transactions, as on a busy day: half of them are transfers of TRX and half of USDT. Two pay an invoice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use chain::address::encode_tron_address;
use chain::{AddressKey, Amount, Asset, AssetKind, BlockHash, BlockRef, ChainId, Family, Source, WatchSet};
use clock::Clock;
use db::Db;
use ids::Mode;
use money::addresses::Addresses;
use money::assets::{Assets, Depths, Dust, FollowedChain};
use money::cursors;
use money::deposits::{DepositLimits, DepositService, Grace};
use prost::Message;
use serde_json::{Value, json};
use settled::workers::balance_check::BalanceReconciler;
use settled::workers::follow::FollowWorker;
use settled::workers::follow::machine::FollowLimits;
use settled::workers::follow::readiness::ChainReadiness;
use settled::workers::{Ran, Worker};
use sha2::{Digest, Sha256};
use shop::orders::PaymentChangeHandler;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tron::proto::HeaderRaw;
use tron::transaction::{self, Operation, TransactionParams};
use tron::{Tron, TronConfig, abi, address};
use web::health::Health;

use crate::databases::{DUE, NOW, SqliteFile, invoice_address};
use crate::report::{Bounds, Report, nanos, quantile, sorted, thousandths};
use crate::usdt::holder;

const CHAIN_ID: u32 = 7;
/// The number of blocks per measurement.
const BLOCKS: u64 = 150;
const TURNS: u64 = 3;
/// The block at which following starts; the blocks above it are read.
const FIRST: u64 = 1;
/// The height of the newest block. It is higher than the measurements need, because a batch may go beyond their end.
const TOP: u64 = FIRST + BLOCKS * TURNS + 300;
const TRANSACTIONS: u64 = 250;
/// The number of USDT transfers per block that pay an invoice. They pay the invoices in order.
const OURS: u64 = 2;
const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
const TOKEN: AddressKey = AddressKey([0xaa; 20]);

/// The prepared answers, by height.
struct PreparedAnswers {
    blocks: Vec<String>,
    receipts: Vec<String>,
}

/// Measures and reports the figure `TRON`.
pub fn run(report: &mut Report, runtime: &Runtime) {
    let answers = Arc::new(prepare_answers());
    let url = runtime.block_on(serve_answers(answers));
    for addresses in [FEW, MANY] {
        let watched = Arc::new(WatchSet::default());
        (1..=addresses).for_each(|number| watched.insert(invoice_address(number)));
        let driver = driver(&url);
        let read = (0..TURNS).map(|_| runtime.block_on(measure_reading(&driver, &watched)));
        let metric = format!("solidified blocks/s read and matched, {addresses} watched");
        report.plain("TRON", metric, "/s", Bounds::Informative, per_second(read));
    }
    let file = runtime.block_on(SqliteFile::with_open_invoices(&usdt(), MANY));
    let follower = runtime.block_on(BenchFollower::start(&url, &file));
    let applied = per_second((0..TURNS).map(|_| runtime.block_on(follower.follow())));
    report.plain("TRON", format!("solidified blocks/s applied, {MANY} watched"), "/s", Bounds::Informative, applied);
    let blocks = runtime.block_on(follower.cursor()) - FIRST;
    let paid = "select count(*) from invoices where state = 'paid'";
    let paid: i64 = file.connect().query_row(paid, [], |row| row.get(0)).expect("the query returns a count");
    assert_eq!(paid.unsigned_abs(), blocks * OURS, "every transfer paid its invoice");
}

struct Throughput {
    blocks: u64,
    time: Duration,
}

/// Returns the median throughput, in thousandths of a block per second.
fn per_second(samples: impl Iterator<Item = Throughput>) -> u64 {
    let rate = |turn: Throughput| thousandths(turn.blocks * 1_000_000_000, nanos(turn.time));
    quantile(&sorted(samples.map(rate)), 2)
}

fn chain_id() -> ChainId {
    ChainId::parse("tron").expect("the chain id is valid")
}

fn usdt() -> Asset {
    Asset::new(chain_id(), AssetKind::Token { contract: encode_tron_address(TOKEN).text }, "USDT", 6, 6)
}

fn driver(url: &str) -> Tron {
    let assets = vec![Asset::new(chain_id(), AssetKind::Native, "TRX", 6, 6), usdt()];
    let pool = rpc::Config::new(vec![rpc::Endpoint::new(url).expect("the URL is valid")]);
    Tron::from_config(TronConfig { chain: chain_id(), chain_id: CHAIN_ID, assets, pool })
        .expect("the driver configuration is valid")
}

/// Reads the blocks of one measurement with the driver alone.
async fn measure_reading(driver: &Tron, watched: &WatchSet) -> Throughput {
    let start = Instant::now();
    let (mut from, mut found) = (FIRST + 1, 0);
    while from <= FIRST + BLOCKS {
        let blocks = driver.blocks(from, FIRST + BLOCKS, watched).await.expect("the server has every block");
        from += u64::try_from(blocks.len()).expect("the number is small");
        found += blocks.iter().map(|block| block.transfers.len()).sum::<usize>();
    }
    assert_eq!(u64::try_from(found).expect("the number is small"), BLOCKS * OURS);
    Throughput { blocks: BLOCKS, time: start.elapsed() }
}

/// The follow worker of the daemon, on a database with an open invoice for every address.
struct BenchFollower {
    db: Db,
    worker: FollowWorker,
}

impl BenchFollower {
    async fn start(url: &str, file: &SqliteFile) -> BenchFollower {
        let db = file.open().await;
        let watched = Arc::new(WatchSet::default());
        (1..=MANY).for_each(|number| watched.insert(invoice_address(number)));
        let chain = FollowedChain {
            id: chain_id(),
            family: Family::Tron,
            mode: Mode::Test,
            depths: Depths::depths_without_tiers(1, 27),
            watched,
            siblings: Vec::new(),
            dust: Dust::default(),
        };
        let chain_id = chain.id.clone();
        let deposits = DepositService::new(
            chain,
            DepositLimits { grace: Grace { ms: 60_000 }, keep: 512 },
            Arc::new(PaymentChangeHandler),
        );
        let reconciler = BalanceReconciler::new(db.clone(), Clock::manual(NOW), deposits, Arc::new(driver(url)));
        let limits = FollowLimits {
            batch: 100,
            tip_age_max_ms: i64::MAX,
            quiet_tip_max_ms: None,
            start_height: Some(FIRST),
            cursor_flush_ms: 0,
            balance_patience_ms: 0,
        };
        let (addresses, assets) = (Arc::new(Addresses::default()), Arc::new(Assets::default()));
        let readiness = ChainReadiness::new(chain_id, addresses, assets, Health::default());
        BenchFollower { db, worker: FollowWorker::new(reconciler, readiness, vec![usdt()], limits, Duration::ZERO) }
    }

    /// Runs the worker until [`BLOCKS`] more blocks are stored. A batch may store a few more.
    async fn follow(&self) -> Throughput {
        let (start, before) = (Instant::now(), self.cursor().await);
        loop {
            let ran = self.worker.run_once().await.expect("blocks are applied");
            let blocks = self.cursor().await - before;
            if blocks >= BLOCKS {
                return Throughput { blocks, time: start.elapsed() };
            }
            assert_eq!(ran, Ran::Worked, "the server has more");
        }
    }

    /// Returns the height of the last stored block.
    async fn cursor(&self) -> u64 {
        let cursor = self.db.read("find_cursor", |tx| Box::pin(async { cursors::find_cursor(tx, &chain_id()).await }));
        let cursor = cursor.await.expect("the database opens");
        cursor.and_then(|cursor| cursor.recent.last().copied()).map_or(FIRST, |block| block.height)
    }
}

fn prepare_answers() -> PreparedAnswers {
    let mut answers = PreparedAnswers { blocks: Vec::new(), receipts: Vec::new() };
    let mut parent = BlockRef { height: 0, hash: BlockHash(genesis()) };
    for height in 1..=TOP {
        let (transactions, receipts) = payments(height, parent);
        let header = HeaderRaw {
            timestamp: NOW.0 + i64::try_from(height).expect("the number is small") * 3_000,
            // The driver checks only whether the root is zero.
            tx_trie_root: vec![1; 32],
            parent_hash: parent.hash.0.to_vec(),
            number: i64::try_from(height).expect("the number is small"),
            witness_address: address::to_prefixed_bytes(AddressKey([1; 20])),
            version: 34,
            ..HeaderRaw::default()
        };
        let mut id: [u8; 32] = Sha256::digest(header.encode_to_vec()).into();
        id[..8].copy_from_slice(&height.to_be_bytes());
        parent = BlockRef { height, hash: BlockHash(id) };
        let block = json!({
            "blockID": const_hex::encode(id),
            "block_header": { "raw_data": {
                "number": header.number, "timestamp": header.timestamp, "version": header.version,
                "txTrieRoot": const_hex::encode(&header.tx_trie_root), "parentHash": const_hex::encode(&header.parent_hash),
                "witness_address": const_hex::encode(&header.witness_address),
            } },
            "transactions": transactions,
        });
        answers.blocks.push(block.to_string());
        answers.receipts.push(Value::Array(receipts).to_string());
    }
    answers
}

fn genesis() -> [u8; 32] {
    let mut id = [0; 32];
    id[28..].copy_from_slice(&CHAIN_ID.to_be_bytes());
    id
}

fn payments(height: u64, reference: BlockRef) -> (Vec<Value>, Vec<Value>) {
    let sender = |number: u64| holder(height * 1_000 + number);
    // Invoices are paid in the order of their numbers, which begin with 1, starting with the block above `FIRST`.
    let mut payees = (0..OURS).map(|ours| invoice_address(height.saturating_sub(FIRST + 1) * OURS + ours + 1));
    let mut transactions = Vec::new();
    let mut receipts = Vec::new();
    for number in 0..TRANSACTIONS {
        let calls = number % 2 == 1;
        let ours = if calls && height > FIRST { payees.next() } else { None };
        let to = ours.unwrap_or_else(|| sender(number));
        let timestamp = i64::try_from(height * 1_000 + number).expect("the number is small");
        let params = TransactionParams::without_fee_limit(reference, timestamp + 60_000, timestamp);
        let amount = Amount::from(DUE);
        let operation = if calls {
            Operation::Trigger { contract: TOKEN, call_value: 0, data: abi::encode_transfer_call(to, amount) }
        } else {
            Operation::Transfer { to, sun: 1_500_000 }
        };
        let unsigned = transaction::build_transaction(sender(number + 500), &operation, &params);
        let raw = const_hex::encode(&unsigned.raw);
        transactions.push(json!({
            "ret": [{ "contractRet": "SUCCESS" }], "signature": ["00".repeat(65)], "txID": unsigned.txid.to_string(),
            "raw_data": { "contract": [{ "parameter": { "value": { "data": raw, "amount": 1_500_000 },
                "type_url": "type.googleapis.com/protocol.TransferContract" }, "type": "TransferContract" }],
                "ref_block_bytes": "262d", "ref_block_hash": "52bfa4b2814f816f", "expiration": timestamp },
            "raw_data_hex": raw,
        }));
        let word = |address: AddressKey| format!("{}{}", "0".repeat(24), const_hex::encode(address.0));
        let log = json!([{ "address": const_hex::encode(TOKEN.0),
            "topics": [abi::TRANSFER_TOPIC, word(sender(number + 500)), word(to)],
            "data": const_hex::encode(amount.to_be_bytes()) }]);
        let mut receipt = json!({ "id": unsigned.txid.to_string(), "fee": 267_000, "blockNumber": height,
            "blockTimeStamp": height * 3_000, "contractResult": [""], "receipt": { "net_fee": 267_000 } });
        if calls {
            receipt["receipt"]["result"] = json!("SUCCESS");
            receipt["log"] = log;
        }
        receipts.push(receipt);
    }
    (transactions, receipts)
}

async fn serve_answers(answers: Arc<PreparedAnswers>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the machine has a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
    let app = Router::new().fallback(serve).with_state(answers);
    #[expect(clippy::disallowed_methods, reason = "the server of a benchmark is not a task of the daemon")]
    tokio::spawn(async move { axum::serve(listener, app).await.expect("the server runs until the process ends") });
    url
}

async fn serve(State(answers): State<Arc<PreparedAnswers>>, uri: Uri, body: Bytes) -> String {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let at = |field: &str| usize::try_from(request[field].as_u64().unwrap_or(0)).unwrap_or(0);
    match uri.path().rsplit('/').next() {
        Some("getblockbylimitnext") => {
            format!("{{\"block\":[{}]}}", answers.blocks[at("startNum") - 1..at("endNum") - 1].join(","))
        }
        Some("gettransactioninfobyblocknum") => answers.receipts[at("num") - 1].clone(),
        Some("getblock") => {
            let height =
                request["id_or_num"].as_str().and_then(|text| text.parse().ok()).unwrap_or(answers.blocks.len());
            answers.blocks[height - 1].clone()
        }
        Some("triggerconstantcontract") => {
            json!({ "result": { "result": true }, "constant_result": [format!("{:064x}", 6)] }).to_string()
        }
        _ => json!({ "blockID": const_hex::encode(genesis()) }).to_string(),
    }
}
