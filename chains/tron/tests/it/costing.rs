//! Tests of cost estimates: a simulated cost is the real one, and the fee limit computed from it is sufficient.

use chain::{AddressKey, Amount};
use serde_json::json;
use tron::{
    abi,
    simulated_calls::Simulation,
    transaction::{Operation, Resource},
    transaction_costs::Resources,
};

use crate::world::World;

/// Bandwidth of a token transfer, in bytes.
const TRANSFER_BYTES: u64 = 345;
/// The operator's maximum fee limit, in sun.
const FEE_LIMIT_MAX: u64 = 40_000_000;

fn build_token_transfer(world: &World, to: AddressKey, amount: u128) -> Operation {
    Operation::Trigger {
        contract: world.usdt,
        call_value: 0,
        data: abi::encode_transfer_call(to, Amount::from_units(amount)),
    }
}

async fn simulate_transfer(world: &World, from: AddressKey, to: AddressKey, amount: u128) -> Simulation {
    world
        .build_driver()
        .simulate_call(from, world.usdt, &abi::encode_transfer_call(to, Amount::from_units(amount)))
        .await
        .unwrap()
}

/// Produces a block and returns the result of a transaction.
fn include_transaction(world: &World, txid: &[u8; 32]) -> String {
    world.node.produce_blocks(1, 0);
    let model = world.node.model();
    model.find(txid, model.head_height()).unwrap().1.ret.json_name().to_owned()
}

#[tokio::test]
async fn a_transfer_to_a_new_holder_costs_one_more_storage_slot() {
    let world = World::start_world().await;
    let (from, new) = (world.rich[0].account, AddressKey([5; 20]));
    let first = simulate_transfer(&world, from, new, 7).await;
    let txid = world.node.send_operation(&world.rich[0], &build_token_transfer(&world, new, 7));
    assert_eq!(include_transaction(&world, &txid), "SUCCESS");
    let second = simulate_transfer(&world, from, new, 7).await;
    assert_eq!(first.energy - second.energy, 66_000, "15,000 at the factor of 4.4");
    // On TRON, the `transfer` of USDT returns false even when it succeeds.
    assert_eq!(second.outcome, Ok(vec!["0".repeat(64)]));
    let used = world.node.model().find(&txid, u64::MAX).unwrap().1.receipt.energy_total;
    assert_eq!(used, first.energy, "the transfer uses the simulated energy");
}

#[tokio::test]
async fn the_computed_fee_limit_is_sufficient_and_half_of_it_is_not() {
    let world = World::start_world().await;
    let driver = world.build_driver();
    let (from, to) = (&world.rich[0], AddressKey([6; 20]));
    let prices = driver.fetch_resource_prices().await.unwrap();
    assert_eq!((prices.energy, prices.bandwidth, prices.fee_limit_max), (100, 1_000, 15_000_000_000));
    let have = driver.fetch_unused_resources(from.account).await.unwrap();
    assert_eq!((have.energy, have.bandwidth), (0, 0));
    let needed = simulate_transfer(&world, from.account, to, 7).await.energy;
    let cost = prices.compute_call_cost_within_limit(needed, TRANSFER_BYTES, have, FEE_LIMIT_MAX).unwrap();
    let limit = i64::try_from(cost.fee_limit).unwrap();
    let starved = world.node.try_send_operation(from, &build_token_transfer(&world, to, 7), limit / 2).unwrap();
    assert_eq!(include_transaction(&world, &starved), "OUT_OF_ENERGY");
    let before = account_balance(&world, from.account);
    let paid = world.node.try_send_operation(from, &build_token_transfer(&world, to, 7), limit).unwrap();
    assert_eq!(include_transaction(&world, &paid), "SUCCESS");
    assert!(before - account_balance(&world, from.account) <= cost.trx_needed);
}

/// Returns the balance of an account in the model, in sun.
fn account_balance(world: &World, account: AddressKey) -> u64 {
    world.node.model().state.balance(alloy_primitives::Address::from(account.0))
}

#[tokio::test]
async fn the_fee_limit_caps_lent_energy_too() {
    let world = World::start_world().await;
    let (from, to) = (&world.rich[0], AddressKey([7; 20]));
    world.node.lend_energy(from.account, 200_000);
    let have = world.build_driver().fetch_unused_resources(from.account).await.unwrap();
    assert_eq!(have.energy, 200_000);
    let starved = world.node.try_send_operation(from, &build_token_transfer(&world, to, 7), 5_000_000).unwrap();
    assert_eq!(include_transaction(&world, &starved), "OUT_OF_ENERGY");
    let have = world.build_driver().fetch_unused_resources(from.account).await.unwrap();
    assert_eq!(have, Resources { energy: 150_000, ..have }, "the failed call used all energy that the limit allowed");
    let before = account_balance(&world, from.account);
    let paid = world.node.try_send_operation(from, &build_token_transfer(&world, to, 7), 20_000_000).unwrap();
    assert_eq!(include_transaction(&world, &paid), "SUCCESS");
    assert!(before - account_balance(&world, from.account) <= 345_000, "nothing but bandwidth is burned");
}

#[tokio::test]
async fn the_driver_and_tronweb_lend_energy_and_take_it_back() {
    let world = World::start_world().await;
    let (lender, borrower) = (&world.rich[0], world.rich[1].account);
    world.node.lend_energy(lender.account, 1_000_000);
    let energy_left = async || world.build_driver().fetch_unused_resources(borrower).await.unwrap().energy;
    let sun = 1_000_000_000;
    let lent =
        world.node.send_operation(lender, &Operation::Delegate { resource: Resource::Energy, sun, to: borrower });
    assert_eq!(include_transaction(&world, &lent), "SUCCESS");
    let energy = energy_left().await;
    assert!(energy > 9_000, "{energy}");
    let input = |action: &str| json!({ "node": world.gateway.url, "secret": "01".repeat(32), "to": world.rich[1].address(), action: sun });
    for (action, expected) in [("lend", 2 * energy), ("back", energy)] {
        let sent = provision::node::run_node_script("tronlend", input(action)).await.unwrap_or_else(|e| panic!("{e}"));
        let txid = const_hex::decode_to_array(sent["txid"].as_str().unwrap()).unwrap();
        assert_eq!(include_transaction(&world, &txid), "SUCCESS", "{action}");
        assert_eq!(energy_left().await, expected, "{action}");
    }
    let back =
        world.node.send_operation(lender, &Operation::Undelegate { resource: Resource::Energy, sun, from: borrower });
    assert_eq!(include_transaction(&world, &back), "SUCCESS");
    assert_eq!(energy_left().await, 0);
    for (refused, why) in [
        (Operation::Undelegate { resource: Resource::Energy, sun, from: borrower }, "nothing is lent"),
        (Operation::Delegate { resource: Resource::Energy, sun: 999_999, to: borrower }, "less than a TRX"),
        (Operation::Delegate { resource: Resource::Energy, sun, to: lender.account }, "to oneself"),
        (Operation::Delegate { resource: Resource::Energy, sun, to: world.usdt }, "to a contract"),
        (
            Operation::Delegate { resource: Resource::Energy, sun, to: AddressKey([9; 20]) },
            "to an account that does not exist",
        ),
    ] {
        let (code, _) = world.node.try_send_operation(lender, &refused, 0).expect_err(why);
        assert_eq!(code, "CONTRACT_VALIDATE_ERROR", "{why}");
    }
}

#[tokio::test]
async fn the_simulation_of_a_failing_transfer_returns_its_error() {
    let world = World::start_world().await;
    let simulation = simulate_transfer(&world, world.rich[2].account, AddressKey([8; 20]), 1).await;
    assert_eq!(simulation.outcome, Err("REVERT opcode executed".to_owned()));
    assert_eq!(
        world.build_driver().fetch_unused_resources(AddressKey([8; 20])).await.unwrap(),
        Resources::default(),
        "not activated"
    );
    assert_eq!(world.build_driver().fetch_solidified_trx_balance(AddressKey([8; 20])).await.unwrap(), 0);
}
