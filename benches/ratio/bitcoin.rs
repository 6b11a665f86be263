//! P7: the time to decode a Bitcoin block and to match and verify its transactions, compared with decoding by rust-bitcoin.

use std::hint::black_box;

use ::bitcoin::absolute::LockTime;
use ::bitcoin::block::{Header, Version as BlockVersion};
use ::bitcoin::hashes::Hash;
use ::bitcoin::transaction::Version;
use ::bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Txid, WPubkeyHash, Witness, WitnessMerkleNode, consensus,
};
use btc::{AddressType, block};
use chain::WatchSet;
use cpu_time::ThreadTime;

use crate::databases::invoice_address;
use crate::report::{Bounds, Report, take_samples};

const ROUNDS: usize = 15;
const BLOCKS: usize = 4;
const WATCHED: u64 = 1_000_000;
/// The number of watched unspent outputs.
const OUTPUTS: u64 = 100_000;
/// The number of transactions in a typical full block, which has 1.7 MB and 8,000 outputs.
const TRANSACTIONS: u64 = 3_200;
const HITS: usize = 10;
/// The first number of addresses that are not watched, above the numbers of all watched ones.
const STRANGERS: u64 = 50_000_000;

/// Measures and reports P7.
pub fn run(report: &mut Report) {
    let watched = WatchSet::with_capacity(usize::try_from(WATCHED).expect("the number fits the platform"));
    for number in 0..WATCHED {
        watched.insert(invoice_address(number));
    }
    let output = |number: u64| chain::OutPoint { txid: chain::TxId(*txid(WATCHED + number).as_byte_array()), vout: 0 };
    watched.insert_outputs((0..OUTPUTS).map(output));
    let full = full_block();
    let outputs = full.txdata.iter().map(|tx| tx.output.len()).sum::<usize>();
    let bytes = consensus::serialize(&full);
    let hex = const_hex::encode(&bytes);
    eprintln!("P7: {} bytes, {} transactions, {outputs} outputs", bytes.len(), full.txdata.len());
    let plain = || {
        let start = ThreadTime::now();
        for _ in 0..BLOCKS {
            let block: Block = consensus::deserialize(&bytes).expect("the block is valid");
            assert_eq!(block.txdata.len(), full.txdata.len());
            black_box(block);
        }
        start.elapsed()
    };
    let ours = |prove: bool| {
        let (bytes, watched) = (&bytes, &watched);
        move || {
            let start = ThreadTime::now();
            for _ in 0..BLOCKS {
                let body = block::parse_block_with_optional_root_check(
                    bytes,
                    AddressType::P2wpkh,
                    prove,
                    &watched.lock_addresses(),
                )
                .expect("the block is valid");
                assert_eq!(body.outputs.len(), HITS);
                black_box((
                    body,
                    block::find_watched_spends(bytes, &watched.lock_outputs()).expect("the block is valid"),
                ));
            }
            start.elapsed()
        }
    };
    let items = u64::try_from(BLOCKS).expect("the number is small");
    let bounds = Bounds::AtMost { gate: 1_300, goal: 700 };
    let matched = take_samples(ROUNDS, items, plain, ours(false));
    report.ratio("P7", "block decoded and matched with 10⁶ watched", bounds, &matched);
    let proven = take_samples(ROUNDS, items, plain, ours(true));
    report.ratio("P7", "the same with both roots computed again", Bounds::Informative, &proven);
    let from_hex = || {
        let start = ThreadTime::now();
        for _ in 0..BLOCKS {
            let bytes = const_hex::decode(&hex).expect("the text is hexadecimal");
            let body = block::parse_block_with_optional_root_check(
                &bytes,
                AddressType::P2wpkh,
                false,
                &watched.lock_addresses(),
            )
            .expect("the block is valid");
            black_box((body, block::find_watched_spends(&bytes, &watched.lock_outputs()).expect("the block is valid")));
        }
        start.elapsed()
    };
    let answered = take_samples(ROUNDS, items, plain, from_hex);
    report.ratio("P7", "block out of a node's hexadecimal answer", bounds, &answered);
}

/// Returns a full block of typical transactions with witnesses: one to four inputs and two or three outputs. Ten outputs
/// belong to watched addresses.
fn full_block() -> Block {
    let mut txdata = vec![coinbase(None)];
    for number in 1..=TRANSACTIONS {
        let ours = number % (TRANSACTIONS / 10) == 0;
        let receiver = |index: u64| if ours && index == 0 { number } else { STRANGERS + number * 4 + index };
        let output = |index| TxOut { value: Amount::from_sat(10_000 + number), script_pubkey: script(receiver(index)) };
        let input = |index: u64| TxIn {
            previous_output: OutPoint::new(txid(number * 4 + index), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::from_slice(&[vec![7; 71], vec![3; 33]]),
        };
        txdata.push(Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: (0..1 + number % 4).map(input).collect(),
            output: (0..2 + number % 2).map(output).collect(),
        });
    }
    let header = Header {
        version: BlockVersion::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1_770_811_200,
        bits: CompactTarget::from_consensus(0x1702_8000),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    let witnesses = block.witness_root().expect("the block has transactions");
    block.txdata[0] = coinbase(Some(witnesses));
    block.header.merkle_root = block.compute_merkle_root().expect("the block has transactions");
    block
}

/// Returns the coinbase transaction, with the witness commitment if the witness root is given.
fn coinbase(witnesses: Option<WitnessMerkleNode>) -> Transaction {
    let reserved = [0; 32];
    let mut output = vec![TxOut { value: Amount::from_sat(312_500_000), script_pubkey: script(STRANGERS) }];
    if let Some(root) = witnesses {
        let commitment = Block::compute_witness_commitment(&root, &reserved);
        let script = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], commitment.as_ref()].concat();
        output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) });
    }
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: ScriptBuf::from_bytes(vec![3, 1, 2, 3]),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[reserved]),
    };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output }
}

fn script(account_number: u64) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(invoice_address(account_number).0))
}

fn txid(number: u64) -> Txid {
    Txid::hash(&number.to_le_bytes())
}
