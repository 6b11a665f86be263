//! Tests of the second endpoint of model chains, which corroborates or contradicts the transfers of the first one.

use chain::{
    AssetKind, BlockRef, ChainId, Family, Source, Transfer, TransferIndex, TxId, TxPart, WatchSet,
    source::{Corroboration, CrossCheckResult},
};
use simnet::{NodeFault, Simnet, address, conformance};

use crate::support::{self, BITCOIN, EVM, GENESIS, TRON, chain_id, native_asset, token_asset, units};

/// Returns the short name of each answer, in order.
async fn confirm(source: &dyn Source, block: &BlockRef, transfers: &[Transfer]) -> Vec<&'static str> {
    let answers = source.confirm(block, transfers).await;
    let name = |answer: &Corroboration| match answer {
        Corroboration::Shown { .. } => "shown",
        Corroboration::Contradicted { .. } => "contradicted",
        Corroboration::CannotSay { .. } => "cannot say",
    };
    answers.iter().map(name).collect()
}

/// Returns all transfers to the watched addresses.
async fn read_transfers(simnet: &Simnet, chain: &ChainId, watched: &WatchSet) -> Vec<Transfer> {
    let (source, head) = (simnet.source(chain).unwrap(), simnet.tip(chain).head.height);
    let blocks = conformance::read_blocks(&*source, 1, head, watched).await;
    blocks.into_iter().flat_map(|block| block.transfers).collect()
}

/// Mines a block with a true and an invented transfer; returns the block and both transfers.
async fn mine_true_and_invented_transfers(
    simnet: &Simnet,
    name: &str,
    family: Family,
    to: &str,
) -> (BlockRef, Vec<Transfer>) {
    let chain = chain_id(name);
    simnet.pay(&chain, &token_asset(&chain), to, units(7)).unwrap();
    simnet.invent_transfer_at_first_endpoint(&chain, &token_asset(&chain), to, units(9)).unwrap();
    let block = simnet.mine(&chain, 1, GENESIS);
    simnet.mine(&chain, 3, GENESIS + 3);
    let watched = support::watch_addresses(family, &[to]);
    let transfers = read_transfers(simnet, &chain, &watched).await;
    assert_eq!(transfers.iter().map(|transfer| transfer.amount).collect::<Vec<_>>(), [units(7), units(9)]);
    (block, transfers)
}

#[tokio::test]
async fn the_second_endpoint_shows_true_transfers_and_contradicts_invented_ones() {
    for (name, family, to) in [("ethereum", Family::Evm, EVM), ("tron", Family::Tron, TRON)] {
        let (simnet, chain) = (support::new_simnet(), chain_id(name));
        let source = simnet.source(&chain).unwrap();
        assert!(source.needs_second_source() && source.independent_provider_count() == 2);
        let (block, transfers) = mine_true_and_invented_transfers(&simnet, name, family, to).await;
        let requests = source.requests();
        assert_eq!(confirm(&*source, &block, &transfers).await, ["shown", "contradicted"], "{name}");
        assert_eq!(source.requests(), requests + 1, "one request for all transfers of a block");

        let cases: [(NodeFault, [&str; 2]); 6] = [
            (NodeFault::SingleEndpoint, ["cannot say"; 2]),
            (NodeFault::SilentSecondEndpoint, ["cannot say"; 2]),
            (NodeFault::SecondEndpointBehind(4), ["cannot say"; 2]),
            (NodeFault::SecondEndpointBehind(3), ["shown", "contradicted"]),
            (NodeFault::SecondEndpointHidesTransfers, ["contradicted"; 2]),
            (NodeFault::ConflictingEndpoint, ["contradicted"; 2]),
        ];
        for (fault, expected) in cases {
            simnet.set_fault(&chain, fault, true);
            assert_eq!(confirm(&*source, &block, &transfers).await, expected, "{name} with {fault:?}");
            simnet.set_fault(&chain, fault, false);
        }
        let changed = Transfer { amount: units(8), ..transfers[0].clone() };
        assert_eq!(confirm(&*source, &block, &[changed]).await, ["contradicted"], "another amount");
        simnet.set_fault(&chain, NodeFault::SilentSecondEndpoint, true);
        assert!(matches!(source.cross_check(&block).await, CrossCheckResult::NoAnswer(_)));
    }
}

#[tokio::test]
async fn an_invented_balance_is_contradicted_and_a_true_one_is_shown() {
    let (simnet, chain) = (support::new_simnet(), chain_id("ethereum"));
    simnet.set_internal_transfers_hidden(&chain, true);
    let to = address::parse_address(Family::Evm, EVM).unwrap();
    simnet.pay_from_contract(&chain, EVM, units(5)).unwrap();
    simnet.invent_balance_at_first_endpoint(&chain, EVM, units(4)).unwrap();
    let block = simnet.mine(&chain, 1, GENESIS);
    let source = simnet.source(&chain).unwrap();
    let claimed = source.balances(&block, &AssetKind::Native, std::slice::from_ref(&to)).await;
    assert_eq!(claimed, Ok(vec![units(9)]));
    assert_eq!(simnet.balance(&chain, &native_asset(&chain), EVM), units(5));
    let balance = |amount| Transfer {
        txid: TxId([0; 32]),
        index: TransferIndex { tx_index: 1, part: TxPart::BalanceIncrease },
        asset: native_asset(&chain),
        to: to.key,
        from: None,
        amount: units(amount),
    };
    assert_eq!(confirm(&*source, &block, &[balance(9), balance(5)]).await, ["contradicted", "shown"]);
}

#[tokio::test]
async fn bitcoin_needs_no_second_source() {
    let (simnet, chain) = (support::new_simnet(), chain_id("bitcoin"));
    simnet.pay(&chain, &native_asset(&chain), BITCOIN, units(7)).unwrap();
    let block = simnet.mine(&chain, 1, GENESIS);
    let watched = support::watch_addresses(Family::Bitcoin, &[BITCOIN]);
    let transfers = read_transfers(&simnet, &chain, &watched).await;
    let source = simnet.source(&chain).unwrap();
    assert!(!source.needs_second_source());
    assert_eq!((source.independent_provider_count(), confirm(&*source, &block, &transfers).await), (1, vec!["shown"]));
}
