//! Looks at what is on its way on one chain.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chain::{Address, Family, Source, UnconfirmedTransfer};
use tokio::sync::Mutex;
use tracing::debug;

use crate::workers::{Ran, Worker};
use clock::Clock;
use db::{self, Db};
use money::assets::FollowedChain;
use money::invoices;
use money::unconfirmed::{self, MempoolSnapshot};

/// Open invoices whose addresses a public server is asked for at one look, beside those with something on its way.
const AWAITED_MAX: i64 = 20;

pub struct MempoolWorker {
    db: Db,
    clock: Clock,
    chain: FollowedChain,
    source: Arc<dyn Source>,
    pause: Duration,
    /// What was stored last, so that an unchanged mempool costs no transaction. `None`: not known.
    last: Mutex<Option<Vec<UnconfirmedTransfer>>>,
}

impl MempoolWorker {
    pub fn new(db: Db, clock: Clock, chain: FollowedChain, source: Arc<dyn Source>, pause: Duration) -> MempoolWorker {
        MempoolWorker { db, clock, chain, source, pause, last: Mutex::new(None) }
    }
}

impl MempoolWorker {
    /// Whether a look could tell anybody anything: nodes bill each question.
    async fn is_anybody_waiting(&self) -> Result<bool, db::Error> {
        let chain = self.chain.id.clone();
        let waiting = self.db.select_one("is_unconfirmed_awaited", move |tx| {
            Box::pin(async move { unconfirmed::is_expected(tx, &chain).await })
        });
        waiting.await
    }

    /// Only Esplora may have to be asked for addresses.
    async fn awaited(&self) -> Result<Vec<Address>, db::Error> {
        if self.chain.family != Family::Bitcoin {
            return Ok(Vec::new());
        }
        let chain = self.chain.id.clone();
        let list = self.db.read("list_expecting_payment", move |tx| {
            Box::pin(async move { invoices::list_expecting_payment(tx, &chain, AWAITED_MAX).await })
        });
        list.await
    }
}

#[async_trait]
impl Worker for MempoolWorker {
    fn name(&self) -> String {
        format!("sight {}", self.chain.id)
    }

    fn pause(&self) -> Duration {
        self.pause
    }

    fn wakeable(&self) -> bool {
        false
    }

    /// A look for each pause, whatever it found: endpoints of different heights would have it run in circles.
    async fn run(&self) -> anyhow::Result<Ran> {
        if !self.is_anybody_waiting().await? {
            *self.last.lock().await = None;
            return Ok(Ran::Idle);
        }
        let awaited = self.awaited().await?;
        let Some(unconfirmed) = self.source.unconfirmed(&self.chain.watched, &awaited).await? else {
            return Ok(Ran::Idle);
        };
        let mut last = self.last.lock().await;
        if last.as_ref() == Some(&unconfirmed) {
            return Ok(Ran::Idle);
        }
        // Asked afterwards: whatever was mined before the look stands at or below this head.
        let head = self.source.tip().await?.head.height;
        let (now, chain) = (self.clock.now(), self.chain.clone());
        let look = MempoolSnapshot { unconfirmed: unconfirmed.clone(), head };
        let observed = self
            .db
            .write("observe_sightings", move |tx| {
                Box::pin(async move { unconfirmed::observe(tx, now, &chain, &look).await })
            })
            .await?;
        *last = (!observed.open).then_some(unconfirmed);
        if observed.appeared + observed.ended > 0 {
            debug!(chain = %self.chain.id, appeared = observed.appeared, ended = observed.ended, "on its way");
        }
        Ok(Ran::Idle)
    }
}
