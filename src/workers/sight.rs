//! Looks at what is on its way on one chain.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chain::{Sighting, Source};
use tokio::sync::Mutex;
use tracing::debug;

use crate::clock::Clock;
use crate::db::Db;
use crate::money::coins::Chain;
use crate::money::invoices;
use crate::money::sightings::{self, Look};
use crate::workers::{Ran, Worker};

/// Addresses that a public server is asked for at one look: those of the oldest open invoices, so that none leaves the list
/// before it is closed.
const AWAITED_MAX: i64 = 50;

pub struct Sight {
    db: Db,
    clock: Clock,
    chain: Chain,
    source: Arc<dyn Source>,
    pause: Duration,
    /// What was stored last, so that an unchanged mempool costs no transaction. `None`: not known.
    last: Mutex<Option<Vec<Sighting>>>,
}

impl Sight {
    pub fn new(db: Db, clock: Clock, chain: Chain, source: Arc<dyn Source>, pause: Duration) -> Sight {
        Sight { db, clock, chain, source, pause, last: Mutex::new(None) }
    }
}

#[async_trait]
impl Worker for Sight {
    fn name(&self) -> String {
        format!("sight {}", self.chain.id)
    }

    fn pause(&self) -> Duration {
        self.pause
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        let chain = self.chain.id.clone();
        let awaited = self.db.read("list_awaited", move |tx| {
            Box::pin(async move { invoices::list_awaited(tx, &chain, AWAITED_MAX).await })
        });
        let awaited = awaited.await?;
        let Some(sightings) = self.source.sightings(&self.chain.watched, &awaited).await? else {
            return Ok(Ran::Idle);
        };
        let mut last = self.last.lock().await;
        if last.as_ref() == Some(&sightings) {
            return Ok(Ran::Idle);
        }
        // Asked afterwards: whatever was mined before the look stands at or below this head.
        let head = self.source.tip().await?.head.height;
        let (now, chain) = (self.clock.now(), self.chain.clone());
        let look = Look { sightings: sightings.clone(), head };
        let observed = self
            .db
            .write("observe_sightings", move |tx| {
                Box::pin(async move { sightings::observe(tx, now, &chain, &look).await })
            })
            .await?;
        *last = (!observed.open).then_some(sightings);
        if observed.appeared + observed.ended > 0 {
            debug!(chain = %self.chain.id, appeared = observed.appeared, ended = observed.ended, "on its way");
            return Ok(Ran::Worked);
        }
        Ok(Ran::Idle)
    }
}
