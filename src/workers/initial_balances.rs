//! Reads the balances of newly leased addresses of one chain. The order that took the lease does not wait for it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use async_trait::async_trait;
use chain::{Address, Asset, ChainId, Source, SourceError};

use crate::workers::{Ran, Worker};
use clock::Clock;
use db::Db;
use money::addresses::{self, Addresses, InitialBalance, LeasedIndices};

/// Reads the initial balances of leased addresses, one lease in each run.
pub struct InitialBalanceWorker {
    /// The database with the leases.
    pub db: Db,
    /// The clock for reviews.
    pub clock: Clock,
    /// The chain whose leases are read.
    pub chain: ChainId,
    /// The assets that buyers can pay with on the chain.
    pub assets: Vec<Asset>,
    /// The account keys that derive the leased addresses.
    pub addresses: Arc<Addresses>,
    /// The source of the chain.
    pub source: Arc<dyn Source>,
    /// The pause between two looks for new leases.
    pub pause: Duration,
}

impl InitialBalanceWorker {
    /// Returns a lease whose initial balances are not stored; `None` when there is none.
    async fn find_lease_without_balances(&self) -> Result<Option<LeasedIndices>, db::Error> {
        let (chain, addresses) = (self.chain.clone(), self.addresses.clone());
        let found = self.db.select_one("find_lease_without_balances", move |tx| {
            Box::pin(async move { addresses.find_lease_without_balances(tx, &chain).await })
        });
        found.await
    }

    /// Reads the balances of the addresses at the node's newest block, with one request for each asset. Balances of zero
    /// are left out.
    async fn read_balances(
        &self,
        at: &chain::BlockRef,
        leased: &[(u32, Address)],
    ) -> anyhow::Result<Vec<InitialBalance>> {
        let addresses: Vec<Address> = leased.iter().map(|(_, address)| address.clone()).collect();
        let mut found = Vec::new();
        for asset in &self.assets {
            let amounts = match self.source.balances(at, &asset.kind, &addresses).await {
                Ok(amounts) => amounts.into_iter().map(Some).collect(),
                Err(SourceError::Unsupported(_)) => vec![None; addresses.len()],
                Err(error) => return Err(error.into()),
            };
            if amounts.len() != addresses.len() {
                bail!(SourceError::InvalidResponse(
                    "the number of balances differs from the number of addresses".into()
                ));
            }
            let nonzero = leased.iter().zip(amounts).filter(|(_, amount)| amount.is_none_or(|has| !has.is_zero()));
            let initial = |((index, _), amount): (&(u32, Address), _)| InitialBalance {
                index: *index,
                asset: asset.id.clone(),
                amount,
            };
            found.extend(nonzero.map(initial));
        }
        Ok(found)
    }
}

#[async_trait]
impl Worker for InitialBalanceWorker {
    fn name(&self) -> String {
        format!("initial balances {}", self.chain)
    }

    fn idle_pause(&self) -> Duration {
        self.pause
    }

    fn is_wakeable(&self) -> bool {
        false
    }

    async fn run_once(&self) -> anyhow::Result<Ran> {
        let Some(lease) = self.find_lease_without_balances().await? else { return Ok(Ran::Idle) };
        let at = self.source.tip().await?.head.block_ref();
        let balances = self.read_balances(&at, &self.addresses.derive_leased_addresses(&self.chain, &lease)?).await?;
        let (now, chain) = (self.clock.now(), self.chain.clone());
        let store = self.db.write("store_initial_balances", move |tx| {
            Box::pin(async move {
                let height = at.height;
                addresses::store_initial_balances_and_review_old_money(tx, now, &chain, &lease, height, &balances).await
            })
        });
        store.await?;
        Ok(Ran::Worked)
    }
}
