//! Tests of broadcasts to model nodes.

use bitcoin::secp256k1::SecretKey;
use chain::{Address, BroadcastOutcome, Family};
use simnet::{
    NodeFault, Simnet, address,
    transaction::{self, Move, ReplayProtection, SignedTx, TxDraft},
};

use crate::support::{self, BITCOIN, EVM, GENESIS, TRON, block_on, chain_id, native_asset, units};

fn secret_key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn address_of_key(family: Family, byte: u8) -> Address {
    address::address_from_public_key(family, &transaction::derive_public_key(&secret_key(byte)))
}

/// Pays 1,000 units to the account of this key.
fn fund_key(simnet: &Simnet, name: &str, family: Family, byte: u8) {
    let chain = chain_id(name);
    simnet.pay(&chain, &native_asset(&chain), &address_of_key(family, byte).text, units(1_000)).unwrap();
    simnet.mine(&chain, 1, GENESIS);
}

fn draft_payment(
    name: &str,
    family: Family,
    replay_protection: ReplayProtection,
    to: &str,
    amount: u64,
    fee: u64,
) -> TxDraft {
    let chain = chain_id(name);
    let to = address::parse_address(family, to).unwrap();
    let moves = vec![Move { asset: native_asset(&chain), to, amount: units(amount), internal: false }];
    TxDraft { chain, replay_protection, moves, fee: units(fee), reverts: false }
}

fn broadcast_to_chain(simnet: &Simnet, name: &str, tx: &SignedTx) -> BroadcastOutcome {
    block_on(simnet.sender(&chain_id(name)).unwrap().broadcast(tx.raw().as_bytes()))
}

fn expect_refusal(outcome: BroadcastOutcome) -> String {
    let BroadcastOutcome::Rejected(reason) = outcome else { panic!("{outcome:?}") };
    reason
}

#[test]
fn an_account_pays_in_the_order_of_its_nonces() {
    let simnet = support::new_simnet();
    fund_key(&simnet, "ethereum", Family::Evm, 1);
    let pay = |nonce: u64, amount: u64, fee: u64| {
        draft_payment("ethereum", Family::Evm, ReplayProtection::Nonce(nonce), EVM, amount, fee)
            .sign(Family::Evm, &[secret_key(1)])
    };
    assert_eq!(
        broadcast_to_chain(&simnet, "ethereum", &pay(1, 20, 1)),
        BroadcastOutcome::Accepted,
        "it waits for the nonce before it"
    );
    simnet.mine(&chain_id("ethereum"), 1, GENESIS);
    assert_eq!(simnet.find_transaction_status(&chain_id("ethereum"), pay(1, 20, 1).txid).unwrap().confirmations, 0);
    assert_eq!(broadcast_to_chain(&simnet, "ethereum", &pay(0, 10, 1)), BroadcastOutcome::Accepted);
    assert_eq!(broadcast_to_chain(&simnet, "ethereum", &pay(0, 10, 1)), BroadcastOutcome::AlreadyKnown);
    assert_eq!(
        expect_refusal(broadcast_to_chain(&simnet, "ethereum", &pay(0, 11, 1))),
        "replacement transaction underpriced"
    );
    assert_eq!(
        broadcast_to_chain(&simnet, "ethereum", &pay(0, 11, 2)),
        BroadcastOutcome::Accepted,
        "a higher fee replaces it"
    );
    assert_eq!(expect_refusal(broadcast_to_chain(&simnet, "ethereum", &pay(2, 5_000, 0))), "insufficient funds");
    simnet.mine(&chain_id("ethereum"), 1, GENESIS);
    assert_eq!(simnet.balance(&chain_id("ethereum"), &native_asset(&chain_id("ethereum")), EVM), units(31));
    assert_eq!(
        simnet.balance(
            &chain_id("ethereum"),
            &native_asset(&chain_id("ethereum")),
            &address_of_key(Family::Evm, 1).text
        ),
        units(1_000 - 31 - 3)
    );
    assert_eq!(simnet.find_transaction_status(&chain_id("ethereum"), pay(0, 10, 1).txid), None);
    assert_eq!(broadcast_to_chain(&simnet, "ethereum", &pay(0, 11, 2)), BroadcastOutcome::AlreadyKnown, "it is mined");
    assert_eq!(expect_refusal(broadcast_to_chain(&simnet, "ethereum", &pay(0, 12, 9))), "nonce too low: next is 2");
}

#[test]
fn coins_of_several_owners_are_spent_together_and_only_once() {
    let (simnet, chain) = (support::new_simnet(), chain_id("bitcoin"));
    for byte in [1, 2] {
        fund_key(&simnet, "bitcoin", Family::Bitcoin, byte);
    }
    let coins = [1, 2].map(|byte| simnet.list_coins(&chain, address_of_key(Family::Bitcoin, byte).key)[0].0).to_vec();
    let pay = |keys: &[SecretKey], amount: u64, fee: u64| {
        let inputs = ReplayProtection::Inputs(coins.clone());
        draft_payment("bitcoin", Family::Bitcoin, inputs, BITCOIN, amount, fee).sign(Family::Bitcoin, keys)
    };
    let both = [secret_key(1), secret_key(2)];
    assert_eq!(
        expect_refusal(broadcast_to_chain(&simnet, "bitcoin", &pay(&both[..1], 1_990, 10))),
        "missing or spent coin"
    );
    assert_eq!(expect_refusal(broadcast_to_chain(&simnet, "bitcoin", &pay(&both, 1_990, 9))), "insufficient funds");
    assert_eq!(broadcast_to_chain(&simnet, "bitcoin", &pay(&both, 1_990, 10)), BroadcastOutcome::Accepted);
    assert_eq!(
        expect_refusal(broadcast_to_chain(&simnet, "bitcoin", &pay(&both, 1_991, 9))),
        "replacement transaction underpriced"
    );
    assert_eq!(broadcast_to_chain(&simnet, "bitcoin", &pay(&both, 1_980, 20)), BroadcastOutcome::Accepted);
    simnet.mine(&chain, 1, GENESIS);
    assert_eq!(simnet.balance(&chain, &native_asset(&chain), BITCOIN), units(1_980));
    assert_eq!(expect_refusal(broadcast_to_chain(&simnet, "bitcoin", &pay(&both, 1_970, 30))), "missing or spent coin");
}

#[test]
fn a_tron_transaction_expires() {
    let (simnet, chain) = (support::new_simnet(), chain_id("tron"));
    fund_key(&simnet, "tron", Family::Tron, 1);
    let pay = |time: i64, salt: u64| {
        draft_payment("tron", Family::Tron, ReplayProtection::Expiry { time, salt }, TRON, 10, 0)
            .sign(Family::Tron, &[secret_key(1)])
    };
    assert_eq!(broadcast_to_chain(&simnet, "tron", &pay(GENESIS + 60, 1)), BroadcastOutcome::Accepted);
    assert_eq!(broadcast_to_chain(&simnet, "tron", &pay(GENESIS + 60, 2)), BroadcastOutcome::Accepted);
    assert_eq!(
        expect_refusal(broadcast_to_chain(&simnet, "tron", &pay(GENESIS - 1, 3))),
        "expired or expires too late"
    );
    assert_eq!(
        expect_refusal(broadcast_to_chain(&simnet, "tron", &pay(GENESIS + 90_000, 3))),
        "expired or expires too late"
    );
    simnet.mine(&chain, 1, GENESIS + 60);
    assert_eq!(broadcast_to_chain(&simnet, "tron", &pay(GENESIS + 60, 1)), BroadcastOutcome::AlreadyKnown);
    assert_eq!(broadcast_to_chain(&simnet, "tron", &pay(GENESIS + 99, 4)), BroadcastOutcome::Accepted);
    simnet.mine(&chain, 1, GENESIS + 100);
    assert_eq!(
        simnet.find_transaction_status(&chain, pay(GENESIS + 99, 4).txid),
        None,
        "it expired before a block included it"
    );
    assert_eq!(simnet.balance(&chain, &native_asset(&chain), TRON), units(20));
}

#[test]
fn invalid_transactions_are_refused() {
    let simnet = support::new_simnet();
    fund_key(&simnet, "ethereum", Family::Evm, 1);
    let send = |raw: &[u8]| block_on(simnet.sender(&chain_id("ethereum")).unwrap().broadcast(raw));
    let good = draft_payment("ethereum", Family::Evm, ReplayProtection::Nonce(0), EVM, 10, 0)
        .sign(Family::Evm, &[secret_key(1)]);
    let reject = |raw: &str| assert!(matches!(send(raw.as_bytes()), BroadcastOutcome::Rejected(_)), "{raw}");
    reject("");
    reject("{}");
    reject(&good.raw().replace("\"10\"", "\"11\""));
    reject(&good.raw().replace("\"10\"", "\"010\""));
    reject(&good.raw().replace(':', ": "));
    reject(&good.raw()[1..]);
    let unsigned = SignedTx::from_unverified_witnesses(Family::Evm, good.draft.clone(), Vec::new());
    reject(unsigned.raw());
    let elsewhere = draft_payment("tron", Family::Tron, ReplayProtection::Nonce(0), TRON, 10, 0)
        .sign(Family::Tron, &[secret_key(1)]);
    reject(elsewhere.raw());
    let coins = draft_payment("ethereum", Family::Evm, ReplayProtection::Inputs(Vec::new()), EVM, 10, 0)
        .sign(Family::Evm, &[secret_key(1)]);
    reject(coins.raw());
    assert_eq!(send(good.raw().as_bytes()), BroadcastOutcome::Accepted);
}

#[test]
fn broadcast_faults_return_the_wrong_outcome() {
    let (simnet, chain) = (support::new_simnet(), chain_id("ethereum"));
    fund_key(&simnet, "ethereum", Family::Evm, 1);
    let pay = |nonce: u64| {
        draft_payment("ethereum", Family::Evm, ReplayProtection::Nonce(nonce), EVM, 10, 0)
            .sign(Family::Evm, &[secret_key(1)])
    };
    simnet.set_fault(&chain, NodeFault::RejectBroadcast, true);
    expect_refusal(broadcast_to_chain(&simnet, "ethereum", &pay(0)));
    simnet.set_fault(&chain, NodeFault::RejectBroadcast, false);
    simnet.set_fault(&chain, NodeFault::BroadcastLost, true);
    assert_eq!(broadcast_to_chain(&simnet, "ethereum", &pay(0)), BroadcastOutcome::Accepted);
    assert!(simnet.list_mempool(&chain).is_empty());
    simnet.set_fault(&chain, NodeFault::BroadcastLost, false);
    simnet.set_fault(&chain, NodeFault::AnswerLost, true);
    assert!(matches!(broadcast_to_chain(&simnet, "ethereum", &pay(0)), BroadcastOutcome::Unknown(_)));
    assert_eq!(simnet.list_mempool(&chain), [pay(0).txid]);
}
