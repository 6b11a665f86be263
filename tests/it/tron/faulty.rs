//! An endpoint that throttles, sends garbage, omits data, lags or fails costs time, never a payment.

use chain::Amount;
use tronnode::gateway::GatewayFault;

use super::node::LAG;
use super::{Onchain, StorySetup};

/// Returns all faults that an endpoint can have.
const FAULTS: [GatewayFault; 18] = [
    GatewayFault::Throttled,
    GatewayFault::Unavailable,
    GatewayFault::ErrorIn200,
    GatewayFault::WebPage,
    GatewayFault::LostAnswer,
    GatewayFault::TruncatedAnswer,
    GatewayFault::Slow,
    GatewayFault::Silent,
    GatewayFault::Lagging(60),
    GatewayFault::LaggingExceptTip(60),
    GatewayFault::NoReceipts,
    GatewayFault::MissingReceipt,
    GatewayFault::NoTransactions,
    GatewayFault::HalfRange,
    GatewayFault::ForgedPayment,
    GatewayFault::WrongChain,
    GatewayFault::SlowRanges(1),
    GatewayFault::None,
];

both! {
    async fn the_only_endpoint_fails_and_recovers(world: Onchain) {
        let mut expected = Amount::ZERO;
        for fault in FAULTS {
            let order = world.place_order("trc20_usdt").await;
            world.gateways[0].set_fault(fault);
            world.pay(&order, order.due);
            world.settle().await;
            world.gateways[0].set_fault(GatewayFault::None);
            world.run_until_completed(&order).await;
            expected = expected.checked_add(order.due).unwrap();
            assert_eq!(world.merchant_available("trc20_usdt").await, expected, "{fault:?}");
        }
    }

    async fn empty_responses_are_not_trusted(world: Onchain) {
        for fault in [GatewayFault::NoReceipts, GatewayFault::MissingReceipt, GatewayFault::NoTransactions, GatewayFault::ForgedPayment] {
            let order = world.place_order("trx").await;
            world.gateways[0].set_fault(fault);
            world.pay(&order, order.due);
            world.settle().await;
            world.settle().await;
            // No block was skipped: no block after the unreadable one was stored.
            world.assert_status(&order, "pending", "pending").await;
            world.gateways[0].set_fault(GatewayFault::None);
            world.run_until_completed(&order).await;
        }
    }

    async fn a_second_endpoint_hides_the_outage_of_the_first(world: Onchain = StorySetup { gateways: 2 }) {
        for fault in FAULTS {
            for coin in ["trx", "trc20_usdt"] {
                // Advances the clock by the time of the new blocks, so that the chain is not ahead of the clock.
                world.advance_seconds(120);
                let order = world.place_order(coin).await;
                world.gateways[0].set_fault(fault);
                world.pay(&order, order.due);
                world.settle_without_second_source().await;
                world.run_until_completed(&order).await;
                world.gateways[0].set_fault(GatewayFault::None);
            }
        }
    }

    async fn a_rate_limit_suspension_is_waited_out(world: Onchain = StorySetup { gateways: 2 }) {
        world.gateways[0].set_fault(GatewayFault::Suspended(30));
        world.produce(1).await;
        let asked = world.gateways[0].request_count("");
        world.gateways[0].set_fault(GatewayFault::None);
        let order = world.place_order("trx").await;
        world.pay(&order, order.due);
        world.settle_without_second_source().await;
        world.run_until_completed(&order).await;
        assert_eq!(world.gateways[0].request_count(""), asked, "half a minute has not passed");
    }

    async fn the_endpoint_is_replaced_during_a_payment(world: Onchain = StorySetup { gateways: 2 }) {
        let urls: Vec<String> = world.gateways.iter().map(|gateway| gateway.url.clone()).collect();
        let only = |url: &str| world.tron.build_chain_config(&[url.to_owned()]);
        let (first, second) = (only(&urls[0]), only(&urls[1]));
        world.config.chains.insert(first.id.clone(), first);
        world.crash_and_boot().await;
        let order = world.place_order("trc20_usdt").await;
        world.pay(&order, order.due);
        world.produce(5).await;
        world.assert_status(&order, "pending", "confirming").await;
        // The old endpoint fails, and the new endpoint lags a little.
        drop(world.gateways.remove(0));
        world.gateways[0].set_fault(GatewayFault::Lagging(3));
        world.config.chains.insert(second.id.clone(), second);
        world.crash_and_boot().await;
        world.produce(LAG - 2).await;
        world.assert_status(&order, "pending", "confirming").await;
        world.produce(1).await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_available(order.coin).await, order.due);
    }

    async fn one_of_two_endpoints_fails_during_a_payment(world: Onchain = StorySetup { gateways: 2 }) {
        let order = world.place_order("trx").await;
        world.pay(&order, order.due);
        world.produce(5).await;
        drop(world.gateways.remove(0));
        world.settle_without_second_source().await;
        world.run_until_completed(&order).await;
    }

    async fn no_invoice_expires_while_the_node_is_stale(world: Onchain) {
        let order = world.place_order("trx").await;
        world.advance_seconds(20 * 60);
        world.pay(&order, order.due);
        world.gateways[0].set_fault(GatewayFault::Throttled);
        world.settle().await;
        world.advance_seconds(3 * 3_600);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        world.gateways[0].set_fault(GatewayFault::None);
        world.tron.produce(20, world.clock.now());
        world.run_until_completed(&order).await;
    }
}
