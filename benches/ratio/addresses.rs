//! P1 and P2: the derivation of an address costs one curve operation and little more.

use std::hint::black_box;
use std::time::Duration;

use bitcoin::bip32::{ChildNumber, Xpub};
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha512};
use bitcoin::secp256k1::{Scalar, Secp256k1};
use chain::{Deriver, address::AddressScheme, derive};
use cpu_time::ThreadTime;

use crate::report::{Bounds, Report, take_samples};

/// The account key of the example in BIP84; it is public and holds no money.
const XPUB: &str =
    "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";
const ROUNDS: usize = 15;
const ADDRESSES: u32 = 1_000;

/// Measures and reports P1 and P2.
pub fn run(report: &mut Report) {
    let bounds = Bounds::AtMost { gate: 1_300, goal: 1_100 };
    for (name, scheme) in [
        ("EVM", AddressScheme::Evm),
        ("TRON", AddressScheme::Tron),
        ("Bitcoin", AddressScheme::P2wpkh(bitcoin::KnownHrp::Mainnet)),
    ] {
        let deriver = Deriver::from_account_key(XPUB, scheme).expect("the account key is valid");
        let ours = || {
            let start = ThreadTime::now();
            for index in 0..ADDRESSES {
                black_box(deriver.derive_address(index).expect("the index is valid"));
            }
            start.elapsed()
        };
        let samples = take_samples(ROUNDS, u64::from(ADDRESSES), limit(), ours);
        report.ratio("P1", format!("address text from the account key, {name}"), bounds, &samples);
    }

    let before = derive::count_derivations();
    let deriver = Deriver::from_account_key(XPUB, AddressScheme::Evm).expect("the account key is valid");
    for index in 0..100 {
        deriver.derive_address(index).expect("the index is valid");
    }
    let each = (derive::count_derivations() - before) * 1_000 / 100;
    report.plain("P2", "curve operations for each address", "", Bounds::Exactly(1_000), each);
}

/// Returns a closure that measures the limit: HMAC-SHA512 and `P + t·G` with libsecp256k1, and nothing else.
fn limit() -> impl FnMut() -> Duration {
    let account: Xpub = XPUB.parse().expect("the account key is valid");
    let curve = Secp256k1::verification_only();
    let zero = [ChildNumber::from_normal_idx(0).expect("the index is valid")];
    let external = account.derive_pub(&curve, &zero).expect("the external chain can be derived");
    let compressed = external.public_key.serialize();
    move || {
        let start = ThreadTime::now();
        for index in 0..ADDRESSES {
            let mut engine = HmacEngine::<sha512::Hash>::new(external.chain_code.as_ref());
            engine.input(&compressed);
            engine.input(&index.to_be_bytes());
            let hash = Hmac::from_engine(engine).to_byte_array();
            let tweak: [u8; 32] = hash[..32].try_into().expect("the slice has 32 bytes");
            let tweak = Scalar::from_be_bytes(tweak).expect("the tweak is below the order of the curve");
            black_box(external.public_key.add_exp_tweak(&curve, &tweak).expect("the result is a valid point"));
        }
        start.elapsed()
    }
}
