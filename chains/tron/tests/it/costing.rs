//! What a transfer costs is known before it is sent, and the limit that follows from it is enough.

use chain::{AddressKey, Amount};
use serde_json::json;
use tron::{
    abi,
    resources::{Resources, Simulation},
    transaction::{Operation, Resource},
};

use crate::world::World;

/// Bandwidth of a token transfer.
const BYTES: u64 = 345;
const CEILING: u64 = 40_000_000;

fn transfer(world: &World, to: AddressKey, amount: u128) -> Operation {
    Operation::Trigger { contract: world.usdt, call_value: 0, data: abi::transfer(to, Amount::from_units(amount)) }
}

async fn simulated(world: &World, from: AddressKey, to: AddressKey, amount: u128) -> Simulation {
    world.driver().simulate(from, world.usdt, &abi::transfer(to, Amount::from_units(amount))).await.unwrap()
}

fn ended(world: &World, txid: &[u8; 32]) -> String {
    world.node.produce(1, 0);
    let model = world.node.model();
    model.find(txid, model.head_height()).unwrap().1.ret.name().to_owned()
}

#[tokio::test]
async fn a_new_holder_costs_one_storage_slot_more() {
    let world = World::start().await;
    let (from, new) = (world.rich[0].account, AddressKey([5; 20]));
    let first = simulated(&world, from, new, 7).await;
    let txid = world.node.send(&world.rich[0], &transfer(&world, new, 7));
    assert_eq!(ended(&world, &txid), "SUCCESS");
    let second = simulated(&world, from, new, 7).await;
    assert_eq!(first.energy - second.energy, 66_000, "15,000 at the factor of 4.4");
    // Tether's transfer says false when it worked.
    assert_eq!(second.outcome, Ok(vec!["0".repeat(64)]));
    let used = world.node.model().find(&txid, u64::MAX).unwrap().1.info.energy_total;
    assert_eq!(used, first.energy, "what was simulated is what is used");
}

#[tokio::test]
async fn the_limit_of_a_bill_is_enough_and_half_of_it_is_not() {
    let world = World::start().await;
    let driver = world.driver();
    let (from, to) = (&world.rich[0], AddressKey([6; 20]));
    let prices = driver.prices().await.unwrap();
    assert_eq!((prices.energy, prices.bandwidth, prices.fee_limit_max), (100, 1_000, 15_000_000_000));
    let have = driver.resources(from.account).await.unwrap();
    assert_eq!((have.energy, have.bandwidth), (0, 0));
    let needed = simulated(&world, from.account, to, 7).await.energy;
    let bill = prices.call_cost(needed, BYTES, have, CEILING).unwrap();
    let limit = i64::try_from(bill.fee_limit).unwrap();
    let starved = world.node.try_send(from, &transfer(&world, to, 7), limit / 2).unwrap();
    assert_eq!(ended(&world, &starved), "OUT_OF_ENERGY");
    let before = driver_balance(&world, from.account);
    let paid = world.node.try_send(from, &transfer(&world, to, 7), limit).unwrap();
    assert_eq!(ended(&world, &paid), "SUCCESS");
    assert!(before - driver_balance(&world, from.account) <= bill.trx_needed);
}

fn driver_balance(world: &World, of: AddressKey) -> u64 {
    world.node.model().state.balance(alloy_primitives::Address::from(of.0))
}

#[tokio::test]
async fn lent_energy_is_capped_by_the_limit_too() {
    let world = World::start().await;
    let (from, to) = (&world.rich[0], AddressKey([7; 20]));
    world.node.lend_energy(from.account, 200_000);
    let have = world.driver().resources(from.account).await.unwrap();
    assert_eq!(have.energy, 200_000);
    let starved = world.node.try_send(from, &transfer(&world, to, 7), 5_000_000).unwrap();
    assert_eq!(ended(&world, &starved), "OUT_OF_ENERGY");
    let have = world.driver().resources(from.account).await.unwrap();
    assert_eq!(have, Resources { energy: 150_000, ..have }, "and all that it allowed is gone");
    let before = driver_balance(&world, from.account);
    let paid = world.node.try_send(from, &transfer(&world, to, 7), 20_000_000).unwrap();
    assert_eq!(ended(&world, &paid), "SUCCESS");
    assert!(before - driver_balance(&world, from.account) <= 345_000, "nothing but bandwidth is burned");
}

#[tokio::test]
async fn energy_is_lent_and_taken_back_here_and_by_tronweb() {
    let world = World::start().await;
    let (lender, borrower) = (&world.rich[0], world.rich[1].account);
    world.node.lend_energy(lender.account, 1_000_000);
    let left = async || world.driver().resources(borrower).await.unwrap().energy;
    let sun = 1_000_000_000;
    let lent = world.node.send(lender, &Operation::Delegate { resource: Resource::Energy, sun, to: borrower });
    assert_eq!(ended(&world, &lent), "SUCCESS");
    let energy = left().await;
    assert!(energy > 9_000, "{energy}");
    let wish = |what: &str| json!({ "node": world.gateway.url, "secret": "01".repeat(32), "to": world.rich[1].text(), what: sun });
    for (what, expected) in [("lend", 2 * energy), ("back", energy)] {
        let sent = provision::node::run_script("tronlend", wish(what)).await.unwrap_or_else(|e| panic!("{e}"));
        let txid = const_hex::decode_to_array(sent["txid"].as_str().unwrap()).unwrap();
        assert_eq!(ended(&world, &txid), "SUCCESS", "{what}");
        assert_eq!(left().await, expected, "{what}");
    }
    let back = world.node.send(lender, &Operation::Undelegate { resource: Resource::Energy, sun, from: borrower });
    assert_eq!(ended(&world, &back), "SUCCESS");
    assert_eq!(left().await, 0);
    for (refused, why) in [
        (Operation::Undelegate { resource: Resource::Energy, sun, from: borrower }, "nothing is lent"),
        (Operation::Delegate { resource: Resource::Energy, sun: 999_999, to: borrower }, "less than a TRX"),
        (Operation::Delegate { resource: Resource::Energy, sun, to: lender.account }, "to oneself"),
        (Operation::Delegate { resource: Resource::Energy, sun, to: world.usdt }, "to a contract"),
        (Operation::Delegate { resource: Resource::Energy, sun, to: AddressKey([9; 20]) }, "to nobody"),
    ] {
        let (code, _) = world.node.try_send(lender, &refused, 0).expect_err(why);
        assert_eq!(code, "CONTRACT_VALIDATE_ERROR", "{why}");
    }
}

#[tokio::test]
async fn a_transfer_that_would_fail_says_so_before() {
    let world = World::start().await;
    let simulation = simulated(&world, world.rich[2].account, AddressKey([8; 20]), 1).await;
    assert_eq!(simulation.outcome, Err("REVERT opcode executed".to_owned()));
    assert_eq!(world.driver().resources(AddressKey([8; 20])).await.unwrap(), Resources::default(), "not activated");
    assert_eq!(world.driver().balance(AddressKey([8; 20])).await.unwrap(), 0);
}
