//! One lying endpoint of two: it adds payments, token transfers and calls to true blocks, and nothing of it becomes money.

use chain::Amount;
use tronnode::gateway::{GatewayFault, InventedMoney};

use super::{Onchain, StorySetup, account};
use crate::placed_order::PlacedOrder;

/// Makes the first gateway invent money for the order's address in every block that has a transaction.
fn invent_money(world: &Onchain, order: &PlacedOrder) {
    let amount = u32::try_from(order.due.units()).expect("a small amount");
    let money = InventedMoney { token: world.tron.usdt, to: account(order), amount };
    world.gateways[0].set_fault(GatewayFault::InventedMoney(money));
}

/// Asserts that a deposit of the order is booked and not confirmed, and that each review names both endpoints.
async fn assert_contradicted(world: &Onchain, order: &PlacedOrder) {
    world.assert_status(order, "pending", "confirming").await;
    assert_eq!(world.merchant_pending(order.coin).await, Amount::ZERO);
    assert_eq!(world.merchant_available(order.coin).await, Amount::ZERO);
    let reviews = world.open_reviews().await;
    let contradicted: Vec<_> = reviews.iter().filter(|review| review.kind.as_str() == "deposit.contradicted").collect();
    assert!(!contradicted.is_empty(), "{reviews:?}");
    for review in contradicted {
        for gateway in &world.gateways {
            let host = gateway.url.trim_start_matches("http://");
            assert!(review.detail.contains(host), "{host} is not named: {}", review.detail);
        }
    }
}

async fn assert_invented_money_is_never_confirmed(mut world: Onchain, coin: &'static str) {
    let (order, honest) = (world.place_order(coin).await, world.place_order(coin).await);
    invent_money(&world, &order);
    // A successful call of a contract in the block, to which the endpoint adds transfers.
    let payer = world.place_order("trc20_usdt").await;
    world.pay(&payer, Amount::from(1u64));
    world.settle_without_second_source().await;
    assert_contradicted(&world, &order).await;
    // Neither time, nor depth, nor the silence of the other endpoint, nor a restart turns it into money.
    world.gateways[1].set_fault(GatewayFault::Silent);
    world.advance_seconds(600);
    world.settle_without_second_source().await;
    world.crash_and_boot().await;
    world.advance_seconds(600);
    world.run_until_idle().await;
    world.gateways[1].set_fault(GatewayFault::None);
    assert_contradicted(&world, &order).await;
    world.gateways[0].set_fault(GatewayFault::None);
    world.pay(&honest, honest.due);
    world.settle().await;
    world.run_until_completed(&honest).await;
}

both! {
    async fn trx_that_one_endpoint_invents_is_never_confirmed(world: Onchain = StorySetup { gateways: 2 }) {
        assert_invented_money_is_never_confirmed(world, "trx").await;
    }

    async fn tokens_that_one_endpoint_invents_are_never_confirmed(world: Onchain = StorySetup { gateways: 2 }) {
        assert_invented_money_is_never_confirmed(world, "trc20_usdt").await;
    }
}
