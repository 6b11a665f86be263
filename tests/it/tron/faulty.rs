//! An endpoint that throttles, babbles, omits, lags or dies costs time, never a payment.

use chain::Amount;
use tronnode::gateway::GatewayFault;

use super::node::LAG;
use super::{Onchain, Plan};

/// Every way to be of no use.
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
            let placed = world.place("trc20_usdt").await;
            world.gateways[0].set_fault(fault);
            world.pay(&placed, placed.due);
            world.settle().await;
            world.gateways[0].set_fault(GatewayFault::None);
            world.until_completed(&placed).await;
            expected = expected.checked_add(placed.due).unwrap();
            assert_eq!(world.earned("trc20_usdt").await, expected, "{fault:?}");
        }
    }

    async fn empty_answers_are_not_believed(world: Onchain) {
        for fault in [GatewayFault::NoReceipts, GatewayFault::MissingReceipt, GatewayFault::NoTransactions, GatewayFault::ForgedPayment] {
            let placed = world.place("trx").await;
            world.gateways[0].set_fault(fault);
            world.pay(&placed, placed.due);
            world.settle().await;
            world.settle().await;
            // Nothing was skipped: no block after the one that could not be read was read.
            world.expect(&placed, "pending", "pending").await;
            world.gateways[0].set_fault(GatewayFault::None);
            world.until_completed(&placed).await;
        }
    }

    async fn with_a_second_endpoint_nothing_is_even_late(world: Onchain = Plan { gateways: 2 }) {
        for fault in FAULTS {
            for coin in ["trx", "trc20_usdt"] {
                // As long as its blocks take, lest the chain be ahead of the clock.
                world.advance_seconds(60);
                let placed = world.place(coin).await;
                world.gateways[0].set_fault(fault);
                world.pay(&placed, placed.due);
                world.settle().await;
                world.until_completed(&placed).await;
                world.gateways[0].set_fault(GatewayFault::None);
            }
        }
    }

    async fn a_suspension_is_sat_out(world: Onchain = Plan { gateways: 2 }) {
        world.gateways[0].set_fault(GatewayFault::Suspended(30));
        world.produce(1).await;
        let asked = world.gateways[0].request_count("");
        world.gateways[0].set_fault(GatewayFault::None);
        let placed = world.place("trx").await;
        world.pay(&placed, placed.due);
        world.settle().await;
        world.until_completed(&placed).await;
        assert_eq!(world.gateways[0].request_count(""), asked, "half a minute has not passed");
    }

    async fn the_endpoint_is_replaced_on_the_way(world: Onchain = Plan { gateways: 2 }) {
        let urls: Vec<String> = world.gateways.iter().map(|gateway| gateway.url.clone()).collect();
        let only = |url: &str| world.tron.configured(&[url.to_owned()]);
        let (first, second) = (only(&urls[0]), only(&urls[1]));
        world.config.chains.insert(first.id.clone(), first);
        world.crash_and_boot().await;
        let placed = world.place("trc20_usdt").await;
        world.pay(&placed, placed.due);
        world.produce(5).await;
        world.expect(&placed, "pending", "confirming").await;
        // The old one dies, the new one is a little behind.
        drop(world.gateways.remove(0));
        world.gateways[0].set_fault(GatewayFault::Lagging(3));
        world.config.chains.insert(second.id.clone(), second);
        world.crash_and_boot().await;
        world.produce(LAG - 2).await;
        world.expect(&placed, "pending", "confirming").await;
        world.produce(1).await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.earned(placed.coin).await, placed.due);
    }

    async fn one_of_two_endpoints_dies_on_the_way(world: Onchain = Plan { gateways: 2 }) {
        let placed = world.place("trx").await;
        world.pay(&placed, placed.due);
        world.produce(5).await;
        drop(world.gateways.remove(0));
        world.settle().await;
        world.until_completed(&placed).await;
    }

    async fn nothing_expires_while_the_node_is_stale(world: Onchain) {
        let placed = world.place("trx").await;
        world.advance_seconds(20 * 60);
        world.pay(&placed, placed.due);
        world.gateways[0].set_fault(GatewayFault::Throttled);
        world.settle().await;
        world.advance_seconds(3 * 3_600);
        world.run_until_idle().await;
        world.expect(&placed, "pending", "pending").await;
        world.gateways[0].set_fault(GatewayFault::None);
        world.tron.produce(20, world.clock.now());
        world.until_completed(&placed).await;
    }
}
