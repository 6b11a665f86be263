//! Solidified blocks read and matched per second, over HTTP from a server that only hands out what was made before.
//!
//! `cargo bench -p tron` prints what a block costs with a thousand and with a million watched addresses. A block has 250
//! transactions, as TRON's do on a busy day: half are payments of TRX, half of USDT, one of each is ours.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Bytes, extract::State, http::Uri};
use chain::{
    AddressKey, Amount, Asset, AssetKind, BlockHash, BlockRef, ChainId, Source, WatchSet, derive::tron_address,
};
use cpu_time::ProcessTime;
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, time::Instant};
use tron::{
    Tron, TronConfig, abi, address,
    proto::HeaderRaw,
    transaction::{self, Act, Frame},
};

const CHAIN_ID: u32 = 7;
const BLOCKS: u64 = 200;
const TRANSACTIONS: u64 = 250;
const ROUNDS: usize = 5;

/// What the server says, by height.
struct Made {
    blocks: Vec<String>,
    receipts: Vec<String>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let token = AddressKey([0xaa; 20]);
    let made = Arc::new(make(token));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let app = Router::new().fallback(serve).with_state(made.clone());
    #[expect(clippy::disallowed_methods, reason = "a server of a bench has no home among the daemon's tasks")]
    tokio::spawn(async move { axum::serve(listener, app).await.expect("the listener lives") });

    let bytes = made.blocks.iter().chain(&made.receipts).map(String::len).sum::<usize>();
    println!("{BLOCKS} blocks of {TRANSACTIONS} transactions, {} kB each", bytes / 1_000 / made.blocks.len());
    for addresses in [1_000, 1_000_000] {
        let watched = WatchSet::with_capacity(1_000_000);
        (0..addresses).for_each(|number| watched.insert(account(number)));
        let mut best: Option<(Duration, Duration)> = None;
        for _ in 0..ROUNDS {
            let driver = driver(&url, token);
            let (wall, cpu) = (Instant::now(), ProcessTime::now());
            let found = read(&driver, &watched).await;
            assert_eq!(found, BLOCKS * 2, "one payment of each kind in every block");
            let taken = (wall.elapsed(), cpu.elapsed());
            best = Some(best.map_or(taken, |best| best.min(taken)));
        }
        let (wall, cpu) = best.expect("there were rounds");
        let per_second = u128::from(BLOCKS) * 1_000_000 / wall.as_micros().max(1);
        let each = cpu.as_micros() / u128::from(BLOCKS);
        println!(
            "{addresses} watched addresses: {per_second} blocks per second, {each} µs of CPU per block, server included"
        );
    }
}

fn driver(url: &str, token: AddressKey) -> Tron {
    let chain = ChainId::new("tron").expect("a name");
    let contract = tron_address(token).text;
    let assets = vec![
        Asset::new(chain.clone(), AssetKind::Native, "TRX", 6, 6),
        Asset::new(chain.clone(), AssetKind::Token { contract }, "USDT", 6, 6),
    ];
    let pool = rpc::Config::new(vec![rpc::Endpoint::new(url).expect("an address")]);
    Tron::new(TronConfig { chain, chain_id: CHAIN_ID, assets, pool }).expect("a driver")
}

async fn read(driver: &Tron, watched: &WatchSet) -> u64 {
    let (mut from, mut found) = (1, 0);
    while from <= BLOCKS {
        let blocks = driver.blocks(from, BLOCKS.min(from + 99), watched).await.expect("the server has every block");
        from += u64::try_from(blocks.len()).expect("few");
        found += blocks.iter().map(|block| block.transfers.len()).sum::<usize>();
    }
    u64::try_from(found).expect("few")
}

/// Ours begin at zero, strangers far above.
fn account(number: u64) -> AddressKey {
    AddressKey(Sha256::digest(number.to_be_bytes())[..20].try_into().expect("20 of 32 bytes"))
}

fn make(token: AddressKey) -> Made {
    let mut made = Made { blocks: Vec::new(), receipts: Vec::new() };
    let mut parent = BlockRef { height: 0, hash: BlockHash(genesis()) };
    for height in 1..=BLOCKS {
        let (transactions, receipts) = payments(token, height, parent);
        let header = HeaderRaw {
            timestamp: i64::try_from(height).expect("few") * 3_000,
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

fn payments(token: AddressKey, height: u64, reference: BlockRef) -> (Vec<Value>, Vec<Value>) {
    let stranger = |number: u64| account(1_000_000_000 + height * 1_000 + number);
    let mut transactions = Vec::new();
    let mut receipts = Vec::new();
    for number in 0..TRANSACTIONS {
        let to = if number < 2 { account(height) } else { stranger(number) };
        let timestamp = i64::try_from(height * 1_000 + number).expect("few");
        let frame = Frame::new(reference, timestamp + 60_000, timestamp);
        let amount = Amount::from_units(12_345_678);
        let calls = number % 2 == 1;
        let act = if calls {
            Act::Trigger { contract: token, call_value: 0, data: abi::transfer(to, amount) }
        } else {
            Act::Transfer { to, sun: 1_500_000 }
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
        let log = json!([{ "address": const_hex::encode(token.0),
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

async fn serve(State(made): State<Arc<Made>>, uri: Uri, body: Bytes) -> String {
    let question: Value = serde_json::from_slice(&body).unwrap_or_default();
    let at = |field: &str| usize::try_from(question[field].as_u64().unwrap_or(0)).unwrap_or(0);
    match uri.path().rsplit('/').next() {
        Some("getblockbylimitnext") => {
            format!("{{\"block\":[{}]}}", made.blocks[at("startNum") - 1..at("endNum") - 1].join(","))
        }
        Some("gettransactioninfobyblocknum") => made.receipts[at("num") - 1].clone(),
        _ => json!({ "blockID": const_hex::encode(genesis()) }).to_string(),
    }
}
