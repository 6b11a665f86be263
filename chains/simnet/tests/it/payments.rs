//! Tests of buyers' payments and of the transfers that a reader gets for them.

use chain::{Family, TxPart};
use simnet::{PayError, Simnet};

use crate::support::{self, BITCOIN, EVM, EVM_OTHER, GENESIS, TRON, chain_id, native_asset, token_asset, units};

#[test]
fn the_same_calls_make_the_same_chain() {
    let play = |seed: u64| {
        let simnet = Simnet::create_in_memory(support::build_specs(), seed, GENESIS);
        let chain = chain_id("bitcoin");
        let txid = simnet.pay(&chain, &native_asset(&chain), BITCOIN, units(1_000)).unwrap();
        simnet.mine(&chain, 3, GENESIS + 60);
        (txid, simnet.reorg(&chain, 2, simnet::ReplacedTxs::Remine, GENESIS + 61))
    };
    assert_eq!(play(1), play(1));
    assert_ne!(play(1), play(2));
}

#[test]
fn a_payment_waits_is_mined_and_gains_confirmations() {
    for (name, family, to) in
        [("bitcoin", Family::Bitcoin, BITCOIN), ("ethereum", Family::Evm, EVM), ("tron", Family::Tron, TRON)]
    {
        let (simnet, chain) = (support::new_simnet(), chain_id(name));
        let txid = simnet.pay(&chain, &native_asset(&chain), to, units(700)).unwrap();
        let waiting = simnet.find_transaction_status(&chain, txid).unwrap();
        assert_eq!((waiting.block, waiting.confirmations), (None, 0));
        assert_eq!(
            simnet.balance(&chain, &native_asset(&chain), to),
            units(0),
            "a payment in the mempool is not in the balance"
        );
        simnet.mine(&chain, 1, GENESIS + 10);
        simnet.mine(&chain, 2, GENESIS + 12);
        let mined = simnet.find_transaction_status(&chain, txid).unwrap();
        assert_eq!((mined.block.unwrap().height, mined.confirmations), (1, 3));
        assert_eq!(simnet.balance(&chain, &native_asset(&chain), to), units(700));

        let found = support::read_all_transfers(&simnet, &chain, &support::watch_addresses(family, &[to]));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].txid, found[0].amount), (txid, units(700)));
        let from = found[0].from.as_deref().map(|text| simnet::address::parse_address(family, text).unwrap());
        assert_eq!(from.is_some(), family != Family::Bitcoin);
    }
}

#[test]
fn block_times_never_go_backwards() {
    let (simnet, chain) = (support::new_simnet(), chain_id("tron"));
    simnet.mine(&chain, 3, GENESIS + 100);
    simnet.mine(&chain, 2, GENESIS);
    let times: Vec<i64> = support::read_all_blocks(&simnet, &chain, &support::watch_addresses(Family::Tron, &[TRON]))
        .iter()
        .map(|block| block.header.time - GENESIS)
        .collect();
    assert_eq!(times, [98, 99, 100, 100, 100]);
}

#[test]
fn transfers_of_one_block_have_ascending_indices() {
    let (simnet, chain) = (support::new_simnet(), chain_id("ethereum"));
    let (coin, usdt) = (native_asset(&chain), token_asset(&chain));
    let watched = support::watch_addresses(Family::Evm, &[EVM]);
    let payment = |asset: &chain::AssetId, to: &str, amount: u64| (asset.clone(), to.to_owned(), units(amount));
    simnet
        .pay_many(
            &chain,
            vec![
                payment(&usdt, EVM, 1),
                payment(&coin, EVM, 2),
                payment(&usdt, EVM_OTHER, 3),
                payment(&coin, EVM, 4),
                payment(&usdt, EVM, 5),
            ],
        )
        .unwrap();
    let failed = simnet.pay_reverting(&chain, &usdt, EVM, units(6)).unwrap();
    simnet.pay_zero(&chain, &usdt, EVM).unwrap();
    simnet.pay_fake_token(&chain, EVM, units(7)).unwrap();
    simnet.pay_from_contract(&chain, EVM, units(8)).unwrap();
    simnet.pay(&chain, &usdt, EVM, units(9)).unwrap();
    simnet.mine(&chain, 1, GENESIS);

    let found = support::read_all_transfers(&simnet, &chain, &watched);
    let found: Vec<_> = found.iter().map(|t| (t.index.tx_index, t.index.part, t.amount)).collect();
    let expected = [
        (0, TxPart::Value, units(2)),
        (0, TxPart::Log(0), units(1)),
        (0, TxPart::Log(2), units(5)),
        (0, TxPart::Internal(0), units(4)),
        (4, TxPart::Internal(0), units(8)),
        (5, TxPart::Log(5), units(9)),
    ];
    assert_eq!(found, expected, "reverted, zero and unlisted transfers are left out, but their logs are counted");
    assert!(simnet.find_transaction_status(&chain, failed).unwrap().reverted);
    assert_eq!(simnet.balance(&chain, &usdt, EVM), units(15));
}

#[test]
fn bitcoin_transfers_are_outputs() {
    let (simnet, chain) = (support::new_simnet(), chain_id("bitcoin"));
    let coin = native_asset(&chain);
    let payments = [3, 4].map(|amount| (coin.clone(), BITCOIN.to_owned(), units(amount)));
    simnet.pay_many(&chain, payments.to_vec()).unwrap();
    simnet.mine(&chain, 1, GENESIS);
    let found = support::read_all_transfers(&simnet, &chain, &support::watch_addresses(Family::Bitcoin, &[BITCOIN]));
    let found: Vec<_> = found.iter().map(|t| (t.index.part, t.amount)).collect();
    assert_eq!(found, [(TxPart::Output(0), units(3)), (TxPart::Output(1), units(4))]);
}

#[test]
fn invalid_payments_are_refused() {
    let simnet = support::new_simnet();
    let (bitcoin, ethereum, tron) = (chain_id("bitcoin"), chain_id("ethereum"), chain_id("tron"));
    let pay = |chain: &chain::ChainId, to: &str| simnet.pay(chain, &native_asset(chain), to, units(1));
    for (chain, to) in [
        (&bitcoin, EVM),
        (&ethereum, TRON),
        (&tron, BITCOIN),
        (&ethereum, "0x9858eFFD232B4033E47d90003D41EC34EcaEda94"),
    ] {
        assert!(matches!(pay(chain, to), Err(PayError::InvalidAddress(_))), "{chain} {to}");
    }
    assert_eq!(pay(&chain_id("bsc"), EVM), Err(PayError::UnknownChain(chain_id("bsc"))));
    assert_eq!(
        simnet.pay(&ethereum, &native_asset(&tron), EVM, units(1)),
        Err(PayError::UnknownAsset(native_asset(&tron)))
    );
    assert_eq!(simnet.pay(&tron, &native_asset(&tron), TRON, chain::Amount::MAX), Err(PayError::InsufficientFunds));
    assert_eq!(simnet.pay_from_contract(&bitcoin, BITCOIN, units(1)), Err(PayError::Unsupported));
    assert_eq!(simnet.pay_fake_token(&bitcoin, BITCOIN, units(1)), Err(PayError::Unsupported));
    assert!(simnet.list_mempool(&ethereum).is_empty());
}

#[test]
fn the_mempool_can_be_held_and_dropped() {
    let (simnet, chain) = (support::new_simnet(), chain_id("bitcoin"));
    let coin = native_asset(&chain);
    simnet.set_mempool_held(&chain, true);
    let slow = simnet.pay(&chain, &coin, BITCOIN, units(1)).unwrap();
    simnet.mine(&chain, 5, GENESIS);
    assert_eq!(simnet.find_transaction_status(&chain, slow).unwrap().confirmations, 0);
    simnet.set_mempool_held(&chain, false);
    simnet.mine(&chain, 1, GENESIS);
    assert_eq!(simnet.find_transaction_status(&chain, slow).unwrap().confirmations, 1);

    let lost = simnet.pay(&chain, &coin, BITCOIN, units(2)).unwrap();
    simnet.drop_mempool(&chain);
    simnet.mine(&chain, 1, GENESIS);
    assert_eq!(simnet.find_transaction_status(&chain, lost), None);
    assert_eq!(simnet.balance(&chain, &coin, BITCOIN), units(1));
}

/// There are more payments than buyers, so that transactions depend on each other.
#[test]
fn many_payments_fit_into_one_block() {
    for (name, to) in [("bitcoin", BITCOIN), ("ethereum", EVM)] {
        let (simnet, chain) = (support::new_simnet(), chain_id(name));
        for _ in 0..200 {
            simnet.pay(&chain, &native_asset(&chain), to, units(10)).unwrap();
        }
        simnet.mine(&chain, 1, GENESIS);
        assert_eq!(simnet.balance(&chain, &native_asset(&chain), to), units(2_000), "{name}");
        assert!(simnet.list_mempool(&chain).is_empty());
    }
}
