//! Looks at what is on its way on one chain.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chain::{Address, Family, Sighting, Source};
use tokio::sync::Mutex;
use tracing::debug;

use crate::clock::Clock;
use crate::db::{self, Db};
use crate::money::coins::Chain;
use crate::money::invoices;
use crate::money::sightings::{self, Look};
use crate::workers::{Ran, Worker};

/// Open invoices whose addresses a public server is asked for at one look, beside those with something on its way.
const AWAITED_MAX: i64 = 20;

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

impl Sight {
    /// Whether a look could tell anybody anything: nodes bill each question.
    async fn is_anybody_waiting(&self) -> Result<bool, db::Error> {
        let chain = self.chain.id.clone();
        let waiting = self
            .db
            .glance("sightings_awaited", move |tx| Box::pin(async move { sightings::is_awaited(tx, &chain).await }));
        waiting.await
    }

    /// Only Esplora may have to be asked for addresses.
    async fn awaited(&self) -> Result<Vec<Address>, db::Error> {
        if self.chain.family != Family::Bitcoin {
            return Ok(Vec::new());
        }
        let chain = self.chain.id.clone();
        let list = self.db.read("list_awaited", move |tx| {
            Box::pin(async move { invoices::list_awaited(tx, &chain, AWAITED_MAX).await })
        });
        list.await
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

    fn heeds_wake(&self) -> bool {
        false
    }

    /// A look for each pause, whatever it found: endpoints of different heights would have it run in circles.
    async fn run(&self) -> anyhow::Result<Ran> {
        if !self.is_anybody_waiting().await? {
            *self.last.lock().await = None;
            return Ok(Ran::Idle);
        }
        let awaited = self.awaited().await?;
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
        }
        Ok(Ran::Idle)
    }
}
