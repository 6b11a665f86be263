//! Solidified blocks of TRON per second, over HTTP from a server that only hands out what was made before: read and matched
//! by the driver alone, and applied by the worker that follows the chain, which books and settles what they pay.
//!
//! A block has 250 transactions, as TRON's do on a busy day: half are payments of TRX, half of USDT. Two of them are ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use chain::derive::tron_address;
use chain::{AddressKey, Amount, Asset, AssetKind, BlockHash, BlockRef, ChainId, Family, Source, WatchSet};
use clock::Clock;
use db::Db;
use ids::Mode;
use money::addresses::Addresses;
use money::assets::{Depths, Dust, FollowedChain};
use money::deposits::{self, DepositService, Grace};
use prost::Message;
use serde_json::{Value, json};
use settled::workers::balance_check::BalanceReconciler;
use settled::workers::follow::{FollowWorker, Limits};
use settled::workers::{Ran, Worker};
use sha2::{Digest, Sha256};
use shop::orders::PaymentChangeHandler;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tron::proto::HeaderRaw;
use tron::transaction::{self, Operation, TransactionParams};
use tron::{Tron, TronConfig, abi, address};

use crate::accounts::stranger;
use crate::books::{DUE, NOW, SqliteFile, account};
use crate::report::{Bounds, Report, nanos, quantile, sorted, thousandths};

const CHAIN_ID: u32 = 7;
/// Of a turn.
const BLOCKS: u64 = 150;
const TURNS: u64 = 3;
/// The block from which on the chain is followed; those above it are read.
const FIRST: u64 = 1;
/// More than the turns need: a batch may run past their end.
const TOP: u64 = FIRST + BLOCKS * TURNS + 300;
const TRANSACTIONS: u64 = 250;
/// Of each block, in USDT: they pay the invoices one after the other.
const OURS: u64 = 2;
const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
const TOKEN: AddressKey = AddressKey([0xaa; 20]);

/// What the server says, by height.
struct Made {
    blocks: Vec<String>,
    receipts: Vec<String>,
}

pub fn run(report: &mut Report, runtime: &Runtime) {
    let made = Arc::new(make());
    let url = runtime.block_on(open(made));
    for addresses in [FEW, MANY] {
        let watched = Arc::new(WatchSet::default());
        (1..=addresses).for_each(|number| watched.insert(account(number)));
        let driver = driver(&url);
        let read = (0..TURNS).map(|_| runtime.block_on(read(&driver, &watched)));
        let metric = format!("solidified blocks/s read and matched, {addresses} watched");
        report.plain("TRON", metric, "/s", Bounds::Told, per_second(read));
    }
    let file = runtime.block_on(SqliteFile::filled(&usdt(), MANY));
    let follower = runtime.block_on(Follower::start(&url, &file));
    let applied = per_second((0..TURNS).map(|_| runtime.block_on(follower.follow())));
    report.plain("TRON", format!("solidified blocks/s applied, {MANY} watched"), "/s", Bounds::Told, applied);
    let blocks = runtime.block_on(follower.cursor()) - FIRST;
    let paid = "select count(*) from invoices where state = 'paid'";
    let paid: i64 = file.connect().query_row(paid, [], |row| row.get(0)).expect("a count");
    assert_eq!(paid.unsigned_abs(), blocks * OURS, "every payment paid its invoice");
}

struct Turn {
    blocks: u64,
    time: Duration,
}

/// The median turn, in thousandths of a block per second.
fn per_second(turns: impl Iterator<Item = Turn>) -> u64 {
    let rate = |turn: Turn| thousandths(turn.blocks * 1_000_000_000, nanos(turn.time));
    quantile(&sorted(turns.map(rate)), 2)
}

fn chain_id() -> ChainId {
    ChainId::new("tron").expect("a name")
}

fn usdt() -> Asset {
    Asset::new(chain_id(), AssetKind::Token { contract: tron_address(TOKEN).text }, "USDT", 6, 6)
}

fn driver(url: &str) -> Tron {
    let assets = vec![Asset::new(chain_id(), AssetKind::Native, "TRX", 6, 6), usdt()];
    let pool = rpc::Config::new(vec![rpc::Endpoint::new(url).expect("an address")]);
    Tron::new(TronConfig { chain: chain_id(), chain_id: CHAIN_ID, assets, pool }).expect("a driver")
}

/// The blocks of one turn, and nothing done with them.
async fn read(driver: &Tron, watched: &WatchSet) -> Turn {
    let start = Instant::now();
    let (mut from, mut found) = (FIRST + 1, 0);
    while from <= FIRST + BLOCKS {
        let blocks = driver.blocks(from, FIRST + BLOCKS, watched).await.expect("the server has every block");
        from += u64::try_from(blocks.len()).expect("few");
        found += blocks.iter().map(|block| block.transfers.len()).sum::<usize>();
    }
    assert_eq!(u64::try_from(found).expect("few"), BLOCKS * OURS);
    Turn { blocks: BLOCKS, time: start.elapsed() }
}

/// The worker of the daemon, on a database with an open invoice for every address.
struct Follower {
    db: Db,
    worker: FollowWorker,
}

impl Follower {
    async fn start(url: &str, file: &SqliteFile) -> Follower {
        let db = file.open().await;
        let watched = Arc::new(WatchSet::default());
        (1..=MANY).for_each(|number| watched.insert(account(number)));
        let chain = FollowedChain {
            id: chain_id(),
            family: Family::Tron,
            mode: Mode::Test,
            depths: Depths::flat(1, 27),
            watched,
            siblings: Vec::new(),
            dust: Dust::default(),
        };
        let deposits = DepositService::new(
            chain,
            deposits::Limits { grace: Grace { ms: 60_000 }, keep: 512 },
            Arc::new(PaymentChangeHandler),
        );
        let reconciler = BalanceReconciler::new(db.clone(), Clock::manual(NOW), deposits, Arc::new(driver(url)));
        let limits = Limits {
            batch: 100,
            tip_age_max_ms: i64::MAX,
            quiet_tip_max_ms: None,
            start_height: Some(FIRST),
            cursor_flush_ms: 0,
            probe_patience_ms: 0,
        };
        let addresses = Arc::new(Addresses::default());
        Follower { db, worker: FollowWorker::new(reconciler, addresses, vec![usdt()], limits, Duration::ZERO) }
    }

    /// Until so many more blocks are stored; a batch may bring a few too many.
    async fn follow(&self) -> Turn {
        let (start, before) = (Instant::now(), self.cursor().await);
        loop {
            let ran = self.worker.run().await.expect("blocks are applied");
            let blocks = self.cursor().await - before;
            if blocks >= BLOCKS {
                return Turn { blocks, time: start.elapsed() };
            }
            assert_eq!(ran, Ran::Worked, "the server has more");
        }
    }

    /// The height of the last block that is stored.
    async fn cursor(&self) -> u64 {
        let cursor = self.db.read("load_cursor", |tx| Box::pin(async { deposits::cursor(tx, &chain_id()).await }));
        let cursor = cursor.await.expect("a database");
        cursor.and_then(|cursor| cursor.recent.last().copied()).map_or(FIRST, |block| block.height)
    }
}

fn make() -> Made {
    let mut made = Made { blocks: Vec::new(), receipts: Vec::new() };
    let mut parent = BlockRef { height: 0, hash: BlockHash(genesis()) };
    for height in 1..=TOP {
        let (transactions, receipts) = payments(height, parent);
        let header = HeaderRaw {
            timestamp: NOW.0 + i64::try_from(height).expect("few") * 3_000,
            // Not recomputed by the driver; only whether it is there.
            tx_trie_root: vec![1; 32],
            parent_hash: parent.hash.0.to_vec(),
            number: i64::try_from(height).expect("few"),
            witness_address: address::to_bytes(AddressKey([1; 20])),
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
        made.blocks.push(block.to_string());
        made.receipts.push(Value::Array(receipts).to_string());
    }
    made
}

fn genesis() -> [u8; 32] {
    let mut id = [0; 32];
    id[28..].copy_from_slice(&CHAIN_ID.to_be_bytes());
    id
}

fn payments(height: u64, reference: BlockRef) -> (Vec<Value>, Vec<Value>) {
    let stranger = |number: u64| stranger(height * 1_000 + number);
    // Invoices are paid in the order of their numbers, which begin with 1, from the block above the first on.
    let mut payees = (0..OURS).map(|ours| account(height.saturating_sub(FIRST + 1) * OURS + ours + 1));
    let mut transactions = Vec::new();
    let mut receipts = Vec::new();
    for number in 0..TRANSACTIONS {
        let calls = number % 2 == 1;
        let ours = if calls && height > FIRST { payees.next() } else { None };
        let to = ours.unwrap_or_else(|| stranger(number));
        let timestamp = i64::try_from(height * 1_000 + number).expect("few");
        let frame = TransactionParams::new(reference, timestamp + 60_000, timestamp);
        let amount = Amount::from(DUE);
        let act = if calls {
            Operation::Trigger { contract: TOKEN, call_value: 0, data: abi::transfer(to, amount) }
        } else {
            Operation::Transfer { to, sun: 1_500_000 }
        };
        let draft = transaction::build(stranger(number + 500), &act, &frame);
        let raw = const_hex::encode(&draft.raw);
        transactions.push(json!({
            "ret": [{ "contractRet": "SUCCESS" }], "signature": ["00".repeat(65)], "txID": draft.txid.to_string(),
            "raw_data": { "contract": [{ "parameter": { "value": { "data": raw, "amount": 1_500_000 },
                "type_url": "type.googleapis.com/protocol.TransferContract" }, "type": "TransferContract" }],
                "ref_block_bytes": "262d", "ref_block_hash": "52bfa4b2814f816f", "expiration": timestamp },
            "raw_data_hex": raw,
        }));
        let word = |of: AddressKey| format!("{}{}", "0".repeat(24), const_hex::encode(of.0));
        let log = json!([{ "address": const_hex::encode(TOKEN.0),
            "topics": [abi::TRANSFER_TOPIC, word(stranger(number + 500)), word(to)],
            "data": const_hex::encode(amount.to_be_bytes()) }]);
        let mut receipt = json!({ "id": draft.txid.to_string(), "fee": 267_000, "blockNumber": height,
            "blockTimeStamp": height * 3_000, "contractResult": [""], "receipt": { "net_fee": 267_000 } });
        if calls {
            receipt["receipt"]["result"] = json!("SUCCESS");
            receipt["log"] = log;
        }
        receipts.push(receipt);
    }
    (transactions, receipts)
}

async fn open(made: Arc<Made>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let app = Router::new().fallback(serve).with_state(made);
    #[expect(clippy::disallowed_methods, reason = "a server of a bench has no home among the daemon's tasks")]
    tokio::spawn(async move { axum::serve(listener, app).await.expect("the listener lives") });
    url
}

async fn serve(State(made): State<Arc<Made>>, uri: Uri, body: Bytes) -> String {
    let question: Value = serde_json::from_slice(&body).unwrap_or_default();
    let at = |field: &str| usize::try_from(question[field].as_u64().unwrap_or(0)).unwrap_or(0);
    match uri.path().rsplit('/').next() {
        Some("getblockbylimitnext") => {
            format!("{{\"block\":[{}]}}", made.blocks[at("startNum") - 1..at("endNum") - 1].join(","))
        }
        Some("gettransactioninfobyblocknum") => made.receipts[at("num") - 1].clone(),
        Some("getblock") => {
            let height = question["id_or_num"].as_str().and_then(|text| text.parse().ok()).unwrap_or(made.blocks.len());
            made.blocks[height - 1].clone()
        }
        Some("triggerconstantcontract") => {
            json!({ "result": { "result": true }, "constant_result": [format!("{:064x}", 6)] }).to_string()
        }
        _ => json!({ "blockID": const_hex::encode(genesis()) }).to_string(),
    }
}
