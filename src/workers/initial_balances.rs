//! Reads the balances of newly leased addresses of one chain. The order that took the lease does not wait for it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use async_trait::async_trait;
use chain::{Address, Amount, Asset, ChainId, Height, Source, SourceError};

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
        let found = self.db.run_body_as_select_with_fallback("find_lease_without_balances", move |tx| {
            Box::pin(async move { addresses.find_lease_without_balances(tx, &chain).await })
        });
        found.await
    }

    /// Reads the balances of the addresses after the block at `height`, with one request for each asset. Balances of zero
    /// are left out. Balances that no node can return are unknown.
    async fn read_balances(&self, height: Height, leased: &[(u32, Address)]) -> anyhow::Result<Vec<InitialBalance>> {
        let at = match self.source.header(height).await {
            Ok(header) => Some(header.ok_or(SourceError::BlockNotFound(height))?.block_ref()),
            Err(SourceError::Unsupported(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let addresses: Vec<Address> = leased.iter().map(|(_, address)| address.clone()).collect();
        let mut found = Vec::new();
        for asset in &self.assets {
            let balances = match &at {
                Some(at) => self.source.balances(at, &asset.kind, &addresses).await,
                None => Err(SourceError::Unsupported("the block of the lease is pruned".into())),
            };
            let amounts: Vec<Option<Amount>> = match balances {
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
        let leased = self.addresses.derive_and_watch_leased_addresses(&self.chain, &lease)?;
        let balances = self.read_balances(lease.height, &leased).await?;
        let (now, chain) = (self.clock.now(), self.chain.clone());
        let store = self.db.write("store_initial_balances", move |tx| {
            Box::pin(async move {
                addresses::store_initial_balances_and_review_old_money(tx, now, &chain, &lease, &balances).await
            })
        });
        store.await?;
        Ok(Ran::Worked)
    }
}
