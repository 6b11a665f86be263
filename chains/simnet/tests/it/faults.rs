//! Tests of the faults of model nodes.

use chain::{Amount, AssetKind, BroadcastOutcome, Family, InternalTransfers, SourceError};
use simnet::NodeFault;

use crate::support::{self, EVM, GENESIS, chain_id, native_asset, units};

#[tokio::test]
async fn an_unavailable_node_fails_every_request() {
    let (simnet, chain) = (support::new_simnet(), chain_id("ethereum"));
    let source = simnet.source(&chain).unwrap();
    simnet.set_fault(&chain, NodeFault::Unavailable, true);
    assert!(matches!(source.tip().await, Err(SourceError::Unavailable(_))));
    assert!(matches!(source.header(0).await, Err(SourceError::Unavailable(_))));
    assert!(source.check_endpoints().await[0].outcome.is_err());
    assert!(matches!(simnet.sender(&chain).unwrap().broadcast(b"{}").await, BroadcastOutcome::Unknown(_)));
    simnet.set_fault(&chain, NodeFault::Unavailable, false);
    assert!(source.tip().await.is_ok());

    simnet.fail_next_requests(&chain, 2);
    assert!(source.tip().await.is_err());
    assert!(source.tip().await.is_err());
    assert!(source.tip().await.is_ok());
}

#[tokio::test]
async fn a_stale_node_shows_an_old_tip() {
    let (simnet, chain) = (support::new_simnet(), chain_id("ethereum"));
    let source = simnet.source(&chain).unwrap();
    simnet.mine(&chain, 20, GENESIS + 20);
    let watched = support::watch_addresses(Family::Evm, &[EVM]);
    simnet.set_fault(&chain, NodeFault::Stale(9), true);
    simnet.set_fault(&chain, NodeFault::Stale(5), true);
    let tip = source.tip().await.unwrap();
    assert_eq!((tip.head.height, tip.finalized.map(|mark| mark.height)), (15, Some(3)));
    assert_eq!(source.header(16).await, Ok(None));
    assert_eq!(source.blocks(10, 20, &watched).await.unwrap().last().unwrap().header, tip.head);
    assert_eq!(
        source.balances(&simnet.tip(&chain).head.block_ref(), &AssetKind::Native, &[]).await,
        Err(SourceError::BlockNotFound(20))
    );
    simnet.set_fault(&chain, NodeFault::Stale(1), false);
    assert_eq!(source.tip().await.unwrap().head.height, 20);
}

#[tokio::test]
async fn each_fault_falsifies_its_answer() {
    let (simnet, chain) = (support::new_simnet(), chain_id("ethereum"));
    let source = simnet.source(&chain).unwrap();
    let watched = support::watch_addresses(Family::Evm, &[EVM]);
    simnet.pay(&chain, &native_asset(&chain), EVM, units(5)).unwrap();
    simnet.mine(&chain, 40, GENESIS);
    let honest = source.blocks(1, 1, &watched).await.unwrap();
    assert_eq!(honest[0].transfers.len(), 1);

    simnet.set_fault(&chain, NodeFault::HideTransfers, true);
    assert!(source.blocks(1, 1, &watched).await.unwrap()[0].transfers.is_empty());
    simnet.set_fault(&chain, NodeFault::HideTransfers, false);

    simnet.set_fault(&chain, NodeFault::WrongParent, true);
    assert_ne!(source.blocks(1, 1, &watched).await.unwrap()[0].header.parent, honest[0].header.parent);
    simnet.set_fault(&chain, NodeFault::WrongParent, false);

    simnet.set_fault(&chain, NodeFault::MissingBlocks, true);
    assert_eq!(source.blocks(1, 1, &watched).await, Err(SourceError::BlockNotFound(1)));
    simnet.set_fault(&chain, NodeFault::MissingBlocks, false);

    let mark = async || source.tip().await.unwrap().finalized.unwrap();
    let finalized = mark().await;
    simnet.set_fault(&chain, NodeFault::FinalityRegresses, true);
    let back = mark().await;
    assert!(back.height < finalized.height);
    assert_eq!(source.header(back.height).await.unwrap().map(|header| header.block_ref()), Some(back));
    simnet.set_fault(&chain, NodeFault::FinalityRegresses, false);

    let identity = source.identity().await;
    simnet.set_fault(&chain, NodeFault::OtherChain, true);
    assert_ne!(source.identity().await, identity);

    let contract = "0xdAC17F958D2ee523a2206206994597C13D831ec7";
    assert_eq!(source.decimals(contract).await, Ok(6));
    simnet.set_fault(&chain, NodeFault::WrongDecimals, true);
    assert_eq!(source.decimals(contract).await, Ok(7));
    assert!(matches!(source.decimals(EVM).await, Err(SourceError::Unsupported(_))));

    assert_eq!(source.blocks(1, 1, &watched).await.unwrap(), honest, "a fault that is switched off has no effect");
}

#[tokio::test]
async fn internal_transfers_can_show_in_balances_only() {
    let (simnet, chain) = (support::new_simnet(), chain_id("ethereum"));
    let source = simnet.source(&chain).unwrap();
    assert_eq!(source.internal_transfers(), InternalTransfers::Included);
    simnet.set_internal_transfers_hidden(&chain, true);
    assert_eq!(source.internal_transfers(), InternalTransfers::ByBalance);
    let before = simnet.tip(&chain).head.block_ref();
    simnet.pay_from_contract(&chain, EVM, units(5)).unwrap();
    let after = simnet.mine(&chain, 1, GENESIS);
    let address = simnet::address::parse_address(Family::Evm, EVM).unwrap();
    let watched = support::watch_addresses(Family::Evm, &[EVM]);
    assert!(source.blocks(1, 1, &watched).await.unwrap()[0].transfers.is_empty());
    assert_eq!(
        source.balances(&before, &AssetKind::Native, std::slice::from_ref(&address)).await,
        Ok(vec![Amount::ZERO])
    );
    assert_eq!(source.balances(&after, &AssetKind::Native, std::slice::from_ref(&address)).await, Ok(vec![units(5)]));
    simnet.set_internal_transfers_hidden(&chain_id("bitcoin"), true);
    assert_eq!(simnet.source(&chain_id("bitcoin")).unwrap().internal_transfers(), InternalTransfers::None);
}
