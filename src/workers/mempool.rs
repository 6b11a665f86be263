//! Polls the unconfirmed transfers of one chain.

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
use money::unconfirmed::{self, Look};

/// Maximum number of open invoices whose addresses are requested from an Esplora server in one poll, in addition to
/// those that already have an unconfirmed transfer.
const AWAITED_MAX: i64 = 20;

/// Polls the unconfirmed transfers of one chain and shows them on open invoices.
pub struct MempoolWorker {
    db: Db,
    clock: Clock,
    chain: FollowedChain,
    source: Arc<dyn Source>,
    pause: Duration,
    /// The transfers that were stored last, so that an unchanged mempool costs no transaction. `None` when they are not
    /// known.
    last: Mutex<Option<Vec<UnconfirmedTransfer>>>,
}

impl MempoolWorker {
    /// Creates the worker of a chain, which polls once per `pause`.
    pub fn new(db: Db, clock: Clock, chain: FollowedChain, source: Arc<dyn Source>, pause: Duration) -> MempoolWorker {
        MempoolWorker { db, clock, chain, source, pause, last: Mutex::new(None) }
    }
}

impl MempoolWorker {
    /// Returns true when an invoice waits for a transfer. Otherwise the poll is skipped, because providers bill each
    /// request.
    async fn is_anybody_waiting(&self) -> Result<bool, db::Error> {
        let chain = self.chain.id.clone();
        let waiting = self.db.select_one("is_unconfirmed_awaited", move |tx| {
            Box::pin(async move { unconfirmed::is_awaited(tx, &chain).await })
        });
        waiting.await
    }

    /// Returns the addresses to request from the server; empty except on Bitcoin, because only Esplora is queried by
    /// address.
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

    /// Polls once. It always returns `Idle`, so that the next poll comes after the pause: two endpoints with different
    /// mempools would otherwise make it run without a pause.
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
        // The head is requested after the mempool, so a transfer that was mined before the poll is at or below this
        // head.
        let head = self.source.tip().await?.head.height;
        let (now, chain) = (self.clock.now(), self.chain.clone());
        let look = Look { unconfirmed: unconfirmed.clone(), head };
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
