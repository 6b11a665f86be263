//! Nodes that are down, silent or replaced, and a daemon that is killed meanwhile.

use super::{COIN, DEEP, NODE, Onchain, PLAIN, StorySetup};

ways! {
    async fn following_continues_after_the_node_was_down(world: Onchain) {
        let order = world.place_order().await;
        world.pay(&[(&order, order.due)]).await;
        world.mine_unseen(1).await;
        let stopped = world.stop_node().await;
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        world.start_node(stopped).await;
        world.run_until_completed(&order).await;
        world.mine(DEEP).await;
        assert_eq!(world.merchant_available(COIN).await, order.due);
    }

    async fn a_silent_node_does_not_delay_other_requests(world: Onchain = StorySetup { timeout_ms: 1_000, ..PLAIN }) {
        let order = world.place_order().await;
        world.pay(&[(&order, order.due)]).await;
        world.mine_unseen(1).await;
        world.node().pause().expect(NODE);
        world.run_until_idle().await;
        let answer = world.assert_status(&order, "pending", "pending").await;
        assert_eq!(answer.status, 200, "the surface answers meanwhile");
        world.node().resume().expect(NODE);
        world.run_until_completed(&order).await;
    }

    async fn a_crash_between_payment_and_block_changes_nothing(world: Onchain) {
        let order = world.place_order().await;
        world.pay(&[(&order, order.due)]).await;
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        world.crash_and_boot().await;
        world.assert_status(&order, "pending", "confirming").await;
        world.mine_unseen(1).await;
        world.crash_and_boot().await;
        world.assert_status(&order, "completed", "paid").await;
        world.mine(DEEP).await;
        assert_eq!(world.merchant_available(COIN).await, order.due);
    }
}
