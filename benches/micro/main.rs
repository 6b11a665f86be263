//! Time and allocations of the hot paths per item. Allocation counts are exact, so they can be compared between machines.

#[path = "../usdt/mod.rs"]
mod usdt;
#[path = "../node_answers/mod.rs"]
mod node_answers;

use std::hint::black_box;

use chain::{AddressKey, Amount, Deriver, WatchSet, address::AddressScheme};
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};
use evm::logs::for_each_watched_transfer_in_reply;
use evm::token_contracts::TokenContracts;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// The account key of the example in BIP84; it is public and holds no money.
const XPUB: &str =
    "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";

fn main() {
    divan::main();
}

#[divan::bench(args = ["bitcoin", "evm", "tron"])]
fn address(bencher: Bencher, family: &str) {
    let scheme = match family {
        "bitcoin" => AddressScheme::P2wpkh(bitcoin::KnownHrp::Mainnet),
        "evm" => AddressScheme::Evm,
        _ => AddressScheme::Tron,
    };
    let deriver = Deriver::from_account_key(XPUB, scheme).expect("the account key is valid");
    let mut index = 0;
    bencher.counter(ItemsCount::new(1u32)).bench_local(|| {
        index += 1;
        deriver.derive_address(index).expect("the index is valid")
    });
}

/// Reads a thousand logs without and with one payment to a watched address. The difference is the cost of a match.
#[divan::bench(args = [0, 1])]
fn a_thousand_logs(bencher: Bencher, hits: u64) {
    let watched = WatchSet::default();
    let ours = AddressKey([1; 20]);
    watched.insert(ours);
    let to = (0..1_000u64).map(|number| if number < hits { ours } else { usdt::holder(number) });
    let body = node_answers::log_answer(to);
    let contracts = TokenContracts::from_assets(&[usdt::asset()]).expect("the contract is valid");
    bencher.counter(ItemsCount::new(1_000u32)).counter(BytesCount::new(body.len())).bench_local(|| {
        let mut found = 0;
        for_each_watched_transfer_in_reply(black_box(&body), &watched.lock_addresses(), &contracts, |_, _| found += 1)
            .map(|_| found)
    });
}

#[divan::bench]
fn watch_look_up(bencher: Bencher) {
    let watched = WatchSet::default();
    for number in 0..100_000 {
        watched.insert(usdt::holder(number));
    }
    let read = watched.lock_addresses();
    let mut number = 0;
    bencher.counter(ItemsCount::new(1u32)).bench_local(|| {
        number = (number + 7_919) % 200_000;
        read.contains(&usdt::holder(number))
    });
}

#[divan::bench(args = ["1", "0.690608", "1234567.000001"])]
fn amount_from_text(bencher: Bencher, text: &str) {
    bencher.counter(ItemsCount::new(1u32)).bench_local(|| Amount::parse_decimal(black_box(text), 6));
}

#[divan::bench(args = [690_608u64, 1_234_567_000_001])]
fn amount_to_text(bencher: Bencher, units: u64) {
    bencher.counter(ItemsCount::new(1u32)).bench_local(|| black_box(Amount::from(units)).to_decimal(6));
}
