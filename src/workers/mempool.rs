//! Reads the mempool of one chain and stores its unconfirmed transfers to watched addresses.

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

/// Maximum number of open invoices without an unconfirmed transfer whose addresses are looked up in one run. The limit
/// applies only when the source cannot read the whole mempool.
const EXPECTING_PAYMENT_MAX: i64 = 20;

/// Reads the mempool of one chain and stores its transfers to watched addresses.
pub struct MempoolWorker {
    db: Db,
    clock: Clock,
    chain: FollowedChain,
    source: Arc<dyn Source>,
    pause: Duration,
    /// The transfers that were stored last, so that an unchanged mempool needs no database transaction; `None` when
    /// they must be stored again in any case.
    last: Mutex<Option<Vec<UnconfirmedTransfer>>>,
}

impl MempoolWorker {
    /// Creates a worker that reads the mempool from `source` and waits for `pause` after each run.
    pub fn new(db: Db, clock: Clock, chain: FollowedChain, source: Arc<dyn Source>, pause: Duration) -> MempoolWorker {
        MempoolWorker { db, clock, chain, source, pause, last: Mutex::new(None) }
    }
}

impl MempoolWorker {
    /// Returns true when the mempool must be read: the chain has an open invoice or a stored unconfirmed transfer.
    /// Otherwise the worker sends no request, because providers bill each request.
    async fn is_mempool_needed(&self) -> Result<bool, db::Error> {
        let chain = self.chain.id.clone();
        let waiting = self.db.run_body_as_select_with_fallback("is_invoice_or_transfer_waiting", move |tx| {
            Box::pin(async move { unconfirmed::is_invoice_or_transfer_waiting(tx, &chain).await })
        });
        waiting.await
    }

    /// Returns the addresses of open invoices, at most 20, that an Esplora server looks up one by one when its mempool
    /// is too large to be read; empty on chains other than Bitcoin.
    async fn list_addresses_expecting_payment(&self) -> Result<Vec<Address>, db::Error> {
        if self.chain.family != Family::Bitcoin {
            return Ok(Vec::new());
        }
        let chain = self.chain.id.clone();
        let list = self.db.read("list_addresses_expecting_payment", move |tx| {
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

    /// Reads the mempool once and stores the changes. Always returns `Idle`, so that a pause follows: requests may
    /// reach several nodes with different mempools, and then every run would find changes.
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
        // The newest block is read after the mempool. A transfer that left the mempool because it was mined is
        // therefore in this block or below it.
        let head = self.source.tip().await?.head.height;
        let (now, chain) = (self.clock.now(), self.chain.clone());
        let snapshot = MempoolSnapshot { unconfirmed: unconfirmed.clone(), head };
        let observed = self
            .db
            .write("store_mempool_differences", move |tx| {
                Box::pin(async move { unconfirmed::store_mempool_differences(tx, now, &chain, &snapshot).await })
            })
            .await?;
        *last = (!observed.open).then_some(unconfirmed);
        if observed.appeared + observed.ended > 0 {
            debug!(chain = %self.chain.id, appeared = observed.appeared, ended = observed.ended, "unconfirmed transfers changed");
        }
        Ok(Ran::Idle)
    }
}
