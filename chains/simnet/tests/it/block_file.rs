//! Tests of model chains that are stored on disk.

use std::{fs, path::Path};

use chain::{Family, SourceError, WatchSet};
use simnet::{KEPT_BLOCKS, OpenError, ReplacedTxs, Simnet};

use crate::support::{self, BITCOIN, EVM, GENESIS, block_on, chain_id, native_asset, token_asset, units};

fn open_simnet(folder: &Path) -> Simnet {
    Simnet::open_or_create(folder, support::build_specs(), GENESIS).unwrap()
}

#[test]
fn reopening_restores_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let simnet = open_simnet(folder.path());
    let (bitcoin, ethereum) = (chain_id("bitcoin"), chain_id("ethereum"));
    for _ in 0..3 {
        simnet.pay(&bitcoin, &native_asset(&bitcoin), BITCOIN, units(5)).unwrap();
        simnet.pay(&ethereum, &token_asset(&ethereum), EVM, units(5)).unwrap();
        simnet.mine(&bitcoin, 2, GENESIS + 60);
        simnet.mine(&ethereum, 2, GENESIS + 60);
    }
    simnet.reorg(&bitcoin, 2, ReplacedTxs::DoubleSpend, GENESIS + 60);
    let waiting = simnet.pay(&bitcoin, &native_asset(&bitcoin), BITCOIN, units(5)).unwrap();
    for _ in 0..2 {
        let again = open_simnet(folder.path());
        for chain in simnet.list_chains() {
            assert_eq!(again.tip(&chain), simnet.tip(&chain));
            let identity = |simnet: &Simnet| block_on(simnet.source(&chain).unwrap().identity()).unwrap();
            assert_eq!(identity(&again), identity(&simnet));
            let watched = support::watch_addresses(Family::Evm, &[EVM]);
            watched.insert(simnet::address::parse_address(Family::Bitcoin, BITCOIN).unwrap().key);
            assert_eq!(
                support::read_all_blocks(&again, &chain, &watched),
                support::read_all_blocks(&simnet, &chain, &watched)
            );
        }
        assert_eq!(again.balance(&bitcoin, &native_asset(&bitcoin), BITCOIN), units(10));
        assert_eq!(again.balance(&ethereum, &token_asset(&ethereum), EVM), units(15));
        assert_eq!(again.list_mempool(&bitcoin), [waiting]);
    }
    let again = open_simnet(folder.path());
    again.pay(&bitcoin, &native_asset(&bitcoin), BITCOIN, units(5)).unwrap();
    again.mine(&bitcoin, 1, GENESIS + 61);
    assert_eq!(
        again.balance(&bitcoin, &native_asset(&bitcoin), BITCOIN),
        units(20),
        "the waiting payment and the one after the restart"
    );
    assert!(again.list_mempool(&bitcoin).is_empty());
    assert!(open_simnet(folder.path()).list_mempool(&bitcoin).is_empty(), "a mined payment does not wait again");
}

#[test]
fn a_dropped_transaction_does_not_return_with_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let simnet = open_simnet(folder.path());
    let (bitcoin, ethereum) = (chain_id("bitcoin"), chain_id("ethereum"));
    simnet.pay(&bitcoin, &native_asset(&bitcoin), BITCOIN, units(5)).unwrap();
    simnet.drop_mempool(&bitcoin);
    simnet.pay(&ethereum, &native_asset(&ethereum), EVM, units(5)).unwrap();
    simnet.mine(&ethereum, 1, GENESIS + 60);
    simnet.reorg(&ethereum, 1, ReplacedTxs::Drop, GENESIS + 60);
    let kept = simnet.pay(&ethereum, &native_asset(&ethereum), EVM, units(7)).unwrap();
    let again = open_simnet(folder.path());
    assert!(again.list_mempool(&bitcoin).is_empty());
    assert_eq!(again.list_mempool(&ethereum), [kept]);
}

#[test]
fn two_folders_have_different_chains() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let chain = chain_id("bitcoin");
    assert_ne!(open_simnet(one.path()).tip(&chain).head.hash, open_simnet(other.path()).tip(&chain).head.hash);
}

#[test]
fn an_incomplete_last_line_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let chain = chain_id("ethereum");
    let file = folder.path().join("ethereum.journal");
    let simnet = open_simnet(folder.path());
    simnet.pay(&chain, &native_asset(&chain), EVM, units(5)).unwrap();
    simnet.mine(&chain, 1, GENESIS);
    let before = simnet.tip(&chain);
    let whole = fs::read(&file).unwrap();
    simnet.pay(&chain, &native_asset(&chain), EVM, units(5)).unwrap();
    simnet.mine(&chain, 1, GENESIS);
    let after = simnet.tip(&chain);
    let written = fs::read(&file).unwrap();
    for length in (whole.len()..written.len()).step_by(37).chain([written.len() - 1]) {
        fs::write(&file, &written[..length]).unwrap();
        assert_eq!(open_simnet(folder.path()).tip(&chain), before, "{length} of {} bytes", written.len());
    }
    fs::write(&file, &written).unwrap();
    assert_eq!(open_simnet(folder.path()).tip(&chain), after);
    fs::write(&file, [written.as_slice(), &[0; 100], b"\n"].concat()).unwrap();
    assert_eq!(open_simnet(folder.path()).tip(&chain), after);
}

#[test]
fn a_changed_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let chain = chain_id("ethereum");
    let file = folder.path().join("ethereum.journal");
    let simnet = open_simnet(folder.path());
    for amount in [71, 72] {
        simnet.pay(&chain, &native_asset(&chain), EVM, units(amount)).unwrap();
        simnet.mine(&chain, 1, GENESIS);
    }
    let text = fs::read_to_string(&file).unwrap();
    let open_changed = |text: &str| {
        fs::write(&file, text).unwrap();
        Simnet::open_or_create(folder.path(), support::build_specs(), GENESIS).map(drop)
    };
    assert!(matches!(open_changed(&text.replace("\"71\"", "\"70\"")), Err(OpenError::Damaged { line: 3, .. })));
    assert!(matches!(open_changed(&text.replace("\"72\"", "\"70\"")), Err(OpenError::Damaged { line: 5, .. })));
    assert!(matches!(
        open_changed(&text.replacen("{\"block\"", "{\"blick\"", 1)),
        Err(OpenError::Damaged { line: 3, .. })
    ));
    assert!(matches!(open_changed(""), Err(OpenError::Damaged { line: 1, .. })));
    assert!(matches!(
        open_changed(&text.replacen("\"family\":\"evm\"", "\"family\":\"tron\"", 1)),
        Err(OpenError::OtherChain { found: Family::Tron, .. })
    ));
    assert!(open_changed(&text).is_ok());
}

#[test]
fn old_blocks_are_dropped_and_their_effects_stay() {
    let folder = tempfile::tempdir().unwrap();
    let chain = chain_id("ethereum");
    let simnet = open_simnet(folder.path());
    let txid = simnet.pay(&chain, &native_asset(&chain), EVM, units(5)).unwrap();
    simnet.mine(&chain, 1, GENESIS);
    let kept = u64::try_from(KEPT_BLOCKS).unwrap();
    for _ in 0..5 {
        simnet.mine(&chain, kept - 100, GENESIS + 100_000);
    }
    simnet.pay(&chain, &native_asset(&chain), EVM, units(6)).unwrap();
    simnet.mine(&chain, 1, GENESIS + 100_000);
    for simnet in [simnet, open_simnet(folder.path())] {
        assert_eq!(simnet.find_transaction_status(&chain, txid), None);
        assert_eq!(simnet.balance(&chain, &native_asset(&chain), EVM), units(11));
        let source = simnet.source(&chain).unwrap();
        assert!(matches!(block_on(source.header(1)), Err(SourceError::Unsupported(_))));
        let head = simnet.tip(&chain).head;
        let oldest = head.height + 1 - kept;
        let blocks = block_on(simnet::conformance::read_blocks(&*source, oldest, head.height, &WatchSet::default()));
        assert_eq!(blocks.len(), KEPT_BLOCKS);
    }
    let lines = fs::read_to_string(folder.path().join("ethereum.journal")).unwrap().lines().count();
    assert_eq!(lines, KEPT_BLOCKS, "a snapshot of the oldest block, then one line for each later block");
}

#[test]
fn an_asset_can_be_listed_later() {
    let folder = tempfile::tempdir().unwrap();
    let chain = chain_id("ethereum");
    let mut specs = support::build_specs();
    specs[1].assets.truncate(1);
    let simnet = Simnet::open_or_create(folder.path(), specs, GENESIS).unwrap();
    simnet.mine(&chain, 3, GENESIS);
    let head = simnet.tip(&chain);
    let simnet = open_simnet(folder.path());
    assert_eq!(simnet.tip(&chain), head);
    simnet.pay(&chain, &token_asset(&chain), EVM, units(5)).unwrap();
    simnet.mine(&chain, 1, GENESIS);
    assert_eq!(simnet.balance(&chain, &token_asset(&chain), EVM), units(5));
}
