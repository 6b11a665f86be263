//! Reads the unconfirmed transfers of one chain.

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

/// Maximum number of open invoices whose addresses are looked up in one run where the source cannot read the whole
/// mempool, in addition to those with an unconfirmed transfer.
const EXPECTING_PAYMENT_MAX: i64 = 20;

/// Reads the mempool of one chain and stores its transfers to watched addresses.
pub struct MempoolWorker {
    db: Db,
    clock: Clock,
    chain: FollowedChain,
    source: Arc<dyn Source>,
    pause: Duration,
    /// The transfers that were stored last, so that an unchanged mempool costs no transaction; `None` when the stored
    /// transfers are not known.
    last: Mutex<Option<Vec<UnconfirmedTransfer>>>,
}

impl MempoolWorker {
    /// A worker that reads `source` after each `pause`.
    pub fn new(db: Db, clock: Clock, chain: FollowedChain, source: Arc<dyn Source>, pause: Duration) -> MempoolWorker {
        MempoolWorker { db, clock, chain, source, pause, last: Mutex::new(None) }
    }
}

impl MempoolWorker {
    /// Returns true when an open invoice or a stored transfer needs the mempool. Otherwise no request is sent, because
    /// providers bill each request.
    async fn is_mempool_needed(&self) -> Result<bool, db::Error> {
        let chain = self.chain.id.clone();
        let waiting = self.db.select_one("is_unconfirmed_awaited", move |tx| {
            Box::pin(async move { unconfirmed::is_money_expected(tx, &chain).await })
        });
        waiting.await
    }

    /// Returns the addresses that the source may have to look up one by one. Only Esplora, on Bitcoin, needs them.
    async fn list_addresses_expecting_payment(&self) -> Result<Vec<Address>, db::Error> {
        if self.chain.family != Family::Bitcoin {
            return Ok(Vec::new());
        }
        let chain = self.chain.id.clone();
        let list = self.db.read("list_expecting_payment", move |tx| {
            Box::pin(async move { invoices::list_addresses_expecting_payment(tx, &chain, EXPECTING_PAYMENT_MAX).await })
        });
        list.await
    }
}

#[async_trait]
impl Worker for MempoolWorker {
    fn name(&self) -> String {
        format!("mempool {}", self.chain.id)
    }

    fn idle_pause(&self) -> Duration {
        self.pause
    }

    fn is_wakeable(&self) -> bool {
        false
    }

    /// Reads the mempool once. Always returns `Idle`, so that a pause follows: endpoints at different heights would
    /// otherwise keep the worker busy without end.
    async fn run_once(&self) -> anyhow::Result<Ran> {
        if !self.is_mempool_needed().await? {
            *self.last.lock().await = None;
            return Ok(Ran::Idle);
        }
        let expecting_payment = self.list_addresses_expecting_payment().await?;
        let Some(unconfirmed) = self.source.unconfirmed(&self.chain.watched, &expecting_payment).await? else {
            return Ok(Ran::Idle);
        };
        let mut last = self.last.lock().await;
        if last.as_ref() == Some(&unconfirmed) {
            return Ok(Ran::Idle);
        }
        // The head is read after the mempool, so a transaction that was mined before is in a block at or below this
        // head.
        let head = self.source.tip().await?.head.height;
        let (now, chain) = (self.clock.now(), self.chain.clone());
        let look = MempoolSnapshot { unconfirmed: unconfirmed.clone(), head };
        let observed = self
            .db
            .write("observe_unconfirmed", move |tx| {
                Box::pin(async move { unconfirmed::store_mempool_snapshot(tx, now, &chain, &look).await })
            })
            .await?;
        *last = (!observed.open).then_some(unconfirmed);
        if observed.appeared + observed.ended > 0 {
            debug!(chain = %self.chain.id, appeared = observed.appeared, ended = observed.ended, "unconfirmed transfers changed");
        }
        Ok(Ran::Idle)
    }
}
