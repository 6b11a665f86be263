//! Tests of reorganisations of a model chain.

use chain::Family;
use simnet::{ReplacedTxs, Simnet};

use crate::support::{self, BITCOIN, EVM, GENESIS, Reader, block_on, chain_id, native_asset, units};

fn pay_and_mine(simnet: &Simnet, name: &str, to: &str) -> chain::TxId {
    let chain = chain_id(name);
    simnet.mine(&chain, 5, GENESIS + 5);
    let txid = simnet.pay(&chain, &native_asset(&chain), to, units(9)).unwrap();
    simnet.mine(&chain, 3, GENESIS + 8);
    txid
}

#[test]
fn remined_transactions_get_a_new_block() {
    for (name, to) in [("bitcoin", BITCOIN), ("ethereum", EVM)] {
        let (simnet, chain) = (support::new_simnet(), chain_id(name));
        let txid = pay_and_mine(&simnet, name, to);
        let old = simnet.find_transaction_status(&chain, txid).unwrap();
        assert_eq!(old.confirmations, 3);
        let head = simnet.reorg(&chain, 3, ReplacedTxs::Remine, GENESIS + 9);
        assert_eq!(head.height, 9);
        let new = simnet.find_transaction_status(&chain, txid).unwrap();
        assert_eq!((new.block.unwrap().height, new.confirmations), (6, 4));
        assert_ne!(new.block, old.block);
        assert_eq!(simnet.balance(&chain, &native_asset(&chain), to), units(9));

        simnet.set_mempool_held(&chain, true);
        simnet.reorg(&chain, 4, ReplacedTxs::Remine, GENESIS + 9);
        assert_eq!(
            simnet.find_transaction_status(&chain, txid).unwrap().confirmations,
            0,
            "it is in the mempool again"
        );
        assert_eq!(simnet.balance(&chain, &native_asset(&chain), to), units(0));
    }
}

#[test]
fn dropped_transactions_are_lost() {
    for (name, to) in [("bitcoin", BITCOIN), ("ethereum", EVM)] {
        let (simnet, chain) = (support::new_simnet(), chain_id(name));
        let txid = pay_and_mine(&simnet, name, to);
        let waiting = simnet.pay(&chain, &native_asset(&chain), to, units(4)).unwrap();
        simnet.reorg(&chain, 3, ReplacedTxs::Drop, GENESIS + 9);
        simnet.mine(&chain, 1, GENESIS + 10);
        assert_eq!(simnet.find_transaction_status(&chain, txid), None);
        assert!(simnet.find_transaction_status(&chain, waiting).is_some(), "a transaction that waited is mined");
        assert_eq!(simnet.balance(&chain, &native_asset(&chain), to), units(4));
    }
}

#[test]
fn double_spent_payments_are_reversed() {
    for (name, to) in [("bitcoin", BITCOIN), ("ethereum", EVM)] {
        let (simnet, chain) = (support::new_simnet(), chain_id(name));
        let txid = pay_and_mine(&simnet, name, to);
        simnet.reorg(&chain, 3, ReplacedTxs::DoubleSpend, GENESIS + 9);
        assert_eq!(simnet.find_transaction_status(&chain, txid), None);
        assert_eq!(simnet.balance(&chain, &native_asset(&chain), to), units(0));
        assert!(simnet.list_mempool(&chain).is_empty());
    }
}

#[test]
fn a_reorg_keeps_the_oldest_block() {
    let (simnet, chain) = (support::new_simnet(), chain_id("ethereum"));
    let genesis = simnet.tip(&chain).head.block_ref();
    simnet.mine(&chain, 3, GENESIS);
    assert_eq!(simnet.reorg(&chain, 99, ReplacedTxs::Drop, GENESIS).height, 4);
    assert_eq!(support::read_all_blocks(&simnet, &chain, &chain::WatchSet::default())[0].header.parent, genesis.hash);
    assert_eq!(simnet.reorg(&chain, 0, ReplacedTxs::Drop, GENESIS).height, 5, "depth 0 only adds a block");
}

#[test]
fn a_follower_reaches_the_new_branch_at_every_depth() {
    let (simnet, chain) = (support::new_simnet(), chain_id("ethereum"));
    let source = simnet.source(&chain).unwrap();
    let watched = support::watch_addresses(Family::Evm, &[EVM]);
    let mut reader = Reader::new(simnet.tip(&chain).head.block_ref());
    simnet.mine(&chain, 80, GENESIS + 80);
    for depth in 1..=64 {
        block_on(reader.poll(&*source, &watched));
        simnet.pay(&chain, &native_asset(&chain), EVM, units(depth)).unwrap();
        let keep =
            [ReplacedTxs::Remine, ReplacedTxs::Drop, ReplacedTxs::DoubleSpend][usize::try_from(depth % 3).unwrap()];
        simnet.reorg(&chain, depth, keep, GENESIS + 80);
        block_on(reader.poll(&*source, &watched));
        assert_eq!(reader.cursor(), simnet.tip(&chain).head.block_ref());
    }
    let read: Vec<_> = reader.found.into_values().flatten().collect();
    assert_eq!(read, support::read_all_transfers(&simnet, &chain, &watched));
}
