//! P3 to P6: reading the 10,000 logs of a block costs little more than decoding them, however many addresses are watched.

use std::hint::black_box;

use chain::{AddressKey, WatchSet};
use cpu_time::ThreadTime;
use evm::logs::{EventLog, for_each_watched_transfer_in_reply};
use evm::token_contracts::TokenContracts;
use serde::Deserialize;

use crate::databases;
use crate::node_answers;
use crate::report::{Bounds, Report, take_samples};
use crate::usdt::{self, holder};

const ROUNDS: usize = 15;
const LOGS: u64 = 10_000;
const HITS: u64 = 10;
const WATCHED: u64 = 1_000_000;
/// The first number of addresses that are not watched, above the numbers of all watched ones.
const STRANGERS: u64 = 50_000_000;

/// Measures and reports P3 to P6.
pub fn run(report: &mut Report) {
    if report.wants(&["P4"]) {
        let bounds = Bounds::AtMost { gate: 96_000, goal: 56_000 };
        report.plain("P4", "memory for each watched address, 10⁵ to 10⁶", "B", bounds, bytes_per_address() * 1_000);
    }
    let watched = watch(0, WATCHED);
    if report.wants(&["P3"]) {
        look_up(report, &watched);
    }
    let to = (0..LOGS).map(|log| holder(if log % (LOGS / HITS) == 0 { log } else { STRANGERS + log }));
    let body = node_answers::log_answer(to);
    let contracts = TokenContracts::from_assets(&[usdt::asset()]).expect("the contract is valid");
    let decode = || {
        let start = ThreadTime::now();
        let logs: Vec<EventLog<'_>> = rpc::Reply::new(0, 200, &body).parse_result().expect("the logs are valid");
        assert_eq!(logs.len(), 10_000);
        black_box(logs);
        start.elapsed()
    };
    if report.wants(&["P5"]) {
        let decode_and_match = || {
            let start = ThreadTime::now();
            let mut hits = 0;
            let found =
                for_each_watched_transfer_in_reply(&body, &watched.lock_addresses(), &contracts, |_, _| hits += 1)
                    .expect("the logs are valid");
            assert_eq!((found, hits), (10_000, HITS));
            start.elapsed()
        };
        let bounds = Bounds::AtMost { gate: 1_250, goal: 1_120 };
        let samples = take_samples(ROUNDS, LOGS, decode, decode_and_match);
        report.ratio("P5", "decode + match with 10⁶ watched, each log", bounds, &samples);
    }
    if report.wants(&["P6"]) {
        let plain = || {
            let start = ThreadTime::now();
            let answer: PlainAnswer<'_> = serde_json::from_slice(&body).expect("the logs are valid");
            assert_eq!(answer.result.len(), 10_000);
            black_box(answer);
            start.elapsed()
        };
        let bounds = Bounds::AtMost { gate: 2_000, goal: 1_100 };
        let samples = take_samples(ROUNDS, LOGS, plain, decode);
        report.ratio("P6", "decode, each log", bounds, &samples);
    }
}

fn watch(from: u64, to: u64) -> WatchSet {
    let watched = WatchSet::default();
    for number in from..to {
        watched.insert(holder(number));
    }
    watched
}

fn look_up(report: &mut Report, watched: &WatchSet) {
    const LOOK_UPS: u64 = 200_000;
    let state = ahash::RandomState::default();
    let mut plain: hashbrown::HashSet<AddressKey, ahash::RandomState> = hashbrown::HashSet::with_hasher(state);
    plain.extend((0..WATCHED).map(holder));
    // One look-up in a thousand finds its address, and the look-ups are scattered over the whole table.
    let wanted: Vec<AddressKey> =
        (0..LOOK_UPS).map(|n| holder(if n % 1_000 == 0 { n * 5 } else { STRANGERS + n * 131 })).collect();
    let limit = || {
        let start = ThreadTime::now();
        let found = wanted.iter().filter(|key| plain.contains(*key)).count();
        assert_eq!(black_box(found), 200);
        start.elapsed()
    };
    let read = watched.lock_addresses();
    let ours = || {
        let start = ThreadTime::now();
        let found = wanted.iter().filter(|key| read.contains(key)).count();
        assert_eq!(black_box(found), 200);
        start.elapsed()
    };
    let bounds = Bounds::AtMost { gate: 1_500, goal: 1_000 };
    let samples = take_samples(ROUNDS, LOOK_UPS, limit, ours);
    report.ratio("P3", "watch look-up among 10⁶", bounds, &samples);
}

/// Returns the memory per watched address in bytes, measured between 100,000 and 1,000,000 addresses.
fn bytes_per_address() -> u64 {
    let watched = watch(0, WATCHED / 10);
    let before = resident_bytes();
    for number in WATCHED / 10..WATCHED {
        watched.insert(holder(number));
    }
    let grown = resident_bytes().saturating_sub(before);
    assert_eq!(watched.len(), 1_000_000);
    grown / (WATCHED - WATCHED / 10)
}

fn resident_bytes() -> u64 {
    databases::resident_bytes("self")
}

/// The simplest struct that borrows all fields of a log.
#[derive(Deserialize)]
struct PlainAnswer<'a> {
    #[serde(borrow)]
    result: Vec<PlainLog<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only the decoding is measured")]
struct PlainLog<'a> {
    address: &'a str,
    #[serde(borrow)]
    topics: [&'a str; 3],
    data: &'a str,
    block_hash: &'a str,
    block_number: &'a str,
    transaction_hash: &'a str,
    transaction_index: &'a str,
    log_index: &'a str,
    removed: bool,
}
