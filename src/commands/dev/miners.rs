//! The miners of the simulated chains.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::commands::dev::operations::Demo;
use clock::Clock;
use config::{ChainConfig, Config, Driver};
use tasks::Tasks;

/// Starts one mining task for each simulated chain. The tasks end when `stop` becomes true.
pub fn spawn_miners(
    tasks: &Tasks,
    config: &Config,
    demo: &Demo,
    clock: &Clock,
    stop: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let simulated = config.chains.values().filter(|chain| chain.enabled && chain.driver == Driver::Simnet);
    simulated
        .map(|chain| tasks.spawn("miner", mine_until_stopped(chain.clone(), demo.clone(), clock.clone(), stop.clone())))
        .collect()
}

async fn mine_until_stopped(chain: ChainConfig, demo: Demo, clock: Clock, mut stop: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(chain.block_time.max(Duration::from_millis(100)));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if !demo.is_miner_paused(&chain.id, clock.now()) {
            demo.simnet.mine(&chain.id, 1, clock.now().unix_seconds());
        }
    }
}
