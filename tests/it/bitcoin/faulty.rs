//! Nodes that are down, silent or replaced, and a daemon that is killed meanwhile.

use std::time::Duration;

use config::Api;
use db::Backend;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_withdraws_its_coin_long_before_the_request_times_out() {
    let world = Onchain::start(Backend::Sqlite, Api::Core).await;
    world.node().pause().expect(NODE);
    let health = world.daemon.as_ref().expect("the daemon runs").health.clone();
    let problem = async {
        let mut beat = tokio::time::interval(Duration::from_millis(50));
        loop {
            beat.tick().await;
            if let Some(problem) = health.problems().remove("follow bitcoin") {
                return problem;
            }
        }
    };
    // The request is still under way when the coin is withdrawn.
    let problem = tokio::select! {
        problem = problem => problem,
        () = world.run_until_idle() => panic!("the request ended first"),
    };
    assert_eq!(problem, "no endpoint of bitcoin has answered for 5 s");
    let wish = serde_json::json!({ "productId": world.product.id, "quantity": 40, "contactEmail": "buyer@example.com",
        "paymentMethod": "crypto", "coin": COIN });
    let refused = world.post("/api/orders", &wish).await;
    assert_eq!((refused.status, refused.text_at("error").as_str()), (400, "payment_method_unavailable"));
    world.node().resume().expect(NODE);
    world.run_until_idle().await;
    assert_eq!(world.get("/readyz").await.status, 200);
    assert_eq!(world.post("/api/orders", &wish).await.status, 201);
}
