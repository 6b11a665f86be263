//! Tests that an endpoint of another provider confirms true transfers and contradicts invented ones.

use alloy_primitives::U256;
use alloy_sol_types::SolCall;
use chain::{
    Amount, AssetId, BlockRef, Source, Transfer, TransferIndex, TxId, TxPart, WatchSet,
    source::{Corroboration, CrossCheckResult},
};
use provision::contracts::{abi, compile_contract};
use rpc::Endpoint;
use tron::{Tron, transaction::Operation};
use tronnode::gateway::{Gateway, GatewayFault, InventedMoney};

use crate::world::{World, to_evm_address};

/// A solidified block with a TRX payment, a token transfer and a transfer by a contract, and the height of the block.
struct PaidBlock {
    world: World,
    other: Gateway,
    watched: WatchSet,
    height: u64,
}

impl PaidBlock {
    async fn produce() -> PaidBlock {
        let world = World::start_world().await;
        let compiled = compile_contract("Batcher").await.unwrap();
        let batcher = world.node.deploy_contract(&world.rich[0], "Batcher", &compiled.abi, &compiled.bytecode, 0);
        let to = world.rich[1].account;
        world.node.send_operation(&world.rich[0], &Operation::Transfer { to, sun: 5 });
        world.call_token(abi::Trc20Like::transferCall { to: to_evm_address(to), value: U256::from(7) });
        let data = abi::Batcher::payEtherCall { to: vec![to_evm_address(to)], value: vec![U256::from(9)] }.abi_encode();
        world.node.send_operation(&world.rich[0], &Operation::Trigger { contract: batcher, call_value: 9, data });
        world.node.produce_blocks(1, 0);
        let height = world.node.model().head_height();
        world.node.produce_blocks(20, 0);
        let watched = WatchSet::default();
        watched.insert(to);
        PaidBlock { other: world.node.start_gateway().await, watched, height, world }
    }

    fn build_driver(&self, endpoints: &[&Gateway]) -> Tron {
        let endpoints = endpoints.iter().map(|gateway| Endpoint::new(&gateway.url).unwrap()).collect();
        self.build_driver_with_short_deadline(endpoints)
    }

    fn build_driver_with_short_deadline(&self, endpoints: Vec<Endpoint>) -> Tron {
        let mut pool = rpc::Config::new(endpoints);
        pool.deadline = std::time::Duration::from_secs(2);
        self.world.build_driver_with_pool(pool)
    }

    async fn read_transfers(&self, driver: &Tron) -> (BlockRef, Vec<Transfer>) {
        let block = driver.blocks(self.height, self.height, &self.watched).await.unwrap().remove(0);
        (block.header.block_ref(), block.transfers)
    }

    /// Makes the first gateway invent a payment, a token transfer and a transfer by a contract.
    fn invent_money(&self) {
        let money = InventedMoney { token: self.world.usdt, to: self.world.rich[1].account, amount: 1_000 };
        self.world.gateway.set_fault(GatewayFault::InventedMoney(money));
    }
}

fn host_of(gateway: &Gateway) -> &str {
    gateway.url.trim_start_matches("http://")
}

/// Returns the short name of each answer, in order.
fn name_answers(answers: &[Corroboration]) -> Vec<&'static str> {
    let name = |answer: &Corroboration| match answer {
        Corroboration::Shown { .. } => "shown",
        Corroboration::Contradicted { .. } => "contradicted",
        Corroboration::CannotSay { .. } => "cannot say",
    };
    answers.iter().map(name).collect()
}

#[tokio::test]
async fn true_transfers_are_shown_by_the_other_provider_in_one_request_for_the_block() {
    let paid = PaidBlock::produce().await;
    let driver = paid.build_driver(&[&paid.world.gateway, &paid.other]);
    assert!(driver.needs_second_source() && driver.independent_provider_count() == 2);
    let (block, transfers) = paid.read_transfers(&driver).await;
    let parts: Vec<TxPart> = transfers.iter().map(|transfer| transfer.index.part).collect();
    assert_eq!(parts, [TxPart::Value, TxPart::Log(0), TxPart::Internal(0)]);
    assert_eq!(name_answers(&driver.confirm(&block, &transfers).await), ["shown"; 3]);
    let requests = driver.requests();
    assert_eq!(name_answers(&driver.confirm(&block, &transfers[..1]).await), ["shown"]);
    assert_eq!(driver.requests() - requests, 1, "the block shows its payments");
    assert_eq!(name_answers(&driver.confirm(&block, &transfers).await), ["shown"; 3]);
    assert_eq!(driver.requests() - requests, 1 + 3, "the block and two receipts");
    assert_eq!(driver.cross_check(&block).await, CrossCheckResult::Confirmed);
    // After a restart, the endpoint that returned the block first is unknown, so both are asked.
    let restarted = paid.build_driver(&[&paid.world.gateway, &paid.other]);
    assert_eq!(name_answers(&restarted.confirm(&block, &transfers).await), ["shown"; 3]);
    assert!(restarted.confirm(&block, &[]).await.is_empty());
}

#[tokio::test]
async fn invented_transfers_are_contradicted_and_the_answer_names_both_endpoints() {
    let paid = PaidBlock::produce().await;
    paid.invent_money();
    let driver = paid.build_driver(&[&paid.world.gateway, &paid.other]);
    let (block, transfers) = paid.read_transfers(&driver).await;
    let is_invented = |transfer: &Transfer| transfer.amount == Amount::from(1_000u64);
    let invented: Vec<TxPart> =
        transfers.iter().filter(|transfer| is_invented(transfer)).map(|t| t.index.part).collect();
    assert_eq!(invented.len(), 5, "a payment, and two transfers in each of two calls: {invented:?}");
    let restarted = paid.build_driver(&[&paid.world.gateway, &paid.other]);
    for driver in [&driver, &restarted] {
        let answers = driver.confirm(&block, &transfers).await;
        for (transfer, answer) in transfers.iter().zip(&answers) {
            match answer {
                Corroboration::Contradicted { endpoint, detail } if is_invented(transfer) => {
                    assert_eq!(endpoint, host_of(&paid.other));
                    let both = [&paid.world.gateway, &paid.other].map(host_of);
                    assert!(both.iter().all(|host| detail.contains(host)), "{detail}");
                }
                Corroboration::Shown { .. } if !is_invented(transfer) => {}
                // The other node's receipt has no internal transactions, and many nodes do not save them.
                Corroboration::CannotSay { reason }
                    if is_invented(transfer) && matches!(transfer.index.part, TxPart::Internal(_)) =>
                {
                    assert!(reason.contains("does not save internal transactions"), "{reason}");
                }
                Corroboration::Shown { .. } | Corroboration::Contradicted { .. } | Corroboration::CannotSay { .. } => {
                    panic!("{transfer:?}: {answer:?}")
                }
            }
        }
    }
    let elsewhere = BlockRef { hash: chain::BlockHash([7; 32]), ..block };
    assert_eq!(name_answers(&driver.confirm(&elsewhere, &transfers[..1]).await), ["contradicted"], "another block");
}

#[tokio::test]
async fn many_receipts_are_compared_in_one_request() {
    let paid = PaidBlock::produce().await;
    for _ in 0..8 {
        let to = to_evm_address(paid.world.rich[1].account);
        paid.world.call_token(abi::Trc20Like::transferCall { to, value: U256::from(7) });
    }
    paid.world.node.produce_blocks(1, 0);
    let height = paid.world.node.model().head_height();
    paid.world.node.produce_blocks(20, 0);
    let paid = PaidBlock { height, ..paid };
    let driver = paid.build_driver(&[&paid.world.gateway, &paid.other]);
    let (block, transfers) = paid.read_transfers(&driver).await;
    driver.cross_check(&block).await;
    let requests = driver.requests();
    assert_eq!(name_answers(&driver.confirm(&block, &transfers).await), ["shown"; 8]);
    assert_eq!(driver.requests() - requests, 2, "the block and its receipts");
}

#[tokio::test]
async fn a_silent_lagging_or_incomplete_endpoint_cannot_say() {
    let paid = PaidBlock::produce().await;
    let driver = paid.build_driver(&[&paid.world.gateway, &paid.other]);
    let (block, transfers) = paid.read_transfers(&driver).await;
    for (fault, expected) in [
        (GatewayFault::Lagging(3), ["cannot say"; 3]),
        (GatewayFault::LaggingExceptTip(3), ["cannot say"; 3]),
        (GatewayFault::NoTransactions, ["cannot say"; 3]),
        (GatewayFault::NoInternalTransactions, ["shown", "shown", "cannot say"]),
        (GatewayFault::HiddenTransfers, ["contradicted", "contradicted", "cannot say"]),
        (GatewayFault::None, ["shown"; 3]),
        (GatewayFault::Unavailable, ["cannot say"; 3]),
    ] {
        paid.other.set_fault(fault);
        let answers = driver.confirm(&block, &transfers).await;
        assert_eq!(name_answers(&answers), expected, "{fault:?}: {answers:?}");
    }
    let alone = paid.build_driver(&[&paid.world.gateway]);
    assert_eq!(alone.independent_provider_count(), 1);
    let (block, transfers) = paid.read_transfers(&alone).await;
    assert_eq!(name_answers(&alone.confirm(&block, &transfers).await), ["cannot say"; 3]);
    let same = paid.build_driver(&[&paid.world.gateway, &paid.world.gateway]);
    assert_eq!(same.independent_provider_count(), 1, "two URLs of one provider");
    let (block, transfers) = paid.read_transfers(&same).await;
    assert_eq!(name_answers(&same.confirm(&block, &transfers).await), ["cannot say"; 3]);
}

#[tokio::test]
async fn an_invented_internal_transfer_is_contradicted_by_the_balance_where_the_node_saves_none() {
    let paid = PaidBlock::produce().await;
    let stranger = chain::AddressKey([0x5a; 20]);
    paid.watched.insert(stranger);
    let money = InventedMoney { token: paid.world.usdt, to: stranger, amount: 1_000 };
    paid.world.gateway.set_fault(GatewayFault::InventedMoney(money));
    paid.other.set_fault(GatewayFault::NoInternalTransactions);
    let driver = paid.build_driver(&[&paid.world.gateway, &paid.other]);
    let (block, transfers) = paid.read_transfers(&driver).await;
    let internal: Vec<Transfer> = transfers
        .into_iter()
        .filter(|transfer| transfer.to == stranger && matches!(transfer.index.part, TxPart::Internal(_)))
        .collect();
    let answers = driver.confirm(&block, &internal).await;
    assert_eq!(name_answers(&answers), ["contradicted"; 2]);
    assert!(format!("{answers:?}").contains("holds only 0 sun"), "{answers:?}");
}

#[tokio::test]
async fn a_past_balance_is_compared_where_the_other_node_keeps_the_history() {
    let paid = PaidBlock::produce().await;
    let driver = paid.build_driver(&[&paid.world.gateway, &paid.other]);
    let (block, transfers) = paid.read_transfers(&driver).await;
    let native: AssetId = transfers[0].asset.clone();
    let increase = |amount: u64| Transfer {
        txid: TxId([0; 32]),
        index: TransferIndex { tx_index: 3, part: TxPart::BalanceIncrease },
        asset: native.clone(),
        to: paid.world.rich[1].account,
        from: None,
        amount: Amount::from(amount),
    };
    let asked = [increase(14), increase(u64::MAX)];
    paid.world.node.model().history = true;
    assert_eq!(name_answers(&driver.confirm(&block, &asked).await), ["shown", "contradicted"]);
}

#[tokio::test]
async fn the_operators_own_node_needs_no_second_source() {
    let paid = PaidBlock::produce().await;
    let own = Endpoint::new(&paid.world.gateway.url).unwrap().with_own(true);
    let driver = paid.build_driver_with_short_deadline(vec![own]);
    assert_eq!(driver.independent_provider_count(), 2, "the own node is enough");
    let (block, transfers) = paid.read_transfers(&driver).await;
    let requests = driver.requests();
    let answers = driver.confirm(&block, &transfers).await;
    assert_eq!(answers, vec![Corroboration::Shown { endpoint: host_of(&paid.world.gateway).to_owned() }; 3]);
    assert_eq!((driver.cross_check(&block).await, driver.requests()), (CrossCheckResult::Confirmed, requests));
}
